"""Runs the stages of a recipe in order, and resumes a run that was killed at any point."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.changes import change_run, new_state
from sftrl_ext.experiments.checkpoint_storage import CheckpointKeeper
from sftrl_ext.experiments.locks import held
from sftrl_ext.experiments.plan import Stage, make_plan, select_stages
from sftrl_ext.experiments.progress import RunProgress, StageWatch, planned_seconds
from sftrl_ext.experiments.recipe.arms import gives_init
from sftrl_ext.experiments.recipe.attention import pin_attention, require_attention, same_but_auto
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.recipe.trackers import require_packages
from sftrl_ext.experiments.stage_cache import find_stage, reuse_records, reuse_stage, stage_key
from sftrl_ext.experiments.stage_order import dependents
from sftrl_ext.experiments.start_models.start_choice import note_choice
from sftrl_ext.experiments.subprocesses import (
    FinishedProcess,
    kill_leftovers,
    process_names,
    run_child,
    tail,
)
from sftrl_ext.experiments.verl_commands import joins_cluster
from sftrl_ext.files import read_json, write_text
from sftrl_ext.paths import install_command, shown_path
from sftrl_ext.plugins import plugin_digests
from sftrl_ext.runs.checkpoints import latest_step
from sftrl_ext.runs.compute import PaperFormula
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.machine import describe_commit, describe_hardware
from sftrl_ext.runs.metrics import merge_launches
from sftrl_ext.runs.progress import PROGRESS_VARIABLE
from sftrl_ext.runs.state import ModelState, RunState, StageState
from sftrl_ext.runs.token_files import sampled_tokens, write_given_tokens, write_tokens


def start_run(
    recipe: Recipe, run_dir: Path, console: Console, share: Path | None = None, stages: str | None = None
) -> None:
    """Start a run in a new folder.

    Args:
        recipe: The composed recipe.
        run_dir: The run folder.
        console: Shows progress.
        share: Folder of runs whose finished stages are reused where they are the same.
        stages: Names or kinds of the stages that run, separated by commas; None: all.

    Raises:
        SftrlError: if the folder holds a run already, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if layout.state.exists():
        raise SftrlError(
            f"{run_dir}: a run is there already. Continue it with `sftrl resume {run_dir}`, or choose "
            "another --run-dir."
        )
    require_training()
    require_packages(recipe.trackers)
    recipe = pin_attention(recipe)
    require_attention(recipe, joins_cluster(recipe))
    plan = make_plan(recipe, layout.root)
    if stages is not None:
        select_stages(plan, stages)
    write_text(layout.recipe, to_yaml(recipe))
    state = RunState(
        recipe=recipe.name,
        scale=recipe.scale.name,
        title=recipe.title,
        commit=describe_commit(),
        hardware=describe_hardware(),
        model=ModelState(recipe.model.name),
        pretrained_on_both_rules=recipe.budget.base is not None and len(recipe.task.pretrain_splits) > 1,
        plugins=plugin_digests(recipe.plugins),
        share=None if share is None else str(share.resolve()),
        stages=[new_state(stage) for stage in plan],
    )
    state.save(layout.state)
    with run_lock(layout, shared=stages is not None):
        Runner(recipe, layout, console).run(stages)


def start_or_resume(
    recipe: Recipe, run_dir: Path, console: Console, share: Path | None = None, stages: str | None = None
) -> None:
    """Start a run or resume it; launchers call this, and may call it again after a failure.

    Raises:
        SftrlError: if the folder holds another run, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if not layout.state.exists():
        start_run(recipe, run_dir, console, share, stages)
        return
    begun = layout.begun_recipe if layout.begun_recipe.exists() else layout.recipe
    if not same_but_auto(recipe, from_yaml(begun)):
        raise SftrlError(
            f"{run_dir}: a run of another recipe is there ({begun} differs from the requested one). "
            f"Continue it with `sftrl resume {run_dir}`, or choose another --run-dir."
        )
    resume_run(run_dir, console, stages=stages)


def resume_run(
    run_dir: Path,
    console: Console,
    overrides: Sequence[str] = (),
    again_from: str | None = None,
    stages: str | None = None,
) -> None:
    """Resume a run: finished stages are skipped, an interrupted one continues from its last checkpoint.

    Args:
        run_dir: The run folder.
        console: Shows progress.
        overrides: Keys of the recipe with other values, for stages that have not begun.
        again_from: Stage that is done again first, with those that depend on it.
        stages: Names or kinds of the stages that run, separated by commas; None: all. Other processes may run
            other stages of the run at the same time.

    Raises:
        SftrlError: if the folder holds no run, another process runs it, a value concerns a stage that has
            begun, or a stage fails.
    """
    layout = RunLayout(run_dir.resolve())
    if not layout.state.exists():
        raise SftrlError(f"{run_dir}: no run there (no {layout.state.name}); start one with `sftrl run`.")
    require_training()
    changes = bool(overrides) or again_from is not None
    with run_lock(layout, shared=stages is not None and not changes):
        if changes:
            change_run(layout, overrides, again_from, lambda text: console.print(text, markup=False))
        recipe = from_yaml(layout.recipe)
        require_attention(recipe, joins_cluster(recipe))
        Runner(recipe, layout, console).run(stages)


def require_training() -> None:
    """Refuse to train where only the base install is.

    Raises:
        SftrlError: naming the missing packages and how to get them.
    """
    import importlib.util

    missing = [
        name for name in ("torch", "ray", "transformers", "verl") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise SftrlError(
            f"training needs {', '.join(missing)}, not in this environment (a base install has "
            f"environments, rewards and data only). For a laptop: `{install_command('cpu')}`; for CUDA: "
            f"`{install_command('gpu')}`."
        )


@contextlib.contextmanager
def run_lock(layout: RunLayout, *, shared: bool = False) -> Iterator[None]:
    """Hold the run folder: two runners in it would train over each other.

    Args:
        layout: The run.
        shared: Other processes may run other stages of it.

    Raises:
        SftrlError: if another process holds it.
    """
    with _lock(layout.lock, f"{layout.root}: another process is running this run.", shared):
        yield


@contextlib.contextmanager
def _lock(path: Path, otherwise: str, shared: bool = False) -> Iterator[None]:
    """Hold a lock without waiting; raise if another process holds it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(path, shared=shared))
        except BlockingIOError:
            raise SftrlError(otherwise) from None
        yield


class Runner:
    """Runs the stages of one run, with its state on disk after each step.

    Args:
        recipe: The recipe of the run.
        layout: The run folder; its state file exists.
        console: Shows progress.
    """

    def __init__(self, recipe: Recipe, layout: RunLayout, console: Console) -> None:
        self.recipe, self.layout, self.console = recipe, layout, console
        self.plan = make_plan(recipe, layout.root)
        self.state = RunState.load(layout.state)
        self.share = None if self.state.share is None else Path(self.state.share)
        names = {stage.name for stage in self.state.stages}
        self.state.stages += [new_state(stage) for stage in self.plan if stage.name not in names]
        self._current: str | None = None
        self.progress = RunProgress(self.plan, self.state, planned_seconds(recipe, self.plan), console)

    def run(self, stages: str | None = None) -> None:
        """Run every stage that is not done, in the order of the plan.

        Args:
            stages: Names or kinds of the stages that run, separated by commas; None: all.

        Raises:
            SftrlError: if a stage fails, or needs another one that is neither done nor to be run.
            KeyboardInterrupt: if interrupted; its text names the command that resumes the run.
        """
        self._note_changed_plugins()
        selected = self.plan if stages is None else select_stages(self.plan, stages)
        self._check_inputs(selected)
        try:
            with self.progress:
                self._run_stages(selected)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"finished stages are kept. Continue with `sftrl resume {shown_path(self.layout.root)}`."
            ) from None

    def _check_inputs(self, selected: Sequence[Stage]) -> None:
        """Refuse stages whose inputs are neither there nor made by the others."""
        done = {entry.name for entry in self.state.stages if entry.status == "done"}
        missing = {stage.name for stage in self.plan} - {stage.name for stage in selected} - done
        for name in (stage.name for stage in self.plan if stage.name in missing):
            users = dependents(self.recipe, self.layout, name) - missing - done
            if users:
                first = next(stage.name for stage in selected if stage.name in users)
                raise SftrlError(
                    f"--stages: {first} needs {name}, which is not done in {shown_path(self.layout.root)}; "
                    f"expected {name} among the stages, or done before."
                )

    def _run_stages(self, selected: Sequence[Stage]) -> None:
        for stage in selected:
            busy = f"{self.layout.root}: another process is running stage {stage.name!r} of this run."
            with _lock(self.layout.stage_lock(stage.name), busy):
                self._refresh()
                entry = self.state.stage(stage.name)
                if entry.status == "done":
                    continue
                self._current = stage.name
                self._note_key(stage, entry)
                with self._shared_stage_lock(stage, entry):
                    if not self._reuse(stage, entry):
                        self._run_stage(stage, entry)
                self._current = None

    def _note_changed_plugins(self) -> None:
        """Say and store which plug-ins are others than when the run was begun, or resumed last."""
        before, self.state.plugins = self.state.plugins, plugin_digests(self.recipe.plugins)
        for name in sorted(before.keys() | self.state.plugins.keys()):
            old, new = before.get(name, "none"), self.state.plugins.get(name, "none")
            if old != new:
                done = sum(stage.status == "done" for stage in self.state.stages)
                text = (
                    f"Plug-in {name} has changed (digest {old[:8]}, now {new[:8]}) after {done} of "
                    f"{len(self.state.stages)} stages, which keep their results."
                )
                self.state.plugin_changes.append(text)
                self._say(f"[yellow]{text}[/]")
        self._save()

    def _save(self, changed: Collection[str] = ()) -> None:
        """Store the state.

        Args:
            changed: Stages beside the current one whose entries were changed here.
        """
        with held(self.layout.state_lock, on_wait=lambda: None):
            self._refresh(changed)
            self.state.save(self.layout.state)

    def _refresh(self, changed: Collection[str] = ()) -> None:
        """Read what other processes, which run other stages of the run, have stored."""
        stored = RunState.load(self.layout.state)
        kept = {self._current, *changed}
        entries = {entry.name: entry for entry in stored.stages if entry.name not in kept}
        self.state.stages = [entries.get(entry.name, entry) for entry in self.state.stages]
        if self._current != "model":
            self.state.model = stored.model

    def _label(self, stage: Stage, event: str = "") -> str:
        """Position of a stage in the plan, the event, and the stage's title and name."""
        number = self.plan.index(stage) + 1
        return f"[{number}/{len(self.plan)}] {event}{stage.title} ({stage.name})"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def _note_key(self, stage: Stage, entry: StageState) -> None:
        """Store the cache key of a stage that is about to run."""
        keys = {
            done.name: done.key
            for done in self.state.stages
            if done.status == "done" and done.key is not None
        }
        key = stage_key(self.recipe, stage, self.layout, keys)
        # A stage that continues with other code than it began with must not be reused by another run.
        entry.key = key if entry.launches == 0 or key == entry.key else None

    @contextlib.contextmanager
    def _shared_stage_lock(self, stage: Stage, entry: StageState) -> Iterator[None]:
        """Hold the key of a stage among runs that share a folder; waits for a run that is at it."""
        if self.share is None or entry.key is None:
            yield
            return
        lock = self.share / ".stages" / entry.key
        with held(lock, lambda: self._say(f"{self._label(stage, 'waits for ')} of another run")):
            yield

    def _reuse(self, stage: Stage, entry: StageState) -> bool:
        """Reuse the finished stage of another run, if the run shares a folder and has not begun it."""
        if self.share is None or entry.launches > 0 or entry.again:
            return False
        if stage.kind in ("eval", "choice"):
            count = reuse_records(self.recipe, self.state, self.layout, self.share)
            if count:
                self._say(f"{self._label(stage)}: {count} results of shared checkpoints reused")
            return False
        cached = None if entry.key is None else find_stage(self.share, entry.key)
        if cached is None:
            return False
        reuse_stage(cached, self.layout, stage)
        if stage.kind == "model":
            self._note_model()
        entry.wall_s, entry.peak_rss_mb = cached.state.wall_s, cached.state.peak_rss_mb
        entry.shared_from = cached.state.shared_from or cached.layout.root.name
        entry.status = "done"
        self._save()
        self._say(f"{self._label(stage, '[green]shared[/] ')}: {entry.shared_from} has run it")
        return True

    def _run_stage(self, stage: Stage, entry: StageState) -> None:
        kill_leftovers(self._process_record(stage))
        # A run killed after the last checkpoint: training again would go past the end.
        if self._is_trained(stage):
            self._finish(stage, entry)
            return
        entry.status, entry.launches = "running", entry.launches + 1
        self._save()
        process = self._run_process(stage, entry)
        entry.wall_s = round(entry.wall_s + process.wall_s, 1)
        entry.peak_rss_mb = round(max(entry.peak_rss_mb, process.peak_rss_mb))
        # A trainer that ended well but left no last checkpoint has not trained the stage.
        if process.code == 0 and stage.total and not self._is_trained(stage):
            process = replace(process, code=-1)
        if process.code != 0:
            self._fail(stage, entry, process)
        self._finish(stage, entry)
        usage = f"{entry.wall_s:.0f} s, {entry.peak_rss_mb:.0f} MiB"
        self._say(f"{self._label(stage, '[green]done[/] ')}: {usage}")

    def _run_process(self, stage: Stage, entry: StageState) -> FinishedProcess:
        """Run the command of a stage to its end, and show its progress."""
        metrics = self.layout.stage(stage.name) / f"metrics-{entry.launches}.jsonl"
        counted, record = self.layout.progress(stage.name), self._process_record(stage)
        counted.unlink(missing_ok=True)  # of an earlier launch
        watch = StageWatch(stage, metrics, counted, lambda: process_names(record))
        keeper = self._checkpoint_keeper(stage)
        self.progress.begin(stage, self._label(stage))

        def on_poll() -> None:
            self.progress.update(stage, watch.look())
            if stage.total:
                keeper.thin_out()

        try:
            return run_child(
                stage.command,
                env={**stage.env, "VERL_FILE_LOGGER_PATH": str(metrics), PROGRESS_VARIABLE: str(counted)},
                log=self.layout.log(stage.name),
                record=record,
                on_poll=on_poll,
                own_temp=not joins_cluster(self.recipe),
            )
        finally:
            self.progress.end()

    def _fail(self, stage: Stage, entry: StageState, process: FinishedProcess) -> None:
        """Store the failure of a stage, show the end of its log, and raise."""
        log = self.layout.log(stage.name)
        entry.status = "failed"
        self._save()
        self._say(f"\n[dim]{'-' * 20} the end of {log} {'-' * 20}[/]")
        self.console.print(tail(log), markup=False, highlight=False)
        raise SftrlError(
            f"stage {stage.name!r} failed (exit status {process.code}); its whole log: {log}. "
            f"After fixing the cause, continue with `sftrl resume {shown_path(self.layout.root)}`."
        )

    def _finish(self, stage: Stage, entry: StageState) -> None:
        if stage.total:
            merge_launches(self.layout.stage(stage.name))
        if stage.kind == "model":
            self._note_model()
        if stage.kind == "choice":
            before = {other.name: other.start for other in self.state.stages}
            self._say(note_choice(self.state, self.layout, stage.name))
            self._save({other.name for other in self.state.stages if other.start != before[other.name]})
        if stage.kind in ("sft", "rl"):
            self._checkpoint_keeper(stage).thin_out()
            model = self.state.model
            write_tokens(
                self.layout,
                stage.name,
                stage.kind,
                model.parameters,
                critic_parameters=model.critic_parameters,
                paper=self._paper_formula(),
                sampled=None if stage.sampled_by is None else sampled_tokens(self.layout, stage.sampled_by),
            )
        entry.status = "done"
        self._save()

    def _note_model(self) -> None:
        """Store the size of the start model, and the tokens of one that is the init."""
        self.state.model = ModelState(
            self.state.model.name, **read_json(self.layout.start_model / "size.json")
        )
        if gives_init(self.recipe):
            tokens, parameters = self.recipe.model.init_tokens, self.state.model.parameters
            write_given_tokens(self.layout, "model", parameters, tokens, self._paper_formula())

    def _paper_formula(self) -> PaperFormula:
        return PaperFormula(TASKS[self.recipe.task.kind].compute_ratio, self.recipe.rl_tokens)

    def _checkpoint_keeper(self, stage: Stage) -> CheckpointKeeper:
        checkpoints = self.layout.checkpoints(stage.name)
        return CheckpointKeeper(checkpoints, self.recipe.model.dtype, self.recipe.scale.training_state)

    def _process_record(self, stage: Stage) -> Path:
        return self.layout.stage(stage.name) / "process.json"

    def _is_trained(self, stage: Stage) -> bool:
        return stage.total is not None and latest_step(self.layout.checkpoints(stage.name)) >= stage.total
