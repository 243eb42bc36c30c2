"""Start of the command line: ``python benchmarks/startup.py``.

Four commands, each in processes of its own: the help, a plan, the doctor, and a run until it prints its first
line, where it is ended. Prints one JSON object with the CPU seconds (user and kernel) and the wall seconds of
each, the best of several rounds (the doctor and the run: one), beside an empty program and one that imports
what composes a recipe. CPU seconds include those of processes a command starts and waits for; wall seconds
hold on a free core only, so the goals are compared with the CPU seconds. Exits with 1 if one is missed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLI = ("-m", "sftrl_ext.cli")
RECIPE = "fig6_gp_l"
BASELINES = {"empty": ("-c", "pass"), "hydra": ("-c", "import hydra, omegaconf")}
AT_MOST_S = {"help": 0.3, "plan": 2.0, "doctor": 3.0, "first_line": 5.0}


def measured(arguments: tuple[str, ...], rounds: int = 1, first_line: bool = False) -> dict[str, float]:
    """Seconds of the quickest of several processes of Python.

    Args:
        arguments: Arguments of Python.
        rounds: Number of processes.
        first_line: End each after its first line.
    """
    return min((_once(arguments, first_line) for _ in range(rounds)), key=lambda seconds: seconds["cpu"])


def _once(arguments: tuple[str, ...], first_line: bool) -> dict[str, float]:
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if first_line:
            wall = time.perf_counter() - start
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.read()
    if not first_line:
        wall = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return {"cpu": round(cpu, 2), "wall": round(wall, 2)}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = ("run", RECIPE, "--scale", "smoke", "--run-dir", str(Path(folder) / "run"))
        seconds = {
            "help": measured((*CLI, "--help"), rounds=5),
            "plan": measured((*CLI, "plan", RECIPE, "--scale", "node"), rounds=3),
            "doctor": measured((*CLI, "doctor")),
            "first_line": measured((*CLI, *run), first_line=True),
        }
    baselines = {name: measured(arguments, rounds=5) for name, arguments in BASELINES.items()}
    ratios = {name: round(each["cpu"] / baselines["hydra"]["cpu"], 1) for name, each in seconds.items()}
    missed = [name for name, most in AT_MOST_S.items() if seconds[name]["cpu"] > most]
    print(
        json.dumps(
            {"seconds": seconds, "baselines": baselines, "cpu_over_hydra": ratios, "at_most_s": AT_MOST_S}
        )
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
