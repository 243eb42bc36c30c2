"""A cache of the hub that holds toy models under the names of the real ones.

A run finds them there by the name in its recipe, without a network, as it finds a model that was downloaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.envs import TASKS
from sftrl_ext.experiments.rehearsal.families import FAMILIES, family_of

_REVISION = hashlib.sha1(b"toy", usedforsecurity=False).hexdigest()


def put_toy_model(home: Path, repository: str, texts: Sequence[str]) -> Path:
    """Put a toy model into a hub cache, once.

    Args:
        home: Value of ``HF_HOME``.
        repository: Hub name of the real model.
        texts: What its tokenizer is trained on.

    Returns:
        The snapshot: a folder of links to files that are named by their content, as a download leaves it.
    """
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / _REVISION
    if (folder / "refs" / "main").is_file():
        return snapshot
    shutil.rmtree(folder, ignore_errors=True)
    built = folder / "built"
    built.parent.mkdir(parents=True)
    FAMILIES[family_of(repository)](built, list(texts))
    (folder / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for file in sorted(built.iterdir()):
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    built.rmdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(_REVISION, encoding="utf-8")
    return snapshot


def sample_texts(rows: int = 60) -> list[str]:
    """Prompts, answers and feedback of all tasks, as pretrained models are given them."""
    from data_prep.task_rows import find_rows

    return [text for task in TASKS if TASKS[task].rows for text in find_rows(task).sample_texts(rows)]
