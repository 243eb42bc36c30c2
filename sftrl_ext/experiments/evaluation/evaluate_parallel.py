"""Evaluate a run on several engines at once, then measure divergence with the transformers engine.

The first pass plays every checkpoint on every split, by ``scale.engine``. The second pass reads episodes of
the split trained on again, with the weights of each checkpoint and of its start side by side; vLLM's workers
have ended by then. Results are those of one engine: the seed of a response depends on its instance and turn
only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sftrl_ext.experiments.evaluation.divergence import NO_WEIGHTS, measured_split
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay, keep_record, make_record
from sftrl_ext.experiments.evaluation.played_tokens import turns_of
from sftrl_ext.experiments.evaluation.targets import EvalSet, Target, start_of, targets_of
from sftrl_ext.experiments.evaluation.units import PlayUnit, UnitQueue, gpus_per_engine, slices, worker_count
from sftrl_ext.experiments.evaluation.workers import EngineSettings, PlayedUnit, WorkerPool, connected_ray
from sftrl_ext.experiments.recipe.arms import gives_init, starts_from_base
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.played import read_played, write_played
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.records import (
    Divergence,
    RecordKey,
    SampleEpisode,
    append_record,
    prepare_to_append,
    read_episodes,
    read_eval_records,
    write_records,
)
from sftrl_ext.runs.state import RunState


@dataclass(frozen=True)
class CompareUnit:
    """One checkpoint to compare with its start.

    Attributes:
        weights: The start, ``<stage>@<step>``: its weights stay in a worker beside those of each checkpoint.
        target: The checkpoint.
        start: Folder of the start.
        size: Episodes.
    """

    weights: str
    target: Target
    start: Path
    size: int

    def __str__(self) -> str:
        return f"divergence of {key_of(self.target)} from {self.weights}"


def key_of(target: Target) -> str:
    """Key of a checkpoint in file names and messages: ``<stage>@<step>``."""
    return f"{target.stage}@{target.step}"


def evaluate_in_parallel(
    recipe: Recipe,
    state: RunState,
    layout: RunLayout,
    sets: Sequence[EvalSet],
    console: Console,
    say: Callable[[str], None] | None = None,
) -> None:
    """Evaluate what is not in the records yet; a killed evaluation goes on with what is missing.

    Args:
        recipe: The recipe.
        state: The run.
        layout: Its folder, which the workers of every node must see.
        sets: The instances of each split.
        console: Shows what each worker does.
        say: Receives a line for every start, unit and failure; by default the console.

    Raises:
        SftrlError: if no worker starts, or two workers failed on the same unit.
    """

    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    evaluation = _Evaluation(recipe, state, layout, sets, ProgressFile.of_stage(), say or show)
    if evaluation.plays() or evaluation.compares():
        evaluation.run()
    tidy_records(recipe, layout, evaluation.targets, sets)


def tidy_records(
    recipe: Recipe, layout: RunLayout, targets: Sequence[Target], sets: Sequence[EvalSet]
) -> None:
    """Write records and episodes once each, in the order of one engine, whichever worker was first."""
    order = {(t.stage, t.step, s.split): (i, j) for i, t in enumerate(targets) for j, s in enumerate(sets)}
    last = (len(targets), 0)
    samples: dict[RecordKey, list[SampleEpisode]] = defaultdict(list)
    for sample in read_episodes(layout):
        samples[sample.key].append(sample)
    kept = recipe.budget.eval.sample_episodes
    # A kill between the episodes and their record leaves them twice; the later ones belong to the record.
    episodes = [sample for group in samples.values() for sample in group[-kept:]]
    write_records(
        layout,
        sorted(read_eval_records(layout).values(), key=lambda record: order.get(record.key, last)),
        sorted(episodes, key=lambda episode: order.get(episode.key, last)),
    )


class _Evaluation:
    """One evaluation: what is missing, and where results go."""

    def __init__(
        self,
        recipe: Recipe,
        state: RunState,
        layout: RunLayout,
        sets: Sequence[EvalSet],
        progress: ProgressFile,
        say: Callable[[str], None],
    ) -> None:
        self.recipe, self.state, self.layout = recipe, state, layout
        self.play = EvalPlay.of(recipe)
        self.sets = {chosen.split: chosen for chosen in sets}
        self.targets = targets_of(state, layout, starts_from_base(recipe), gives_init(recipe))
        prepare_to_append(layout)
        self.records = read_eval_records(layout)
        self._progress, self._say = progress, say
        self._slices: dict[tuple[str, str], dict[int, PlayedUnit]] = defaultdict(dict)
        split = measured_split(recipe)
        self._split = split if split in self.sets else None

    def run(self) -> None:
        """Both passes."""
        workers = worker_count(self.recipe.scale)
        engine = self.recipe.scale.engine
        with connected_ray(self.recipe, workers):
            if engine == "hf":  # it has whole distributions: the same workers do both
                with self._pool(engine, workers) as pool:
                    self._play_all(pool)
                    self._compare_all(pool)
                return
            if self.plays():
                with self._pool(engine, workers) as pool:
                    self._play_all(pool)
            if units := self.compares():
                gpus = self.recipe.scale.nnodes * self.recipe.scale.n_gpus_per_node
                most = gpus if self.recipe.scale.backend == "gpu" else workers
                with self._pool("hf", min(most, len(units))) as pool:
                    self._compare_all(pool)

    def plays(self) -> list[PlayUnit]:
        """Units to be played: splits without a record, and episodes that only the divergence needs."""
        missing = [
            (target, chosen)
            for target in self.targets
            for chosen in self.sets.values()
            if (target.stage, target.step, chosen.split) not in self.records
        ]
        workers = worker_count(self.recipe.scale)
        units = [
            PlayUnit(key_of(target), target.folder, chosen.split, indices)
            for target, chosen in missing
            for indices in slices(len(chosen.facts), len(missing), workers)
        ]
        covered = {key_of(target) for target, chosen in missing if chosen.split == self._split}
        for key, folder in self._needed().items():
            if key not in covered and not self.layout.played(key).is_file():
                units.append(PlayUnit(key, folder, str(self._split), range(self._measured_episodes())))
        return units

    def compares(self) -> list[CompareUnit]:
        """Checkpoints whose divergence is missing, and whose episodes and start's episodes are there."""
        units = []
        for target, start, folder in self._unmeasured():
            keys = (key_of(target), start)
            if all(self.layout.played(key).is_file() for key in keys):
                units.append(CompareUnit(start, target, folder, self._measured_episodes()))
        return units

    def _measured_episodes(self) -> int:
        return min(self.recipe.budget.eval.kl_episodes, len(self.sets[str(self._split)].facts))

    def _unmeasured(self) -> Iterator[tuple[Target, str, Path]]:
        """Checkpoints without a divergence, with the name and the folder of their start."""
        for target in self.targets if self._split is not None else ():
            record = self.records.get((target.stage, target.step, str(self._split)))
            measured = record is not None and record.divergence is not None
            start = None if measured else start_of(target, self.state, self.layout)
            if start is not None and start[1] is not None:
                yield target, start[0], start[1]

    def _needed(self) -> dict[str, Path]:
        """Checkpoints whose episodes the divergence needs, and their folders."""
        needed: dict[str, Path] = {}
        for target, start, folder in self._unmeasured():
            needed |= {start: folder, key_of(target): target.folder}
        return needed

    @contextmanager
    def _pool(self, engine: str, workers: int) -> Iterator[WorkerPool]:
        recipe, scale = self.recipe, self.recipe.scale
        gpus = gpus_per_engine(replace(scale, engine=engine))
        rows, threads = recipe.budget.eval.batch_size, scale.eval_threads
        settings = EngineSettings(
            engine, self.layout.start_model, recipe.model.dtype, rows, gpus=gpus, threads=threads
        )
        with WorkerPool(workers, settings, self.play, self.sets, self._say) as pool:
            yield pool

    def _play_all(self, pool: WorkerPool) -> None:
        units = self.plays()
        if not units:
            return
        needed = self._needed()
        every = len(self.targets) * sum(len(chosen.facts) for chosen in self.sets.values())
        left = sum(unit.size for unit in units)
        self._progress.count(max(every, left), "instances", max(0, every - left))
        slices_of: dict[tuple[str, str], int] = defaultdict(int)
        for unit in units:
            slices_of[unit.weights, unit.split] += 1
        targets = {key_of(target): target for target in self.targets}

        def finish(unit: PlayUnit, result: PlayedUnit) -> None:
            self._progress.advance(unit.size)
            of = unit.weights, unit.split
            done = self._slices[of]
            done[unit.indices.start] = result
            if len(done) < slices_of[of]:
                return
            # Slices end in any order; their first instances put them into the order of the split.
            episodes = [episode for first in sorted(done) for episode in done[first].episodes]
            first = episodes[:: self.play.samples]
            seconds = sum(part.seconds for part in done.values())
            del self._slices[of]
            if unit.split == self._split and unit.weights in needed:
                played = first[: self._measured_episodes()]
                write_played(self.layout.played(unit.weights), [turns_of(episode) for episode in played])
            target = targets.get(unit.weights)
            if target is None or (target.stage, target.step, unit.split) in self.records:
                return  # played for the divergence only
            self._keep(target, self.sets[unit.split], episodes, seconds)

        pool.run(
            UnitQueue(units),
            lambda actor, unit: actor.play.remote(unit.folder, unit.split, unit.indices),
            finish,
        )

    def _keep(
        self, target: Target, chosen: EvalSet, episodes: Sequence[PlayedEpisode], seconds: float
    ) -> None:
        """Append the record of one checkpoint on one split."""
        engine = self.recipe.scale.engine
        record = make_record(target, self.play, chosen, episodes, seconds, engine)
        if chosen.split == self._split:
            start = start_of(target, self.state, self.layout)
            if start is not None and start[1] is None:
                record = replace(record, divergence=Divergence(start[0], absent=NO_WEIGHTS))
        keep_record(self.layout, self.recipe, chosen, episodes, record)
        self.records[record.key] = record
        self._say(f"{key_of(target)} on {chosen.split}: {record.solved} of {record.episodes} solved")

    def _compare_all(self, pool: WorkerPool) -> None:
        units = self.compares()
        if not units:
            return
        self._progress.count(len(units), "divergences")
        split = str(self._split)

        def submit(actor: Any, unit: CompareUnit) -> Any:
            start, of_checkpoint = (
                read_played(self.layout.played(key)) for key in (unit.weights, key_of(unit.target))
            )
            return actor.compare.remote(unit.target.folder, unit.start, split, start, of_checkpoint)

        def finish(unit: CompareUnit, measured: Mapping[str, Any]) -> None:
            self._progress.advance()
            key = (unit.target.stage, unit.target.step, split)
            self.records[key] = replace(self.records[key], divergence=Divergence(unit.weights, **measured))
            append_record(self.layout, self.records[key])

        def give_up(unit: CompareUnit, reason: str) -> None:
            # Success is recorded; it should not be lost with what comes on top of it.
            finish(unit, {"absent": f"the transformers engine failed: {reason}"})

        pool.run(UnitQueue(units), submit, finish, give_up)
