"""Learning curves from evaluation records: checkpoints with their cost, cut at equal compute.

A curve is one (arm, learning rate); it holds one list of checkpoints per seed, and the start they share: the
last checkpoint of the arm `init` (or, without one, the arms' own step 0), unless ``state.json`` says that
a stage starts from the base model or from a checkpoint of another arm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.arms import arms_of
from sftrl_ext.reports.analysis.paired import instance_counts, paired_change
from sftrl_ext.reports.analysis.splits import lr_label, split_order
from sftrl_ext.runs.compute import Cost, PaperFormula, buffer_ratio, cost_of, paper_formula_absent
from sftrl_ext.runs.records import Divergence, EvalRecord, KLEstimate, mean_divergence
from sftrl_ext.runs.run_folder import RunFolder
from sftrl_ext.runs.stats import Change, Measure, change, over_responses, over_seeds, over_seeds_by_route
from sftrl_ext.runs.token_counts import TokenCount

CurveKey = tuple[str, float | None]
"""(arm, learning rate)."""

CheckpointKey = tuple[str, float | None, int]
"""(arm, learning rate, step)."""


@dataclass(frozen=True)
class Checkpoint:
    """One evaluated checkpoint of one seed.

    Attributes:
        cost: From the base model to here; None if the tokens of this step were not stored.
        results: Split to its record.
        measures: (metric, split) to a measure of all seeds, in place of records, where a results file stored
            no more; None elsewhere.
        changes: Arm, learning rate and step of another checkpoint, and split, to the difference from it over
            the same instances, where a results file stored it.
    """

    arm: str
    lr: float | None
    seed: int
    stage: str
    step: int
    cost: Cost | None
    results: Mapping[str, EvalRecord]
    measures: Mapping[tuple[str, str], Measure] | None = None
    changes: Mapping[tuple[CheckpointKey, str], Change] | None = None

    @property
    def key(self) -> CheckpointKey:
        """Arm, learning rate and step."""
        return self.arm, self.lr, self.step

    @property
    def divergence(self) -> Divergence | None:
        """Its divergence from its start, of the split that was measured; None if it was not measured."""
        stored = (record.divergence for record in self.results.values())
        return next((divergence for divergence in stored if divergence and not divergence.absent), None)


def _solved_first_if_read(record: EvalRecord) -> int | None:
    """Episodes solved by their first response, among those it read right.

    These are all that were solved by it: with a picture, no response is correct that names other cards.
    """
    if record.recognized_first is None or (record.solved_first or 0) > record.recognized_first:
        return None
    return record.solved_first


METRICS: Mapping[str, Callable[[EvalRecord], tuple[int | None, int | None]]] = {
    "main": lambda r: (r.solved, r.episodes) if r.responses is None else (r.correct_actions, r.responses),
    "steps": lambda r: (r.correct_actions, r.responses),
    "success": lambda r: (r.solved, r.episodes),
    "recognition": lambda r: (r.recognized_first, r.episodes),
    "numbers": lambda r: (r.number_right_first, r.episodes),
    "trained_rule": lambda r: (r.trained_rule_first, r.episodes),
    "first": lambda r: (r.solved_first, r.episodes),
    "first_if_read": lambda r: (_solved_first_if_read(r), r.recognized_first),
}
"""Metric to its counts in a record, (successes, trials); None if they were not stored.

``main`` is the metric that arms are compared by: ``steps``, right actions of all responses, if they are
counted, as on routes; else ``success``, episodes solved."""


def mean_over_seeds(checkpoints: Sequence[Checkpoint], split: str, metric: str = "main") -> Measure | None:
    """Mean of a metric over seeds on a split, with its standard error; None if it was not evaluated.

    Args:
        checkpoints: One for each seed.
        split: The split.
        metric: A name of `METRICS`.
    """
    stored = [c.measures.get((metric, split)) for c in checkpoints if c.measures is not None]
    if stored:
        return stored[0]
    records = [c.results[split] for c in checkpoints if split in c.results]
    counts = [METRICS[metric](record) for record in records]
    counted = [(part, total) for part, total in counts if part is not None and total]
    if not counted:
        return None
    if metric == "steps" or (metric == "main" and any(r.responses is not None for r in records)):
        routes = [record.step_counts for record in records if record.responses]
        by_route = [counts for counts in routes if counts is not None]
        return over_seeds_by_route(by_route) if len(by_route) == len(routes) else over_responses(counted)
    if metric in ("main", "success") and any(record.samples > 1 for record in records):
        # Samples of one instance are correlated, as responses of one route are.
        return over_seeds_by_route([pairs for record in records if (pairs := instance_counts(record))])
    return over_seeds(counted)


def change_between(after: Sequence[Checkpoint], before: Sequence[Checkpoint], split: str) -> Change | None:
    """Difference of the main metric on a split, over the same instances where the records hold them.

    Args:
        after: One checkpoint for each seed.
        before: The same of what is subtracted.
        split: The split.

    Returns:
        None if either was not evaluated.
    """
    groups = [[c.results[split] for c in group if split in c.results] for group in (after, before)]
    measures = [mean_over_seeds(group, split) for group in (after, before)]
    if measures[0] is None or measures[1] is None:
        return None
    stored = (after[0].changes or {}).get((before[0].key, split))
    return stored or paired_change(*groups) or change(measures[0], measures[1])


def divergence_over_seeds(checkpoints: Sequence[Checkpoint], direction: str = "forward") -> KLEstimate | None:
    """Mean divergence from the start over seeds; None if it was not measured.

    Args:
        checkpoints: One for each seed.
        direction: ``forward`` or ``reverse``.
    """
    return mean_divergence([c.divergence for c in checkpoints if c.divergence], direction)


def mean_cost(checkpoints: Sequence[Checkpoint], axis: str) -> float | None:
    """Mean cost of the checkpoints on a compute axis; None if it is unknown for any of them."""
    costs = [c.cost.on(axis) if c.cost else None for c in checkpoints]
    available = [cost for cost in costs if cost is not None]
    return sum(available) / len(available) if available and len(available) == len(costs) else None


@dataclass
class Curve:
    """One (arm, learning rate) over all its seeds."""

    arm: str
    lr: float | None
    seeds: dict[int, list[Checkpoint]] = field(default_factory=dict)
    start: list[Checkpoint] = field(default_factory=list)
    """Checkpoints that its stages start from, each once; empty if they were not evaluated."""

    @property
    def start_key(self) -> frozenset[tuple[str, int]]:
        """Identity of its start, as (arm, step) pairs, for comparison with other curves."""
        return frozenset((c.arm, c.step) for c in self.start)

    @property
    def key(self) -> CurveKey:
        """(arm, learning rate)."""
        return self.arm, self.lr

    @property
    def seed_count(self) -> int:
        """Number of seeds of the curve; a checkpoint of a results file stands for several."""
        stored = [
            m.seeds for group in self.seeds.values() for c in group for m in (c.measures or {}).values()
        ]
        return max(stored, default=len(self.seeds))

    def change(self, checkpoints: Sequence[Checkpoint], split: str) -> Change | None:
        """Change of the main metric from the start to some checkpoints; None if either was not evaluated."""
        return change_between(checkpoints, self.start, split)

    def steps(self) -> list[list[Checkpoint]]:
        """Checkpoints grouped by step, in order; one group holds the seeds that have that step."""
        groups: dict[int, list[Checkpoint]] = defaultdict(list)
        for checkpoints in self.seeds.values():
            for checkpoint in checkpoints:
                groups[checkpoint.step].append(checkpoint)
        return [groups[step] for step in sorted(groups)]

    def reach(self, axis: str) -> float | None:
        """The largest cost any seed reached on ``axis``; None if unknown."""
        costs = [c.cost.on(axis) for checkpoints in self.seeds.values() for c in checkpoints if c.cost]
        return max((cost for cost in costs if cost is not None), default=None)


@dataclass
class Curves:
    """All curves of a run.

    Attributes:
        start: The shared start, one checkpoint per seed that has its own (usually one): the init, or without
            one what all arms leave from.
        path: The curve of the arm `init` up to the start, for drawing.
        base: The base model, if it was evaluated.
        arms: The compared curves, in the order of figures.
        splits: Every split evaluated, in order.
        paper_absent: The reason why costs by the paper's formula are left out; None if they are not.
    """

    start: list[Checkpoint]
    path: Curve | None
    base: list[Checkpoint]
    arms: list[Curve]
    splits: list[str]
    paper_absent: str | None = None

    def arm_names(self) -> list[str]:
        """Names of the compared arms, in order, each once."""
        return list(dict.fromkeys(curve.arm for curve in self.arms))

    @property
    def start_arm(self) -> str:
        """Arm of the shared start: "init" or "base"."""
        return "base" if self.start and self.start[0].arm == "base" else "init"

    @property
    def one_start(self) -> bool:
        """True if all curves have the same start."""
        return len({curve.start_key for curve in self.arms}) <= 1

    @property
    def counts_steps(self) -> bool:
        """True if responses are counted, so that the main measure is per-step accuracy."""
        return any(
            record.responses is not None for c in self.checkpoints() for record in c.results.values()
        ) or any(metric == "steps" for c in self.checkpoints() for metric, _ in c.measures or ())

    def checkpoints(self) -> list[Checkpoint]:
        """Every evaluated checkpoint but those on the path to the start."""
        return [*self.start, *self.base, *(c for curve in self.arms for g in curve.steps() for c in g)]

    def rates(self, arm: str) -> list[float | None]:
        """The learning rates of an arm."""
        return [curve.lr for curve in self.arms if curve.arm == arm]


@dataclass(frozen=True)
class EqualCompute:
    """Every curve's checkpoints at equal compute.

    Attributes:
        axis: The compute axis; "" if no axis is known for every arm (then these are last checkpoints).
        budget: The largest compute that every arm reached; None if unknown.
        chosen: For each curve, each seed's last checkpoint at or below the budget.
        notes: What a reader has to know about the choice.
    """

    axis: str
    budget: float | None
    chosen: Mapping[CurveKey, list[Checkpoint]]
    notes: tuple[str, ...] = ()


def _last_steps(seeds: Mapping[int, list[Checkpoint]]) -> list[Checkpoint]:
    return [checkpoints[-1] for _, checkpoints in sorted(seeds.items()) if checkpoints]


def build_curves(run: RunFolder) -> Curves:
    """Group the records of a run into curves, find their starts, and put a cost on every checkpoint.

    What is missing (tokens of a step, the model's size, the start) is added to ``run.notes``.
    """
    costs = _Costs(run)
    grouped = _checkpoints(run, costs)
    checkpoint_at = {
        (c.stage, c.step): c for seeds in grouped.values() for points in seeds.values() for c in points
    }
    path = Curve("init", None, grouped["init", None]) if ("init", None) in grouped else None
    start = _last_steps(path.seeds) if path else []
    base = _last_steps(grouped.get(("base", None), {}))
    arms = [key for key in grouped if key[0] not in ("init", "base")]
    ranked = costs.arms.order(arm for arm, _ in arms)
    arms.sort(key=lambda key: (ranked.index(key[0]), key[1] or 0.0))
    curves = [Curve(*key, grouped[key]) for key in arms]
    # Without an init, the arms' own evaluations before their first step are the start.
    if not start:
        start = [c for curve in curves for seed in curve.seeds.values() for c in seed if c.step == 0]
    for curve in curves:
        curve.seeds = {s: [c for c in points if c.step > 0] for s, points in curve.seeds.items()}
        curve.seeds = {s: points for s, points in curve.seeds.items() if points}
        # Seeds of one curve may start from different checkpoints, such as the init of their own seed.
        starts = {costs.start_of(points[0].stage, s) for s, points in curve.seeds.items()}
        stored = sorted((key for key in starts if key is not None), key=str)
        curve.start = [checkpoint_at[key] for key in stored if key in checkpoint_at] if stored else start
    curves = [curve for curve in curves if curve.seeds]
    if not start and curves and Curves([], None, [], curves, []).one_start:
        start = curves[0].start
    if not start and run.records and not all(curve.start for curve in curves):
        run.notes.append("The shared start was not evaluated (no record of arm `init`, no step 0).")
    costs.note()
    splits = split_order(record.split for record in run.records)
    return Curves(start, path, base, curves, splits, costs.paper_absent)


def _checkpoints(run: RunFolder, costs: _Costs) -> dict[CurveKey, dict[int, list[Checkpoint]]]:
    """Checkpoints by curve and seed, in order of steps."""
    results: dict[tuple[str, float | None, int, str, int], dict[str, EvalRecord]] = defaultdict(dict)
    for record in run.records:
        lr = None if record.arm in ("init", "base") else record.lr
        results[record.arm, lr, record.seed, record.stage, record.step][record.split] = record
    points = [
        Checkpoint(arm, lr, seed, stage, step, costs.of(stage, arm, seed, step), by_split)
        for (arm, lr, seed, stage, step), by_split in results.items()
    ]
    grouped: dict[CurveKey, dict[int, list[Checkpoint]]] = defaultdict(lambda: defaultdict(list))
    for point in sorted(points, key=lambda point: (point.seed, point.step)):
        grouped[point.arm, point.lr][point.seed].append(point)
    return grouped


def paper_ends(run: RunFolder, curves: Curves, rl_tokens: str) -> dict[str, float]:
    """FLOPs by the paper's formula at the last checkpoints of each arm of RL, the mean over its seeds.

    Args:
        run: The run.
        curves: Its curves; of several learning rates an arm's first is taken.
        rl_tokens: Reading of D_RL.
    """
    costs = _Costs(run, rl_tokens)
    flops: dict[str, float] = {}
    for curve in curves.arms:
        if costs.arms.kind(curve.arm) == "rl" and curve.arm not in flops:
            last = _last_steps(curve.seeds)
            ends = [costs.of(c.stage, c.arm, c.seed, c.step) for c in last]
            available = [end.paper for end in ends if end is not None and end.paper is not None]
            if available and len(available) == len(last):
                flops[curve.arm] = sum(available) / len(available)
    return flops


class _Costs:
    """Cost of a checkpoint from the base model on, summed over the chain of stages that lead to it."""

    def __init__(self, run: RunFolder, rl_tokens: str | None = None) -> None:
        self.run, self.arms = run, arms_of(run)
        self.model = run.state.model
        self.stages = {stage.name: stage for stage in run.stages}
        self.arm_of = {record.stage: record.arm for record in run.records}
        self.arm_of |= {stage.name: stage.arm for stage in run.stages if stage.arm}
        self.paper_absent = paper_formula_absent(self._rl_totals())
        ratio = buffer_ratio(run.data_source)
        formula = PaperFormula(ratio, rl_tokens or run.recipe.rl_tokens)
        self.paper = formula if self.paper_absent is None else None
        self.init: dict[int, tuple[str, int]] = {}
        for record in run.records:
            # Arms start from the last evaluated step of the init.
            if record.arm == "init" and record.step >= self.init.get(record.seed, ("", 0))[1]:
                self.init[record.seed] = (record.stage, record.step)
        self._missing: set[str] = set()
        self._unknown: set[tuple[str, int]] = set()

    def _rl_totals(self) -> dict[str, TokenCount]:
        """Last token count of every RL stage."""
        stages = {name: counts for name, counts in self.run.tokens.items() if name in self.arm_of and counts}
        last = {name: counts[max(counts)] for name, counts in stages.items()}
        return {name: count for name, count in last.items() if self._is_rl(name, count)}

    def _is_rl(self, stage: str, count: TokenCount) -> bool:
        return self.arms.kind(self.arm_of[stage]) == "rl" or count.generated > 0

    def start_of(self, stage: str, seed: int) -> tuple[str, int] | None:
        """Stage and step an arm's stage starts from: as stored, else the init of its seed, or the first."""
        stored = self.stages[stage].start_checkpoint if stage in self.stages else None
        return stored or self.init.get(seed, next(iter(self.init.values()), None))

    def of(self, stage: str, arm: str, seed: int, step: int, later: tuple[str, ...] = ()) -> Cost | None:
        """The cost of a checkpoint; None if the tokens of this step were not stored.

        Args:
            stage: Its stage.
            arm: The arm of the stage.
            seed: Its seed.
            step: Its step.
            later: Stages that start from it, the last one first.

        Raises:
            SftrlError: if the stages start from each other.
        """
        run = self.run
        if stage in later:
            chain = " from ".join([*later, stage])
            raise SftrlError(f"{run.folder}: {chain}: found stages that start from each other.")
        if arm == "base":
            return cost_of(self.model.parameters or None, TokenCount(), rl=False, paper=self.paper)
        counted = run.tokens.get(stage, {})
        tokens = counted.get(step, TokenCount() if step == 0 else None)
        if tokens is None:
            self._missing.add(stage)
            return None
        rl = self.arms.kind(arm) == "rl" or any(t.generated > 0 for t in counted.values())
        cost = cost_of(
            self.model.parameters or None,
            tokens,
            rl=rl,
            paper=self.paper,
            critic_parameters=self.model.critic_parameters,
        )
        start = None if arm == "init" else self.start_of(stage, seed)
        if start is None:
            return cost
        before = self.of(start[0], self.arm_of.get(start[0], "base"), seed, start[1], (*later, stage))
        # The chain has a gap: the cost is then a lower bound, and `note` says so.
        if before is None:
            self._unknown.add(start)
            return cost
        return before + cost

    def note(self) -> None:
        """Add notes on missing token counts and sizes to the run."""
        run = self.run
        for stage, step in sorted(self._unknown) if run.tokens else ():
            run.notes.append(
                f"Tokens of the start (`{stage}`, step {step}) are unknown: D_init is taken as 0."
            )
        if run.records and not run.tokens:
            run.notes.append("No token counts were stored (`tokens.jsonl`): no compute axis.")
        elif self._missing:
            names = ", ".join(f"`{name}`" for name in sorted(self._missing))
            run.notes.append(f"Steps without token counts, not on the compute axis, are in stage {names}.")
        if run.records and not self.model.parameters:
            run.notes.append("`state.json` does not say the model's parameters: compute is given in tokens.")


def at_equal_compute(curves: Curves, axis: str) -> EqualCompute:
    """Cut every curve at the largest compute that all arms reached.

    The budget is the smallest over arms of the largest cost any curve of that arm reached. Each seed gives
    its last checkpoint at or below it. A seed that stopped early (below half the way from the start to the
    budget) is left out if its curve has another; a seed whose first checkpoint lies above gives that one.
    Both are said. An arm that does not leave from the shared start has no part in this: it gives its last
    checkpoints.
    """
    shared = frozenset((c.arm, c.step) for c in curves.start)
    apart = [curve for curve in curves.arms if curve.start_key != shared]
    reaches: dict[str, list[float]] = defaultdict(list)
    unknown = False
    for curve in (curve for curve in curves.arms if curve not in apart):
        reach = curve.reach(axis)
        unknown = unknown or reach is None
        if reach is not None:
            reaches[curve.arm].append(reach)
    if unknown or not reaches:
        chosen = {curve.key: _last_steps(curve.seeds) for curve in curves.arms}
        note = "Compute is not known for every arm: the arms are compared at their last checkpoints."
        return EqualCompute("", None, chosen, (note,) if curves.arms else ())

    budget = min(max(costs) for costs in reaches.values())
    # Costs are counted from the base model, so half the way begins at the cost of the start.
    halfway = ((mean_cost(curves.start, axis) or 0.0) + budget) / 2
    notes: list[str] = []
    chosen = {curve.key: _last_steps(curve.seeds) for curve in apart}
    if apart:
        names = ", ".join(dict.fromkeys(curve.arm for curve in apart))
        notes.append(f"Not from the shared start, and so compared at their last checkpoints: {names}.")
    for curve in (curve for curve in curves.arms if curve not in apart):
        kept: list[Checkpoint] = []
        early: list[Checkpoint] = []
        for seed, checkpoints in sorted(curve.seeds.items()):
            name = f"{curve.arm}, lr {lr_label(curve.lr)}, seed {seed}"
            costs = [(cost, c) for c in checkpoints if c.cost and (cost := c.cost.on(axis)) is not None]
            # Costs are sums of floats in different orders: the checkpoint that defines the budget must not
            # exceed it.
            below = [(cost, c) for cost, c in costs if cost <= budget * (1 + 1e-9)]
            if not below:
                if costs:
                    kept.append(costs[0][1])
                    notes.append(f"{name}: its first checkpoint lies above the compared compute and is used.")
            elif below[-1][0] < halfway:
                early.append(below[-1][1])
                notes.append(f"{name}: stopped before half of the compared compute.")
            else:
                kept.append(below[-1][1])
        if kept or early:
            chosen[curve.key] = kept or early
    return EqualCompute(axis, budget, chosen, tuple(notes))
