"""Damaged files end in one line or are read; nothing else is raised, and nothing half-written is left.

``SFTRL_FUZZ_FILES`` is the number of damaged files of all kinds together: `make nightly` takes 100,000. None
is damaged after ``SFTRL_FUZZ_SECONDS``.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import pytest

from sftrl_ext.errors import SftrlError, error_text
from tests.faults.file_kinds import file_kinds

pytest.importorskip("matplotlib")

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SFTRL_FUZZ_FILES", "1800"))
SEED = int(os.environ.get("SFTRL_FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("SFTRL_FUZZ_SECONDS", "7200"))
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def quiet():
    """Without warnings and logs: transformers has some for each broken model folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        yield
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return file_kinds(tmp_path_factory.mktemp("kinds"))


def test_intact_files_are_read(kinds, tmp_path):
    for kind in kinds:
        kind.read(kind.path, tmp_path / "out.parquet")


def test_damaged_files_are_refused_in_one_line_or_read(kinds, tmp_path):
    counts, faults, out = Counter(), {}, tmp_path / "out.parquet"
    sources = {kind.name: random.Random(f"{SEED}/{kind.name}") for kind in kinds}
    end = time.monotonic() + SECONDS
    rounds = max(1, COUNT // sum(kind.each for kind in kinds))
    copies = [(kind, copy) for kind in kinds for copy in range(kind.each)]
    for round_number in range(rounds):
        if time.monotonic() > end:
            break
        for kind, copy in copies:
            number = round_number * kind.each + copy
            data = kind.damaged(sources[kind.name])
            kind.path.write_bytes(data)
            ending = _ending(kind, out)
            kind.path.write_bytes(kind.intact)
            counts[kind.name, "read" if ending is None else "refused" if ending == "" else "FAULT"] += 1
            if ending:
                faults.setdefault(f"{kind.name}: {ending}", []).append(number)
                _keep(kind.name, number, data)
            left = {path.name for path in tmp_path.iterdir()} - ({out.name} if ending is None else set())
            assert not left, f"{kind.name}, number {number}: {left} is left behind"
            out.unlink(missing_ok=True)
    table = [f"\n{counts.total():,} damaged files, seed {SEED}\n"]
    for kind in kinds:
        numbers = (counts[kind.name, name] for name in ("refused", "read", "FAULT"))
        table.append("{:30} {:>7,} refused {:>7,} read {:>4} faults\n".format(kind.name, *numbers))
    sys.stdout.write("".join(table))
    assert not faults, "\n".join(f"{text} (numbers {numbers[:9]})" for text, numbers in faults.items())


def _ending(kind, out):
    """None if the file was read, "" if it was refused in one line, else what happened."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE_S)
    try:
        kind.read(kind.path, out)
    except (SftrlError, OSError) as error:
        text = error_text(error).strip()
        return "" if text and "\n" not in text else f"not one line: {text[:200]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
        at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-1:-4:-1])
        return f"{type(error).__name__}: {str(error)[:150]} ({at})"
    finally:
        signal.alarm(0)
    return None


def _too_long(*_):
    raise TimeoutError(f"not read in {PATIENCE_S} s")


def _keep(name, number, data):
    folder = os.environ.get("SFTRL_FUZZ_KEEP")
    if folder:
        path = Path(folder) / f"{name}-{number}".replace("/", "-").replace(" ", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
