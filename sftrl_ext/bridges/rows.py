"""Rows as other libraries take them: read from a parquet file, or built for a task and a split."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import sftrl_ext.envs  # noqa: F401  (registers the tasks)
from data_prep.build import build_file
from data_prep.options import DataOptions
from sftrl_ext.errors import unknown_name
from sftrl_ext.experiments.evaluation.targets import EvalSet, load_eval_set


def find_rows(data: str = "", *, task: str = "", train: bool = False, **options: Any) -> EvalSet:
    """Rows of one split, the same as `sftrl data rl` writes for the same options.

    Args:
        data: Parquet file to read; the other arguments are then left out.
        task: Registered task to build rows of.
        train: Draw from the split's training stream, not the one of its evaluation.
        options: Further fields of `DataOptions`: ``split``, ``rows``, ``seed``, ``modality``, ``routes``, ..

    Raises:
        SftrlError: for a file that is no such rows, an unknown option, or one of another task.
    """
    if data:
        return load_eval_set(Path(data))
    # As argparse would: options that are paths are given as texts.
    fixed = ("kind", "out", "task", "eval")
    types = {f.name: f.metadata["argument"].get("type") for f in fields(DataOptions) if f.name not in fixed}
    for name in options:
        if name not in types:
            raise unknown_name("option of rows", name, types)
    typed = {
        name: types[name](value) if types[name] and isinstance(value, str) else value
        for name, value in options.items()
    }
    with tempfile.TemporaryDirectory(prefix="sftrl-") as folder:
        out = Path(folder) / "rows.parquet"
        build_file(DataOptions("rl", out, task=task, eval=not train, **typed))
        return load_eval_set(out)
