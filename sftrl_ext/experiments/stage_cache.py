"""Stages that runs have in common, run once: told apart by all that goes into them, taken over as they are.

A stage of training has a key: a digest of its command, with every input in it replaced by what it holds (rows
by their content, a start model by the key of the stage that made it), of its variables, and of the code. Two
stages with one key would do the same work, so the second takes over the folder of the first by hard links,
with its numbers, and says in the state of the run where it is from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import data_prep
import sftrl_ext
from data_prep.origins import file_digest, read_origins
from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.start_models.model_files import folder_digest
from sftrl_ext.experiments.start_models.model_source import find_model, is_hub_name
from sftrl_ext.experiments.start_models.start_choice import chosen_models
from sftrl_ext.paths import configs_dir
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import prepare_to_append, read_episodes, read_eval_records, write_records
from sftrl_ext.runs.state import RunState, StageState

SHARED_KINDS = ("model", "sft", "rl")
"""Kinds of stage that have a key. Data is quick to make; evaluation is shared checkpoint by checkpoint."""

_VALIDATION = ("data.val_files=", "actor_rollout_ref.rollout.val_kwargs.")
_PACKAGES = ("torch", "transformers", "verl", "ray", "vllm")


@dataclass(frozen=True)
class Donor:
    """A finished stage of another run.

    Attributes:
        layout: The run.
        stage: The stage.
    """

    layout: RunLayout
    stage: StageState


def stage_key(recipe: Recipe, stage: Stage, layout: RunLayout, keys: Mapping[str, str]) -> str | None:
    """What tells whether another stage is the same.

    Args:
        recipe: The recipe of the run.
        stage: A stage whose inputs are there.
        layout: The run.
        keys: Keys of the stages before it, by name.

    Returns:
        A digest in hexadecimal; None for a kind of stage that is not shared, or an input that has no key.
    """
    if stage.kind not in SHARED_KINDS:
        return None
    if stage.kind == "model":
        base = layout.rows("base")
        texts = rows_digest(base, layout.root) if base.is_file() else None
        model = {"model": asdict(recipe.model), "files": _model_digest(recipe.model.path)}
        return _digest({**model, "texts": texts, "code": code_digest()})
    words = [*stage.command, *(f"{name}={value}" for name, value in sorted(stage.env.items()))]
    if "trainer.test_freq=-1" in words:  # validation is told how to play, and never does
        words = [word for word in words if not word.startswith(_VALIDATION)]
    said = {
        str(layout.stage(stage.name)): "{stage}",
        f"trainer.experiment_name={stage.name}": "trainer.experiment_name={stage}",
        str(layout.start_model): f"{{{keys.get('model')}}}",
        str(layout.root): "{run}",
        str(configs_dir()): "{configs}",
        sys.executable: "{python}",
        **{str(layout.stage(name)): f"{{{key}}}" for name, key in keys.items()},
    }
    pictures = {name: origin.pictures for name, origin in read_origins(layout.origins).items()}
    for link, (name, path_in_stage) in chosen_models(layout).items():
        said[str(link)] = f"{{{keys.get(name)}}}/{path_in_stage}"  # as if the recipe had named the step
    for path in layout.data.glob("*.parquet"):
        if any(str(path) in word for word in words):
            said[str(path)] = f"{{{rows_digest(path, layout.root)}{pictures.get(path.stem, '')}}}"
    files = [recipe.task.reward_file, recipe.task.template, recipe.task.module]
    told = [_replaced(word, said) for word in words]
    if any("{run}/stages" in word or "{None}" in word for word in told):
        return None
    return _digest(
        {
            "words": told,
            "files": [file_digest(Path(name)) for name in files if name and Path(name).is_file()],
            "deck": TASKS[recipe.task.kind].assets_digest(recipe.task),
            "code": code_digest(),
        }
    )


def find_donor(folder: Path, key: str) -> Donor | None:
    """A finished stage with a key, of any run in a folder."""
    done = (Donor(layout, s) for layout, run in _runs(folder) for s in run.stages if s.status == "done")
    return next((donor for donor in done if donor.stage.key == key), None)


def take_over(donor: Donor, layout: RunLayout, stage: Stage) -> None:
    """Put what a finished stage made into a run: whole, or not at all."""
    if stage.kind == "model":
        source, target = donor.layout.start_model, layout.start_model
    else:
        source, target = donor.layout.stage(donor.stage.name), layout.stage(stage.name)
    partial = target.with_name(f".{target.name}.partial")
    for leftover in (partial, target):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial, copy_function=_link, symlinks=True)
    os.replace(partial, target)


def take_records(recipe: Recipe, run: RunState, layout: RunLayout, folder: Path) -> int:
    """Take over how checkpoints did that another run shares and has evaluated in the same way.

    Args:
        recipe: The recipe of the run.
        run: Its state.
        layout: Where it is; of a stage and split that it has records of, nothing is taken over.
        folder: The folder of the other runs.

    Returns:
        How many records were taken over.
    """
    prepare_to_append(layout)
    asked = {split: _eval_key(recipe, layout, split) for split in recipe.task.eval_splits}
    records = list(read_eval_records(layout).values())
    episodes, before = read_episodes(layout), len(records)
    wanted = {stage.key: stage for stage in run.stages if stage.status == "done" and stage.key}
    present = {(record.stage, record.split) for record in records}
    for other, state in _runs(folder):
        if other.root == layout.root:
            continue
        donors = {s.name: wanted[s.key] for s in state.stages if s.status == "done" and s.key in wanted}
        if not donors or not other.records.is_file():
            continue
        theirs = from_yaml(other.recipe)
        same = {
            split
            for split in set(asked) & set(theirs.task.eval_splits)
            if other.eval_rows(split).is_file() and asked[split] == _eval_key(theirs, other, split)
        }
        shared: set[tuple[str, str]] = set()
        for record in read_eval_records(other, _ignore).values():
            mine = donors.get(record.stage)
            if mine is not None and record.split in same and (mine.name, record.split) not in present:
                arm = str(mine.arm)
                records.append(replace(record, stage=mine.name, arm=arm, seed=mine.seed or 0, lr=mine.lr))
                shared.add((record.stage, record.split))
        for episode in read_episodes(other, _ignore):
            if (episode.stage, episode.split) in shared:
                mine = donors[episode.stage]
                copy = replace(episode, stage=mine.name, arm=str(mine.arm), seed=mine.seed or 0)
                episodes.append(copy)
        present |= {(donors[stage].name, split) for stage, split in shared}
    write_records(layout, records, episodes)
    return len(records) - before


def _ignore() -> None:
    """Accepts the torn last line of a run that is still being evaluated."""


def rows_digest(path: Path, root: Path) -> str:
    """Digest of the rows of a parquet file, paths into the run folder ``root`` left out."""
    stat = path.stat()
    return _rows_digest(path, root, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _rows_digest(path: Path, root: Path, changed: int, size: int) -> str:
    digest = hashlib.sha256()
    inside = str(root).encode()
    file = pq.ParquetFile(path)
    digest.update(str(file.schema_arrow).encode())
    for batch in file.iter_batches(batch_size=4096):
        digest.update(repr(batch.to_pylist()).encode().replace(inside, b"{run}"))
    return digest.hexdigest()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of the code and of the versions that it runs with."""
    digest = hashlib.sha256()
    packages = [Path(str(package.__file__)).parent for package in (sftrl_ext, data_prep)]
    for folder in (*packages, configs_dir()):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.yaml")]):
            digest.update(f"{path.relative_to(folder)}\0{file_digest(path)}".encode())
    for name in _PACKAGES:
        try:
            digest.update(f"{name} {importlib.metadata.version(name)}".encode())
        except importlib.metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def _eval_key(recipe: Recipe, layout: RunLayout, split: str) -> str:
    """What tells whether a checkpoint was evaluated in the same way on a split."""
    rl, scale = recipe.budget.rl, recipe.scale
    how = {
        "rows": rows_digest(layout.eval_rows(split), layout.root),
        "eval": {**asdict(recipe.budget.eval), "hands": None, "hands_of": None},
        "tokens": [rl.max_prompt_length, rl.max_response_length, rl.max_turn_tokens, rl.max_prompts],
        "engine": [scale.engine, scale.backend, scale.tensor_parallel, recipe.model.dtype],
        "train_split": recipe.task.train_split,
        "first_split": recipe.task.eval_splits[0],
        "code": code_digest(),
        "deck": TASKS[recipe.task.kind].assets_digest(recipe.task),
    }
    return _digest(how)


def _runs(folder: Path) -> Iterator[tuple[RunLayout, RunState]]:
    """Every run of a folder."""
    for path in sorted(folder.glob("*/state.json")):
        try:
            yield RunLayout(path.parent.resolve()), RunState.load(path)
        except SftrlError:  # a run of an older form has nothing to share
            continue


def _replaced(word: str, said: Mapping[str, str]) -> str:
    for path in sorted(said, key=len, reverse=True):
        word = word.replace(path, said[path])
    return word


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def _model_digest(path: str | None) -> str | None:
    """Digest of a local model; a hub model goes by its name."""
    return None if path is None or is_hub_name(path) else folder_digest(find_model(Path(path)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
