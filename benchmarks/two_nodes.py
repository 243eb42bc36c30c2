"""What two Ray nodes cost against one: the same PPO steps by two ranks, on one node and on two.

    python -m benchmarks.two_nodes [--updates 8] [--episodes 128]

Both nodes are of one machine, each with processes, ports and an address of its own, so what is measured is
the cost of being spread out (placement, gloo between processes, copies of weights and episodes through Ray),
not of a slow network. The floor is the run on one node. The first two steps of each run are left out. It
takes about six minutes on two free cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.step_times import phases, timed_steps
from sftrl_ext.files import read_json
from sftrl_ext.runs.layout import RunLayout
from tests.backends.two_nodes import LocalCluster

SKIP = 2


def train(folder: Path, words: list[str], env: Mapping[str, str]) -> Path:
    """Run the RL arm of the card game; its metrics."""
    command = [sys.executable, "-m", "sftrl_ext.cli", "run", "fig6_gp_l", "--scale", "laptop", "~arms.sft"]
    done = subprocess.run(
        [*command, "--run-dir", str(folder), *words], env=dict(env), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-1000:])
    layout = RunLayout(folder)
    [stage] = [s["name"] for s in read_json(layout.state)["stages"] if s["kind"] == "rl"]
    return layout.metrics(stage)


def main() -> None:
    """Print the phases of a step on one node and on two, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=128)
    given = parser.parse_args()
    words = ["budget.dialogues=null", "budget.base.rows=2560", "budget.base.steps=20"]
    words += ["budget.init.rows=256", "budget.init.steps=2", "budget.eval.hands=2", "task.eval_splits=[id]"]
    words += [f"budget.rl.updates={given.updates}", f"budget.rl.episodes={given.episodes}"]
    words += [f"budget.rl.save_every={given.updates}", "scale.threads=1"]
    found = {}
    with tempfile.TemporaryDirectory() as folder, LocalCluster(Path(folder)) as cluster:
        runs = Path(folder)
        alone = {name: value for name, value in cluster.env.items() if name != "RAY_ADDRESS"}
        metrics = train(runs / "one", [*words, "scale.n_gpus_per_node=2"], alone)
        found["one node"] = phases(timed_steps(metrics, SKIP))
        cluster.add()
        cluster.add()
        spread = {**cluster.env, "RAY_ADDRESS": cluster.address}
        metrics = train(runs / "two", [*words, "scale.nnodes=2", "scale.n_gpus_per_node=1"], spread)
        found["two nodes"] = phases(timed_steps(metrics, SKIP))
    one, two = found["one node"], found["two nodes"]
    ratios = {name: round(two[name] / one[name], 3) for name in one if one[name]}
    shown = {run: {name: round(value, 3) for name, value in times.items()} for run, times in found.items()}
    print(json.dumps({"episodes": given.episodes, **shown, "two nodes over one": ratios}, indent=1))


if __name__ == "__main__":
    main()
