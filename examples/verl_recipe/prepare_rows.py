"""Write the rows of both scripts: a training split, and validation splits that share no instance with it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from data_prep.build import build_file
from data_prep.options import DataOptions

VALIDATION_ROWS = 256


def main() -> None:
    """Build what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="general_points")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--validation", nargs="+", default=["id_unseen", "rule_ood"], metavar="SPLIT")
    parser.add_argument("--stock", action="store_true", help="leave out agent_name: one attempt, no feedback")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    files = {"train": ("id", args.rows, False)}
    files |= {split: (split, VALIDATION_ROWS, True) for split in args.validation}
    for name, (split, rows, evaluation) in files.items():
        path = args.folder / f"{name}.parquet"
        if path.exists():
            continue
        build_file(DataOptions("rl", path, task=args.task, split=split, rows=rows, eval=evaluation))
        if args.stock:
            pq.write_table(pq.read_table(path).drop_columns(["agent_name"]), path)


if __name__ == "__main__":
    main()
