"""Units of work of an evaluation on several engines, and the queue that hands them to workers.

A unit reads one checkpoint's weights. Loading them costs as much as many episodes, so a worker keeps the
weights it holds as long as a unit needs them, and workers spread over checkpoints before they share one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import ScaleConfig

UNITS_PER_WORKER = 2
"""With fewer units than this for each worker, splits are cut into slices."""

SMALLEST_SLICE = 16
"""Episodes of a slice at least: an engine decodes few episodes hardly faster than many."""

MOST_FAILURES = 2
"""Workers that may fail on a unit; after the last one the evaluation ends with an error."""


class Unit(Protocol):
    """Work for one worker."""

    @property
    def weights(self) -> str:
        """Key of the checkpoint that the worker must hold."""
        ...

    @property
    def size(self) -> int:
        """Episodes."""
        ...


@dataclass(frozen=True)
class PlayUnit:
    """Some instances of one split, played by one checkpoint.

    Attributes:
        weights: ``<stage>@<step>``.
        folder: The checkpoint.
        split: The split.
        indices: The instances.
    """

    weights: str
    folder: Path
    split: str
    indices: range

    @property
    def size(self) -> int:
        """Episodes."""
        return len(self.indices)

    def __str__(self) -> str:
        return f"{self.weights} on {self.split}, instances {self.indices.start} to {self.indices.stop - 1}"


U = TypeVar("U", bound=Unit)


def gpus_per_engine(scale: ScaleConfig) -> int:
    """GPUs that one evaluation engine takes; 0 on a CPU."""
    if scale.backend != "gpu":
        return 0
    return scale.tensor_parallel if scale.engine == "vllm" else 1


def worker_count(scale: ScaleConfig) -> int:
    """Workers of an evaluation, each a Ray actor with an engine; 0 for one engine in the stage's own process.

    Raises:
        SftrlError: if ``eval_workers`` is below 1, or an engine does not fit on a node.
    """
    if scale.eval_workers is not None and scale.eval_workers < 1:
        raise SftrlError(f"scale.eval_workers={scale.eval_workers}: expected at least 1, or null.")
    if scale.backend != "gpu":
        requested = scale.eval_workers or 1
        # vLLM gets a process of its own even alone: that frees its memory before divergence is measured.
        return 0 if requested == 1 and scale.engine == "hf" else requested
    gpus = gpus_per_engine(scale)
    if gpus > scale.n_gpus_per_node:
        raise SftrlError(
            f"scale.tensor_parallel={gpus} with scale.n_gpus_per_node={scale.n_gpus_per_node}: "
            "an evaluation engine needs its GPUs on one node."
        )
    return scale.eval_workers or scale.nnodes * (scale.n_gpus_per_node // gpus)


def slices(episodes: int, units: int, workers: int) -> list[range]:
    """Cut the instances of a split into units.

    Args:
        episodes: Instances of the split.
        units: Splits of all checkpoints together that wait.
        workers: Workers that share them.

    Returns:
        Consecutive ranges of nearly equal length: one, unless the workers would run out of units.
    """
    wanted = (
        math.ceil(UNITS_PER_WORKER * workers / max(1, units)) if units < UNITS_PER_WORKER * workers else 1
    )
    count = max(1, min(wanted, episodes // SMALLEST_SLICE)) if workers > 1 else 1
    # Rounding each edge, not each length: lengths differ by one at most, and nothing is left over.
    edges = [episodes * number // count for number in range(count + 1)]
    return [range(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]


class UnitQueue(Generic[U]):
    """Units that wait, and which worker holds which weights.

    Args:
        units: In the order in which they should run.
    """

    def __init__(self, units: Iterable[U]) -> None:
        self._waiting: list[U] = list(units)
        self._holds: dict[int, str] = {}
        self._failures: Counter[U] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, worker: int) -> U | None:
        """The next unit for a worker; None if none waits.

        It is one of the weights that the worker holds, or else the first of weights that no other worker
        holds, or else one of the weights with most episodes left.
        """
        if not self._waiting:
            return None
        unit = self._choose(worker)
        self._waiting.remove(unit)
        self._holds[worker] = unit.weights
        return unit

    def drop_worker(self, worker: int) -> None:
        """Forget a worker that is gone."""
        self._holds.pop(worker, None)

    def put_back(self, unit: U) -> bool:
        """Let a unit wait again after its worker failed.

        Returns:
            False, and the unit does not wait, after `MOST_FAILURES`.
        """
        self._failures[unit] += 1
        if self._failures[unit] >= MOST_FAILURES:
            return False
        self._waiting.insert(0, unit)
        return True

    def _choose(self, worker: int) -> U:
        held = self._holds.get(worker)
        elsewhere = {weights for other, weights in self._holds.items() if other != worker}
        preferred: Sequence[U] = [unit for unit in self._waiting if unit.weights == held] or [
            unit for unit in self._waiting if unit.weights not in elsewhere
        ]
        if preferred:
            return preferred[0]
        left: Counter[str] = Counter()
        for unit in self._waiting:
            left[unit.weights] += unit.size
        longest = max(left, key=left.__getitem__)
        return next(unit for unit in self._waiting if unit.weights == longest)
