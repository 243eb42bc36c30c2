"""Run the stages of a recipe one after the other; killed at any point, go on where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoint_storage import CheckpointKeeper
from sftrl_ext.experiments.locks import held
from sftrl_ext.experiments.plan import Stage, make_plan
from sftrl_ext.experiments.recipe.arms import gives_init
from sftrl_ext.experiments.recipe.attention import pin_attention, require_attention, same_but_auto
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.recipe.trackers import require_packages
from sftrl_ext.experiments.stage_cache import find_donor, stage_key, take_over, take_records
from sftrl_ext.experiments.start_models.start_choice import note_choice
from sftrl_ext.experiments.subprocesses import end_leftover, run_child, tail
from sftrl_ext.experiments.verl_commands import joins_cluster
from sftrl_ext.files import read_json, write_text
from sftrl_ext.runs.checkpoints import latest_step
from sftrl_ext.runs.compute import PaperFormula
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.machine import describe_commit, describe_hardware
from sftrl_ext.runs.metrics import Follower, merge_launches
from sftrl_ext.runs.state import ModelState, RunState, StageState
from sftrl_ext.runs.token_files import write_given_tokens, write_tokens


def start_run(recipe: Recipe, run_dir: Path, console: Console, share: Path | None = None) -> None:
    """Begin a run in a new folder.

    Args:
        recipe: The composed recipe.
        run_dir: The run folder.
        console: Where progress is shown.
        share: A folder of runs whose finished stages are taken over where they are the same.

    Raises:
        SftrlError: if the folder holds a run already, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if layout.state.exists():
        raise SftrlError(
            f"{run_dir}: a run is there already. Go on with "
            f"`sftrl resume {run_dir}`, or choose another --run-dir."
        )
    require_training()
    require_packages(recipe.trackers)
    recipe = pin_attention(recipe)
    require_attention(recipe, joins_cluster(recipe))
    write_text(layout.recipe, to_yaml(recipe))
    run = RunState(
        recipe=recipe.name,
        scale=recipe.scale.name,
        title=recipe.title,
        commit=describe_commit(),
        hardware=describe_hardware(),
        model=ModelState(recipe.model.name),
        pretrained_on_both_rules=recipe.budget.base is not None and len(recipe.task.pretrain_splits) > 1,
        share=None if share is None else str(share.resolve()),
        stages=[_new(stage) for stage in make_plan(recipe, layout.root)],
    )
    run.save(layout.state)
    _go_on(recipe, layout, console)


def start_or_resume(recipe: Recipe, run_dir: Path, console: Console, share: Path | None = None) -> None:
    """Begin a run, or go on with it: what a launcher runs, which may run again after a failure.

    Raises:
        SftrlError: if the folder holds another run, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if not layout.state.exists():
        start_run(recipe, run_dir, console, share)
        return
    if not same_but_auto(recipe, from_yaml(layout.recipe)):
        raise SftrlError(
            f"{run_dir}: a run of another recipe is there ({layout.recipe} differs from what was asked "
            f"for). Go on with it by `sftrl resume {run_dir}`, or choose another --run-dir."
        )
    resume_run(run_dir, console)


def resume_run(run_dir: Path, console: Console) -> None:
    """Go on with a run; finished stages are not repeated, a stage begun goes on from its last checkpoint.

    Raises:
        SftrlError: if there is no run in the folder, another process is at it, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if not layout.state.exists():
        raise SftrlError(f"{run_dir}: no run there (no {layout.state.name}); start one with `sftrl run`.")
    require_training()
    recipe = from_yaml(layout.recipe)
    require_attention(recipe, joins_cluster(recipe))
    _go_on(recipe, layout, console)


def require_training() -> None:
    """Refuse to train where only the base install is.

    Raises:
        SftrlError: naming what is missing and how to get it.
    """
    import importlib.util

    missing = [
        name for name in ("torch", "ray", "transformers", "verl") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise SftrlError(
            f"training needs {', '.join(missing)}, not in this environment (a base install has "
            'environments, rewards and data only). Install "sftrl-ext[cpu]" for a laptop '
            'or "sftrl-ext[gpu]" for CUDA.'
        )


def _new(stage: Stage) -> StageState:
    return StageState(stage.name, stage.kind, stage.arm, stage.seed, stage.lr, stage.start)


def _go_on(recipe: Recipe, layout: RunLayout, console: Console) -> None:
    with _only_one(layout):
        run = RunState.load(layout.state)
        plan = make_plan(recipe, layout.root)
        known = {stage.name for stage in run.stages}
        run.stages += [_new(stage) for stage in plan if stage.name not in known]
        for number, stage in enumerate(plan, 1):
            if run.stage(stage.name).status == "done":
                continue
            where = f"[{number}/{len(plan)}]"
            _note_key(recipe, stage, run, layout)
            with _only_one_like_it(stage, where, run, console):
                if not _taken_over(recipe, stage, where, run, layout, console):
                    _run_stage(recipe, stage, where, run, layout, console)


def _note_key(recipe: Recipe, stage: Stage, run: RunState, layout: RunLayout) -> None:
    """Note the key of a stage that is about to run."""
    entry = run.stage(stage.name)
    keys = {one.name: one.key for one in run.stages if one.status == "done" and one.key is not None}
    key = stage_key(recipe, stage, layout, keys)
    # Begun with other code than it goes on with, it is no other stage's like.
    entry.key = key if entry.launches == 0 or key == entry.key else None


@contextlib.contextmanager
def _only_one_like_it(stage: Stage, where: str, run: RunState, console: Console) -> Iterator[None]:
    """Where runs share stages, wait for one of them that is at the same stage now."""
    key = run.stage(stage.name).key
    if run.share is None or key is None:
        yield
        return

    def say() -> None:
        console.print(f"{where} waits for {stage.title} ({stage.name}) of another run", highlight=False)

    with held(Path(run.share) / ".stages" / key, on_wait=say):
        yield


def _taken_over(
    recipe: Recipe, stage: Stage, where: str, run: RunState, layout: RunLayout, console: Console
) -> bool:
    """Take a stage over from another run that has done it, where that is wanted."""
    entry = run.stage(stage.name)
    if run.share is None or entry.launches > 0:
        return False
    if stage.kind in ("eval", "choice"):
        taken = take_records(recipe, run, layout, Path(run.share))
        if taken:
            console.print(f"{where} took over {taken} results of shared checkpoints", highlight=False)
        return False
    donor = None if entry.key is None else find_donor(Path(run.share), entry.key)
    if donor is None:
        return False
    take_over(donor, layout, stage)
    if stage.kind == "model":
        _note_model(recipe, run, layout)
    theirs = donor.stage
    entry.wall_s, entry.peak_rss_mb = theirs.wall_s, theirs.peak_rss_mb
    entry.shared_from = theirs.shared_from or donor.layout.root.name
    entry.status = "done"
    run.save(layout.state)
    console.print(
        f"{where} [green]shared[/] {stage.title} ({stage.name}): {entry.shared_from} has run it",
        highlight=False,
    )
    return True


def _run_stage(
    recipe: Recipe, stage: Stage, where: str, run: RunState, layout: RunLayout, console: Console
) -> None:
    entry = run.stage(stage.name)
    folder = layout.stage(stage.name)
    record = folder / "process.json"
    end_leftover(record)
    if _already_trained(
        stage, layout
    ):  # killed after the last checkpoint: training it again would go past the end
        _finish(recipe, stage, run, layout, console)
        return
    entry.status, entry.launches = "running", entry.launches + 1
    run.save(layout.state)
    log = layout.log(stage.name)
    metrics = folder / f"metrics-{entry.launches}.jsonl"
    env = {**stage.env, "VERL_FILE_LOGGER_PATH": str(metrics)}
    follower = Follower(metrics)
    keeper = _checkpoint_keeper(recipe, stage, layout)
    with _progress(console) as progress:
        task = progress.add_task(f"{where} {stage.title} ({stage.name})", total=stage.total, last="")

        def look() -> None:
            step, words = follower.look()
            progress.update(task, completed=step if stage.total else 0, last=words)
            if stage.total:
                keeper.look()

        finished = run_child(stage.command, env=env, log=log, record=record, on_poll=look)
        if stage.total and finished.code == 0:
            progress.update(task, completed=stage.total)
    entry.wall_s = round(entry.wall_s + finished.wall_s, 1)
    entry.peak_rss_mb = round(max(entry.peak_rss_mb, finished.peak_rss_mb))
    if finished.code == 0 and stage.total and not _already_trained(stage, layout):
        finished = type(finished)(-1, finished.wall_s, finished.peak_rss_mb)
    if finished.code != 0:
        entry.status = "failed"
        run.save(layout.state)
        console.print(f"\n[dim]{'-' * 20} the end of {log} {'-' * 20}[/]", highlight=False)
        console.print(tail(log), markup=False, highlight=False)
        raise SftrlError(
            f"stage {stage.name!r} failed (exit status {finished.code}); its whole log: {log}. "
            f"When the cause is mended: `sftrl resume {layout.root}`."
        )
    _finish(recipe, stage, run, layout, console)
    console.print(
        f"{where} [green]done[/] {stage.title} ({stage.name}): "
        f"{entry.wall_s:.0f} s, {entry.peak_rss_mb:.0f} MiB",
        highlight=False,
    )


def _finish(recipe: Recipe, stage: Stage, run: RunState, layout: RunLayout, console: Console) -> None:
    if stage.total:
        merge_launches(layout.stage(stage.name))
    if stage.kind == "model":
        _note_model(recipe, run, layout)
    if stage.kind == "choice":
        console.print(note_choice(run, layout, stage.name), highlight=False)
    if stage.kind in ("sft", "rl"):
        _checkpoint_keeper(recipe, stage, layout).look()
        write_tokens(
            layout,
            stage.name,
            stage.kind,
            run.model.parameters,
            critic_parameters=run.model.critic_parameters,
            paper=PaperFormula(TASKS[recipe.task.kind].compute_ratio, recipe.rl_tokens),
        )
    run.stage(stage.name).status = "done"
    run.save(layout.state)


def _checkpoint_keeper(recipe: Recipe, stage: Stage, layout: RunLayout) -> CheckpointKeeper:
    checkpoints = layout.checkpoints(stage.name)
    return CheckpointKeeper(checkpoints, recipe.model.dtype, recipe.scale.training_state)


def _note_model(recipe: Recipe, run: RunState, layout: RunLayout) -> None:
    """Note the size of the start model, and the tokens of one that is the init."""
    run.model = ModelState(run.model.name, **read_json(layout.start_model / "size.json"))
    if gives_init(recipe):
        formula = PaperFormula(TASKS[recipe.task.kind].compute_ratio, recipe.rl_tokens)
        parameters = run.model.parameters
        write_given_tokens(layout, "model", parameters, recipe.model.init_tokens, formula)


def _already_trained(stage: Stage, layout: RunLayout) -> bool:
    return stage.total is not None and latest_step(layout.checkpoints(stage.name)) >= stage.total


@contextlib.contextmanager
def _only_one(layout: RunLayout) -> Iterator[None]:
    """Hold the run folder: two runners in it would train over each other."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(layout.root / ".lock"))
        except BlockingIOError:
            raise SftrlError(f"{layout.root}: another process is running this run.") from None
        yield


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[last]}[/]"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
