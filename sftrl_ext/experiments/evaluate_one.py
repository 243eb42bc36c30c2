"""Evaluate one model folder on parquet files, outside any run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoints import list_checkpoints, model_folder
from sftrl_ext.experiments.evaluate import EvalPlay, play_all, summarise
from sftrl_ext.experiments.stages import load_eval_set, open_engine
from sftrl_ext.reports.stats import over_seeds
from sftrl_ext.rollout.player import Limits


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate and how."""

    model: Path
    files: Sequence[Path]
    engine: str = "hf"
    dtype: str = "float32"
    temperature: float = 0.2
    max_turn_tokens: int = 512
    seed: int = 2501


def find_model(path: Path) -> Path:
    """The Hugging Face folder meant by a path: itself, or the newest checkpoint of a verl folder.

    Raises:
        SftrlError: if there is none.
    """
    if (path / "config.json").is_file():
        return path
    if model_folder(path).is_dir():
        return model_folder(path)
    checkpoints = list_checkpoints(path)
    if checkpoints:
        return checkpoints[-1].folder
    raise SftrlError(
        f"{path}: neither a Hugging Face folder (config.json) nor checkpoints of verl (global_step_<n>)."
    )


def evaluate_model(request: EvalRequest, console: Console) -> list[dict[str, object]]:
    """Play every row of every file and show the success of each.

    Returns:
        One record per file, as in a run's ``records.jsonl``.
    """
    sets = [load_eval_set(path) for path in request.files]
    engine = open_engine(request.engine, find_model(request.model), dtype=request.dtype, rows=256)
    turn = request.max_turn_tokens
    attempts = max(int(facts.get("max_attempts", 1)) for chosen in sets for facts in chosen.facts)
    how = EvalPlay(
        Limits(prompt=4096, response=attempts * (turn + 256), turn=turn), request.temperature, request.seed
    )
    records: list[dict[str, object]] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("evaluate", total=sum(len(chosen.facts) for chosen in sets))
        for chosen in sets:
            played = asyncio.run(play_all(how, chosen, engine, lambda: progress.advance(task)))
            records.append({"model": str(request.model), **summarise(chosen, played), "engine": engine.name})
    console.print(_table(records))
    return records


def append_records(path: Path, records: Sequence[dict[str, object]]) -> None:
    """Append one JSON line per record."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _table(records: Sequence[dict[str, object]]) -> Table:
    """Success of each split; of routes also per-step accuracy, of hands in images the share recognised."""
    images = any("recognized_first" in record for record in records)
    steps = any("responses" in record for record in records)
    columns = [*(["per step %"] if steps else []), "success %", *(["recognised %"] if images else [])]
    table = Table("split", "routes" if steps else "hands", *columns, "attempts")
    for record in records:
        episodes = record["episodes"]
        shares = [_share(record.get("correct_actions"), record.get("responses"))] if steps else []
        shares += [_share(record["solved"], episodes)]
        shares += [_share(record.get("recognized_first"), episodes)] if images else []
        table.add_row(
            str(record["split"]),
            str(episodes),
            *shares,
            f"{record['attempts_mean']:.2f}",
        )
    return table


def _share(count: Any, episodes: Any) -> str:
    return "" if count is None or not episodes else str(over_seeds([(count, episodes)]))
