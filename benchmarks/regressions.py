"""Regression check: the ratios of the light benchmarks beside those stored in `baseline.json`.

    python -m benchmarks.regressions          # measure, print, and compare; exits with 1 if one is worse
    python -m benchmarks.regressions --store  # measure, and store the ratios

Both sides of a ratio are measured in one run, so it holds on other machines and beside other work, where
seconds do not. Bounds in seconds are for the scripts themselves. Takes about a minute on a free core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer_inputs import build_start, measure_apart
from sftrl_ext.files import read_json, write_json
from sftrl_ext.runs.machine import describe_commit

FOLDER = Path(__file__).parent
STORED = FOLDER / "baseline.json"
SECTION = "ratios"
"""Key of `baseline.json`."""
ALLOWED = 1.5
"""Factor by which a ratio may be worse than the stored one."""

Ratios = Mapping[str, Mapping[str, float]]
"""Values by benchmark and ratio."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that measures ratios.

    Attributes:
        measure: Returns the ratios by name.
        of_speeds: The ratio is ours over the baseline's speed, so larger is better; otherwise it is of times.
    """

    measure: Callable[[], dict[str, float]]
    of_speeds: bool = False

    def times_worse(self, stored: float, measured: float) -> float:
        """Factor by which a measured ratio is worse than the stored one; below 1 if it is better."""
        return stored / measured if self.of_speeds else measured / stored


def script_ratios(script: str) -> dict[str, float]:
    """Ratios over the floor in the JSON that a script of this folder prints.

    Raises:
        SystemExit: with the end of its messages, if it printed none.
    """
    done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py")], capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)  # also of a script that missed one of its bounds
    except ValueError:
        raise SystemExit(
            f"{script}.py: expected JSON; it ended with {done.returncode}: {done.stderr[-2000:]}"
        ) from None
    return {key: value for key, value in _flat(report) if "over_floor" in key}


def _flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", value


def generation_ratios() -> dict[str, float]:
    """Tokens per CPU second of our engine over transformers' `generate`, on a model with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        build_start(Path(folder))
        settings = {"model": folder, "threads": 1, "batches": [64], "rounds": 2}
        ours, peer = (
            measure_apart("peer_generation", {**settings, "side": side}) for side in ("ours", "transformers")
        )
    return {
        case: round(speed["tokens_per_cpu_s"] / peer[case]["tokens_per_cpu_s"], 2)
        for case, speed in ours.items()
    }


BENCHMARKS: dict[str, Benchmark] = {
    "bench_solver": Benchmark(lambda: script_ratios("bench_solver"), of_speeds=True),
    "bench_grade": Benchmark(lambda: script_ratios("bench_grade")),
    "bench_render": Benchmark(lambda: script_ratios("bench_render")),
    "bench_street_view": Benchmark(lambda: script_ratios("bench_street_view")),
    "bench_dataset": Benchmark(lambda: script_ratios("bench_dataset")),
    "peer_generation": Benchmark(generation_ratios, of_speeds=True),
}


def regressions(stored: Ratios, measured: Ratios) -> list[str]:
    """Messages about ratios that are more than `ALLOWED` times worse, not stored, or not measured."""
    faults = []
    for name in sorted({*stored, *measured}):
        before, now = stored.get(name, {}), measured.get(name, {})
        for key in sorted({*before, *now}):
            ratio = f"{name}: {key}"
            if key not in before:
                faults.append(f"{STORED.name}: {SECTION}: {ratio}: missing; measured {now[key]}")
            elif key not in now:
                faults.append(f"{ratio}: not measured; {STORED.name} has {before[key]}")
            elif (factor := BENCHMARKS[name].times_worse(before[key], now[key])) > ALLOWED:
                faults.append(
                    f"{ratio}: stored {before[key]}, measured {now[key]}: {factor:.2f} times worse; "
                    f"allowed: {ALLOWED} times"
                )
    return faults


def main() -> int:
    """Measure, and compare or store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true", help=f"store the ratios in {STORED.name}")
    options = parser.parse_args()
    commit = describe_commit()
    measured = {name: benchmark.measure() for name, benchmark in BENCHMARKS.items()}
    baseline = read_json(STORED)
    if options.store:
        write_json(STORED, {**baseline, SECTION: {"commit": commit, "values": measured}})
        return 0
    stored = baseline.get(SECTION, {}).get("values", {})
    for name, benchmark in BENCHMARKS.items():
        # Other work on the cores worsens a ratio for a while: a second measurement decides.
        if regressions({name: stored.get(name, {})}, {name: measured[name]}):
            measured[name] = benchmark.measure()
    print(json.dumps(measured, indent=1))
    faults = regressions(stored, measured)
    print("\n".join(faults) or f"No ratio is worse than stored by more than {ALLOWED} times.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
