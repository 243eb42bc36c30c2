"""Evaluation engines in Ray actors: one for each GPU of a node or a cluster, or processes of a CPU.

A `WorkerPool` hands the units of a queue to its workers. A worker that dies or fails is replaced, and its
unit is tried once more by another one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.on_cluster import run_variables
from sftrl_ext.experiments.evaluation.divergence import compare_weights
from sftrl_ext.experiments.evaluation.engines import (
    ComparesWeights,
    EvalEngine,
    cpu_stands_for_gpus,
    device_of,
)
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay, play_all
from sftrl_ext.experiments.evaluation.played_tokens import replay
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.experiments.evaluation.units import U, UnitQueue
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.verl_commands import joins_cluster
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.played import Turns

PATIENCE_S = 1800.0
"""Seconds until the first worker must have started: vLLM compiles a model once on each node."""

_CLOSE_S = 60.0
_OBJECT_STORE_BYTES = 200_000_000


@dataclass(frozen=True)
class EngineSettings:
    """The engine of every worker.

    Attributes:
        name: ``hf`` or ``vllm``.
        folder: A Hugging Face folder: the architecture and the tokenizer of every checkpoint.
        dtype: Type of the weights.
        rows: Requests decoded at the same time (``hf``).
        gpus: GPUs of one engine; 0 on a CPU.
        threads: Threads of an engine on a CPU.
    """

    name: str
    folder: Path
    dtype: str
    rows: int
    gpus: int = 0
    threads: int = 1


@dataclass(frozen=True)
class PlayedUnit:
    """Episodes of a `PlayUnit`, without their pictures, and the seconds they took."""

    episodes: list[PlayedEpisode]
    seconds: float


class EvalWorker:
    """An evaluation engine in a process of its own; `WorkerPool` makes it a Ray actor.

    Args:
        settings: The engine.
        play: How instances are played.
        sets: The instances of each split.
    """

    def __init__(self, settings: EngineSettings, play: EvalPlay, sets: Mapping[str, EvalSet]) -> None:
        self._settings, self._play, self._sets = settings, play, sets
        self._engine: EvalEngine | None = None
        self._loaded: Path | None = None

    def start(self) -> str:
        """Start the engine; return the process, its node and its GPUs."""
        import ray

        from sftrl_ext.experiments.evaluation.engines import open_engine

        settings = self._settings
        gpus = ""
        if settings.gpus:
            # Ray leaves the variable alone where a cluster was started with RAY_EXPERIMENTAL_NOSET_*.
            gpu_ids = ",".join(ray.get_runtime_context().get_accelerator_ids()["GPU"])
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu_ids
            gpus = f", GPU {gpu_ids}"
        if device_of(settings.gpus) == "cpu":
            import torch

            torch.set_num_threads(settings.threads)
        self._engine = open_engine(
            settings.name,
            settings.folder,
            dtype=settings.dtype,
            rows=settings.rows,
            tensor_parallel=max(1, settings.gpus),
            device=device_of(settings.gpus),
        )
        address = ray.util.get_node_ip_address()
        return f"pid {os.getpid()} on {socket.gethostname()} {address}{gpus}"

    def play(self, folder: Path, split: str, indices: Sequence[int]) -> PlayedUnit:
        """Play instances of a split with the weights of a checkpoint.

        Raises:
            RuntimeError: if the engine died on the way: its episodes are not those of the checkpoint.
        """
        started = time.monotonic()
        engine = self._holding(folder)
        played = asyncio.run(play_all(self._play, self._sets[split], engine, lambda: None, indices))
        episodes = [_without_pictures(episode) for episode in played]
        if not getattr(self._engine, "alive", True):
            raise RuntimeError("the engine died; its last error stands above in this log")
        return PlayedUnit(episodes, time.monotonic() - started)

    def compare(
        self, folder: Path, start: Path, split: str, of_start: Sequence[Turns], of_checkpoint: Sequence[Turns]
    ) -> dict[str, Any]:
        """Divergence of a checkpoint from its start on episodes that were played before.

        Args:
            folder: The checkpoint.
            start: The start.
            split: The split that was played.
            of_start: Tokens of the start's episodes, of each of the first instances.
            of_checkpoint: Tokens of the checkpoint's episodes.

        Returns:
            ``forward`` and ``reverse`` or ``absent``, and ``wall_s``.
        """
        started = time.monotonic()
        engine = self._holding(folder)
        assert isinstance(engine, ComparesWeights)

        async def work() -> dict[str, Any]:
            chosen, chat = self._sets[split], engine.chat_tokens()
            first, second = [
                [await replay(self._play, chosen, index, turns, chat) for index, turns in enumerate(episodes)]
                for episodes in (of_start, of_checkpoint)
            ]
            return await compare_weights(engine, start, first, second, self._play.temperature)

        measured = asyncio.run(work())
        return {**measured, "wall_s": round(time.monotonic() - started, 2)}

    def close(self) -> None:
        """End the engine and its processes."""
        close: Callable[[], None] | None = getattr(self._engine, "close", None)
        if close is not None:
            close()

    def _holding(self, folder: Path) -> EvalEngine:
        """The engine with the weights of a checkpoint."""
        # Not a coroutine: one such method, and Ray would run all of them inside an event loop.
        assert self._engine is not None
        if self._loaded != folder:
            self._loaded = None
            asyncio.run(self._engine.load_weights(folder))
            self._loaded = folder
        return self._engine


def _without_pictures(episode: PlayedEpisode) -> PlayedEpisode:
    """A copy without pictures: they can be drawn again, and weigh more than everything else."""
    return replace(episode, segments=[replace(segment, images=()) for segment in episode.segments])


@dataclass
class _Member(Generic[U]):
    """A worker of a pool: what it waits for (None: its start), and its process and node once started."""

    actor: Any
    unit: U | None = None
    address: str = ""


@contextmanager
def connected_ray(recipe: Recipe, workers: int) -> Iterator[None]:
    """A connection to the run's Ray cluster, or a Ray of this machine that ends with the block."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if joins_cluster(recipe):
        named = os.environ.get("RAY_ADDRESS", "local")
        address = "auto" if named in ("", "local") else named
        try:
            ray.init(address=address, configure_logging=False)
        except (ConnectionError, RuntimeError) as error:
            raise SftrlError(
                f"evaluation needs the run's Ray cluster, and there is none at {address!r} "
                f"({str(error).splitlines()[0]})."
            ) from None
    else:
        # When a worker is killed, the raylet ends the processes of its engine, which hold its GPU.
        os.environ.setdefault("RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper", "true")
        os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=_declared_gpus(recipe),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            configure_logging=False,
        )
        # With the variable above Ray ignores SIGCHLD in this process too: every exit status would read 0.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        ray.shutdown()


def _declared_gpus(recipe: Recipe) -> int | None:
    """GPUs of a local Ray; None where it finds them itself."""
    if recipe.scale.backend == "cpu":
        return 0
    return recipe.scale.n_gpus_per_node if cpu_stands_for_gpus() else None


@dataclass
class WorkerPool:
    """Workers with one kind of engine; Ray must be connected.

    Attributes:
        count: Workers wanted; fewer where the cluster has too few GPUs.
        settings: Their engine.
        play: How instances are played.
        sets: The instances of each split.
        say: Receives a line for every start, unit and failure.
        patience: Seconds until the first worker must have started.
    """

    count: int
    settings: EngineSettings
    play: EvalPlay
    sets: Mapping[str, EvalSet]
    say: Callable[[str], None]
    patience: float = PATIENCE_S
    _members: dict[int, _Member[Any]] = field(default_factory=dict)
    _waits: dict[Any, int] = field(default_factory=dict)
    _started: int = 0

    def __enter__(self) -> WorkerPool:
        import ray

        gpus = self.settings.gpus
        if gpus:
            available = int(ray.cluster_resources().get("GPU", 0))
            if available < gpus * self.count:
                self.say(f"the Ray cluster has {available} GPUs, expected {gpus * self.count}")
                self.count = available // gpus
            if self.count == 0:
                raise SftrlError(
                    f"an evaluation engine takes {gpus} GPUs (scale.tensor_parallel), but the Ray cluster "
                    f"has {available}."
                )
        for _ in range(self.count):
            self._add()
        return self

    def __exit__(self, *unused: object) -> None:
        """End all engines and their workers, so that their memory is free."""
        import ray

        members = self._members.values()
        # Only idle workers are closed in order: calls of an actor wait for each other, and a unit may take
        # long.
        idle = [member.actor.close.remote() for member in members if member.address and member.unit is None]
        if idle:
            ray.wait(idle, num_returns=len(idle), timeout=_CLOSE_S)
        for member in members:
            ray.kill(member.actor)
        self._members.clear()
        self._waits.clear()

    def run(
        self,
        queue: UnitQueue[U],
        submit: Callable[[Any, U], Any],
        finish: Callable[[U, Any], None],
        give_up: Callable[[U, str], None] | None = None,
    ) -> None:
        """Work through a queue.

        Args:
            queue: The units.
            submit: Calls a method of a worker's actor for a unit; returns Ray's reference.
            finish: Receives each unit with its result, as it comes.
            give_up: Receives a unit on which two workers failed, with the reason; None: that is an error.

        Raises:
            SftrlError: if no worker starts, or two workers failed on a unit.
        """
        import ray

        end = time.monotonic() + self.patience
        while True:
            for number, member in self._members.items():
                if member.address and member.unit is None:
                    self._next(number, queue, submit)
            if not queue and not any(member.unit for member in self._members.values()):
                return
            # Wakes up without a result too, so that the patience below can end.
            ready, _ = ray.wait(list(self._waits), num_returns=1, timeout=5.0)
            for reference in ready:
                self._settle(self._waits.pop(reference), reference, queue, finish, give_up)
            if any(member.address for member in self._members.values()):
                end = time.monotonic() + self.patience
            elif time.monotonic() > end:
                raise SftrlError(
                    f"no evaluation worker has started in {self.patience:.0f} s; the Ray cluster offers "
                    f"{ray.available_resources()}."
                )

    def _next(self, number: int, queue: UnitQueue[U], submit: Callable[[Any, U], Any]) -> None:
        """Give an idle worker its next unit."""
        member = self._members[number]
        member.unit = queue.take(number)
        if member.unit is not None:
            self.say(f"worker {number} ({member.address}): {member.unit}")
            self._waits[submit(member.actor, member.unit)] = number

    def _settle(
        self,
        number: int,
        reference: Any,
        queue: UnitQueue[U],
        finish: Callable[[U, Any], None],
        give_up: Callable[[U, str], None] | None,
    ) -> None:
        """Take what a worker returned."""
        import ray

        member = self._members[number]
        unit: U | None = member.unit
        try:
            result = ray.get(reference)
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, SftrlError):
                raise SftrlError(str(error.cause)) from None  # wrong input: no worker would do better
            self._lose(number, queue, _reason(error), give_up)
            return
        if unit is None:
            member.address = str(result)
        else:
            member.unit = None
            finish(unit, result)

    def _lose(
        self, number: int, queue: UnitQueue[U], reason: str, give_up: Callable[[U, str], None] | None
    ) -> None:
        """End a worker that failed; its unit waits again, for another worker."""
        import ray

        member = self._members.pop(number)
        ray.kill(member.actor)
        queue.drop_worker(number)
        unit: U | None = member.unit
        if unit is None:
            self.say(f"worker {number} did not start: {reason}")
            if not self._members:
                raise SftrlError(f"no evaluation worker could start; the last one: {reason}")
            return
        self.say(f"worker {number} ({member.address}) failed at {unit}: {reason}")
        again = queue.put_back(unit)
        if not again and give_up is None:
            raise SftrlError(
                f"two evaluation workers failed at {unit}; the last one: {reason}. "
                "What is finished is kept; a resumed run goes on with the rest."
            )
        if not again and give_up is not None:
            give_up(unit, reason)
        self._add()

    def _add(self) -> None:
        """Start another worker."""
        import ray

        threads = {} if self.settings.gpus else {"OMP_NUM_THREADS": str(self.settings.threads)}
        actor_class: Any = ray.remote(EvalWorker)
        actor = actor_class.options(
            num_cpus=1,
            num_gpus=self.settings.gpus,
            max_restarts=0,
            runtime_env={"env_vars": run_variables(os.environ) | threads},
        ).remote(self.settings, self.play, self.sets)
        number = self._started
        self._started += 1
        self._members[number] = _Member(actor)
        self._waits[actor.start.remote()] = number


def _reason(error: Exception) -> str:
    """The last line of an error of Ray, without Ray's list of common causes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" Some common causes")[0] if lines else type(error).__name__
