"""Where the time of a PPO step goes, read from the metrics of a finished run; nothing is trained here.

    python benchmarks/ppo_step.py runs/fig6_gp_l-laptop

Model compute is generation, the log-probability and value passes, and both updates; the floor is a step that
is nothing but model compute (share outside: 0). The first step of a launch is left out: it holds warm-up.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from step_times import MODEL, phases, timed_steps


def shares(metrics: Path) -> dict[str, float]:
    """Median seconds of each phase of a step, and the share of a step outside model compute.

    Args:
        metrics: ``metrics.jsonl`` of an RL stage.
    """
    steps = timed_steps(metrics)
    inside = statistics.median(
        sum(data.get(f"timing_s/{name}", 0.0) for name in MODEL) / data["timing_s/step"] for data in steps
    )
    tokens = statistics.median(data["tokens/step_trained"] / data["timing_s/step"] for data in steps)
    return {
        "steps": len(steps),
        **phases(steps),
        "share_outside_model": 1 - inside,
        "trained_tokens_per_s": tokens,
    }


def main() -> None:
    """Print one JSON object per RL stage of a run."""
    run_dir = Path(sys.argv[1])
    stages = sorted(run_dir.glob("stages/rl-*/metrics.jsonl"))
    if not stages:
        raise SystemExit(f"{run_dir}: no finished RL stage in it.")
    for metrics in stages:
        result = {key: round(value, 4) for key, value in shares(metrics).items()}
        print(json.dumps({"stage": metrics.parent.name, **result}))


if __name__ == "__main__":
    main()
