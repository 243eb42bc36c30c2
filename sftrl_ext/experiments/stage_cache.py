"""Content-addressed cache of finished stages, shared by the runs in one folder.

A stage of training has a key: a digest of its command, with every input in it replaced by its content (rows)
or by the key of the stage that made it (start models), of its variables, and of the code. Two stages with one
key would do the same work, so the second reuses the folder of the first by hard links, with its numbers; the
state of its run names the run that trained it.
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

import data_prep
import sftrl_ext
from data_prep.origins import file_digest, read_origins
from sftrl_ext import plugins
from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.start_models.model_files import folder_digest
from sftrl_ext.experiments.start_models.model_source import find_model, is_hub_name
from sftrl_ext.experiments.start_models.start_choice import chosen_models
from sftrl_ext.files import link_or_copy, parquet_errors
from sftrl_ext.paths import configs_dir
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import prepare_to_append, read_episodes, read_eval_records, write_records
from sftrl_ext.runs.state import RunState, StageState

SHARED_KINDS = ("model", "sft", "rl")
"""Kinds of stage that have a key. Data is quick to make; evaluation is shared checkpoint by checkpoint."""

_VALIDATION = ("data.val_files=", "actor_rollout_ref.rollout.val_kwargs.")
_PACKAGES = ("torch", "transformers", "verl", "ray", "vllm")


@dataclass(frozen=True)
class CachedStage:
    """A finished stage of another run.

    Attributes:
        layout: Its run.
        state: Its state there.
    """

    layout: RunLayout
    state: StageState


def stage_key(recipe: Recipe, stage: Stage, layout: RunLayout, keys: Mapping[str, str]) -> str | None:
    """Cache key of a stage: digest of its command, inputs, environment and code.

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
    digests = plugins.plugin_digests(recipe.plugins)
    if stage.kind == "model":
        base = layout.rows("base")
        texts = rows_digest(base, layout.root) if base.is_file() else None
        model = {"model": asdict(recipe.model), "files": _model_digest(recipe.model.path)}
        return _digest({**model, "texts": texts, **_code(digests)})
    args = effective_args(stage)
    replacements = {
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
        replacements[str(link)] = (
            f"{{{keys.get(name)}}}/{path_in_stage}"  # as if the recipe had named the step
        )
    for path in layout.data.glob("*.parquet"):
        if any(str(path) in arg for arg in args):
            replacements[str(path)] = f"{{{rows_digest(path, layout.root)}{pictures.get(path.stem, '')}}}"
    template = Path(recipe.task.template)
    args = [_replaced(arg, replacements) for arg in args]
    if any("{run}/stages" in arg or "{None}" in arg for arg in args):  # an input without a key
        return None
    return _digest(
        {
            "words": args,
            "files": [file_digest(template)] if template.is_file() else [],
            "deck": TASKS[recipe.task.kind].assets_digest(recipe.task),
            **_code(digests),
        }
    )


def effective_args(stage: Stage) -> list[str]:
    """Arguments and variables of a stage's command, without those of a validation that never runs.

    Plug-ins are left out: they count by their content.
    """
    variables = sorted((name, value) for name, value in stage.env.items() if name != plugins.VARIABLE)
    args = [*stage.command, *(f"{name}={value}" for name, value in variables)]
    if "trainer.test_freq=-1" in args:
        args = [arg for arg in args if not arg.startswith(_VALIDATION)]
    return args


def find_stage(folder: Path, key: str) -> CachedStage | None:
    """Find a finished stage with a key in any run of a folder."""
    for layout, run in _runs(folder):
        for state in run.stages:
            if state.status == "done" and state.key == key:
                return CachedStage(layout, state)
    return None


def reuse_stage(cached: CachedStage, layout: RunLayout, stage: Stage) -> None:
    """Link the outputs of a cached stage into a run: all of them, or none."""
    if stage.kind == "model":
        source, target = cached.layout.start_model, layout.start_model
    else:
        source, target = cached.layout.stage(cached.state.name), layout.stage(stage.name)
    partial = target.with_name(f".{target.name}.partial")
    for leftover in (partial, target):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial, copy_function=link_or_copy, symlinks=True)
    os.replace(partial, target)


def reuse_records(recipe: Recipe, run: RunState, layout: RunLayout, folder: Path) -> int:
    """Copy evaluation records of shared checkpoints from runs that evaluated them in the same way.

    Args:
        recipe: The recipe of the run.
        run: Its state.
        layout: Its folder; records that it has of a stage and split are kept.
        folder: The folder of the other runs.

    Returns:
        The number of copied records.
    """
    prepare_to_append(layout)
    eval_keys = {split: _eval_key(recipe, layout, split, run.plugins) for split in recipe.task.eval_splits}
    records = list(read_eval_records(layout).values())
    episodes, before = read_episodes(layout), len(records)
    wanted = {stage.key: stage for stage in run.stages if stage.status == "done" and stage.key}
    present = {(record.stage, record.split) for record in records}
    for other, state in _runs(folder):
        if other.root == layout.root:
            continue
        shared_stages = {
            s.name: wanted[s.key] for s in state.stages if s.status == "done" and s.key in wanted
        }
        if not shared_stages or not other.records.is_file():
            continue
        theirs = from_yaml(other.recipe, plugins=False)
        same = {
            split
            for split in set(eval_keys) & set(theirs.task.eval_splits)
            if other.eval_rows(split).is_file()
            and eval_keys[split] == _eval_key(theirs, other, split, state.plugins)
        }
        shared: set[tuple[str, str]] = set()
        for record in read_eval_records(other, _ignore).values():
            mine = shared_stages.get(record.stage)
            if mine is not None and record.split in same and (mine.name, record.split) not in present:
                arm = str(mine.arm)
                records.append(replace(record, stage=mine.name, arm=arm, seed=mine.seed or 0, lr=mine.lr))
                shared.add((record.stage, record.split))
        for episode in read_episodes(other, _ignore):
            if (episode.stage, episode.split) in shared:
                mine = shared_stages[episode.stage]
                copy = replace(episode, stage=mine.name, arm=str(mine.arm), seed=mine.seed or 0)
                episodes.append(copy)
        present |= {(shared_stages[stage].name, split) for stage, split in shared}
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
    import pyarrow.parquet as pq  # planning a run needs no pyarrow

    digest = hashlib.sha256()
    # ``changed`` and ``size`` are for the cache of this function: a file that was written again is read
    # again.
    inside = str(root).encode()
    with parquet_errors(path), pq.ParquetFile(path) as file:
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


def _code(digests: Mapping[str, str]) -> dict[str, Any]:
    """Digests of our code and of the plug-ins of a run, wherever they lie."""
    return {"code": code_digest(), "plugins": sorted(digests.values())}


def _eval_key(recipe: Recipe, layout: RunLayout, split: str, digests: Mapping[str, str]) -> str:
    """Cache key of an evaluation on a split: digest of its rows, settings, engine and code."""
    rl, scale = recipe.budget.rl, recipe.scale
    settings = {
        "rows": rows_digest(layout.eval_rows(split), layout.root),
        # The number of instances is in the digest of the rows.
        "eval": {**asdict(recipe.budget.eval), "hands": None, "hands_of": None},
        "tokens": [rl.max_prompt_length, rl.max_response_length, rl.max_turn_tokens, rl.max_prompts],
        "engine": [scale.engine, scale.backend, scale.tensor_parallel, recipe.model.dtype],
        "train_split": recipe.task.train_split,
        # Divergence is measured on the split trained on, or else on the first one.
        "first_split": recipe.task.eval_splits[0],
        **_code(digests),
        "deck": TASKS[recipe.task.kind].assets_digest(recipe.task),
    }
    return _digest(settings)


def _runs(folder: Path) -> Iterator[tuple[RunLayout, RunState]]:
    """Every run of a folder."""
    for path in sorted(folder.glob("*/state.json")):
        try:
            yield RunLayout(path.parent.resolve()), RunState.load(path)
        except SftrlError:  # a run of an older form has nothing to share
            continue


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    # Longest first: a run folder is the beginning of the paths in it.
    for path in sorted(replacements, key=len, reverse=True):
        text = text.replace(path, replacements[path])
    return text


def _model_digest(path: str | None) -> str | None:
    """Digest of a local model; a hub model goes by its name."""
    return None if path is None or is_hub_name(path) else folder_digest(find_model(Path(path)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
