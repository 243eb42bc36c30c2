"""Tables of a report, and the results table of several runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.plain_text import markdown_line
from sftrl_ext.reports.analysis.curves import (
    Checkpoint,
    Curve,
    divergence_over_seeds,
    mean_cost,
    mean_over_seeds,
)
from sftrl_ext.reports.analysis.equal_id import at_equal_id
from sftrl_ext.reports.analysis.fairness import fairness_card
from sftrl_ext.reports.analysis.forgetting import drift, has_divergence
from sftrl_ext.reports.analysis.run_analysis import Analysis, analyse
from sftrl_ext.reports.analysis.samples import distinct_solutions, ks_of, pass_at_k, samples_of
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.runs.compute import AXES, readable
from sftrl_ext.runs.records import DIRECTIONS
from sftrl_ext.runs.stats import Measure

DIVERGENCE = "Divergence from the start at every evaluated checkpoint (nats per token ± SE)"
"""Title of `divergence_table`."""

_COST_HEADERS = {"counted": "Compute (counted)", "paper": "Compute (paper)", "tokens": "Tokens"}


@dataclass(frozen=True)
class Table:
    """A table of texts; the first ``text_columns`` are set flush left, the rest, numbers, flush right.

    Attributes:
        marked: Rows that the HTML page shows in red.
        markup: The cells are Markdown of our own; otherwise they are texts, which may be a stranger's.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    marked: frozenset[int] = frozenset()
    markup: bool = False

    def to_markdown(self) -> str:
        """The table as GitHub Markdown."""
        marks = [":--" if i < self.text_columns else "--:" for i in range(len(self.header))]
        lines: Sequence[Sequence[str]] = [self.header, *self.rows]
        if not self.markup:
            lines = [list(map(markdown_line, line)) for line in lines]
        header, *rows = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        return "\n".join("| " + " | ".join(line) + " |" for line in (header, marks, *rows))


def duration(seconds: float | None) -> str:
    """A wall time as text: ``48 s``, ``7 min 35 s``, ``2 h 05 min``."""
    if seconds is None:
        return "–"
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def memory(megabytes: float | None) -> str:
    """A memory size as text."""
    if megabytes is None:
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def _cell(value: object | None) -> str:
    return "–" if value is None else str(value)


def _cost_cell(cost: float | None, axis: str) -> str:
    if not cost:
        return _cell(cost if cost is None else 0)
    return readable(cost, axis).removesuffix(" tokens")


@dataclass(frozen=True)
class Row:
    """One line of numbers: an arm's checkpoints, seeds pooled."""

    arm: str
    lr: float | None
    checkpoints: Sequence[Checkpoint]

    @property
    def steps(self) -> str:
        """Their steps: one number if the seeds agree, else a range."""
        steps = sorted({c.step for c in self.checkpoints})
        return str(steps[0]) if len(steps) == 1 else f"{steps[0]}–{steps[-1]}"

    def measure(self, split: str, metric: str = "main") -> Measure | None:
        """A metric on a split; see `mean_over_seeds`."""
        return mean_over_seeds(self.checkpoints, split, metric)

    def cost(self, axis: str) -> float | None:
        """Mean cost on a compute axis; None if unknown."""
        return mean_cost(self.checkpoints, axis)

    def cells(self, analysis: Analysis) -> list[str]:
        """Cells of a table that identify the checkpoints: arm, learning rate, step."""
        return [analysis.arms.label(self.arm), lr_label(self.lr), self.steps]


def compared_rows(analysis: Analysis) -> list[Row]:
    """Base, SFT, start and RL as they are compared: every curve, at equal compute."""
    rows = [Row("base", None, analysis.curves.base)] if analysis.curves.base else []
    for arm in analysis.arms.order([*analysis.curves.arm_names(), "init"]):
        if arm == "init" and analysis.curves.start and analysis.curves.start_arm == "init":
            rows.append(Row("init", None, analysis.curves.start))
        rows += [
            Row(arm, c.lr, analysis.equal.chosen[c.key])
            for c in analysis.curves.arms
            if c.arm == arm and c.key in analysis.equal.chosen
        ]
    return rows


def all_rows(analysis: Analysis) -> list[Row]:
    """Every evaluated checkpoint, in the order of training."""
    rows = [Row("base", None, analysis.curves.base)] if analysis.curves.base else []
    if analysis.curves.path:
        rows += [Row("init", None, group) for group in analysis.curves.path.steps()]
    elif analysis.curves.start and analysis.curves.start_arm == "init":
        rows.append(Row("init", None, analysis.curves.start))
    return rows + [Row(c.arm, c.lr, group) for c in analysis.curves.arms for group in c.steps()]


def recognition_table(analysis: Analysis, rows: Iterable[Row], *, paper: bool = False) -> Table:
    """First responses that name the right cards, in the form of `success_table`; for runs with pictures."""
    return success_table(analysis, rows, paper=paper, metric="recognition")


def success_table(
    analysis: Analysis, rows: Iterable[Row], *, paper: bool = False, metric: str | None = None
) -> Table:
    """A measure ± SE in percent, one row per checkpoint, one column per split, with what the checkpoint cost.

    Args:
        analysis: The analysed run.
        rows: From `compared_rows` or `all_rows`.
        paper: True if the paper's numbers follow as rows of their own.
        metric: A name of `curves.METRICS`; by default the main measure.
    """
    metric = metric or analysis.metric
    splits = analysis.curves.splits
    costs = [axis for axis in AXES if axis in analysis.axes]
    columns = [analysis.column(split, split) for split in splits]
    header = ["Arm", "lr", "Step", "Seeds", *columns, *(_COST_HEADERS[a] for a in costs)]
    body = []
    for row in rows:
        cells = [*row.cells(analysis), str(len(row.checkpoints))]
        cells += [_cell(row.measure(split, metric)) for split in splits]
        body.append([*cells, *(_cost_cell(row.cost(axis), axis) for axis in costs)])
    for entry in analysis.paper(metric) if paper else ():
        for arm in analysis.arms.order(entry.values):
            cells = [f"{analysis.arms.label(arm)} ({entry.label})", "–", "–", "–"]
            cells += [entry.text(arm) if split == entry.split else "–" for split in splits]
            body.append(cells + ["–"] * len(costs))
    return Table(header, body)


def change_table(analysis: Analysis) -> Table | None:
    """Change of every curve since its start in points, with the paper's; None without the paper's."""
    entries = analysis.paper_changes()
    if not entries:
        return None
    splits, body = analysis.curves.splits, []
    for curve in analysis.curves.arms:
        cells = [analysis.arms.label(curve.arm), lr_label(curve.lr)]
        for split in splits:
            cells.append(_cell(curve.change(analysis.equal.chosen.get(curve.key, []), split)))
        body.append(cells)
    for entry in entries:
        for arm in analysis.arms.order(entry.values):
            cells = [f"{analysis.arms.label(arm)} ({entry.label})", "–"]
            body.append(cells + [entry.text(arm) if split == entry.split else "–" for split in splits])
    return Table(["Arm", "lr", *(analysis.column(split, split) for split in splits)], body)


def equal_id_table(analysis: Analysis) -> Table | None:
    """Pairs of curves at equal ID success on the verdicts' splits; None where no pair has one in common."""
    readings = [r for r in at_equal_id(analysis) if r.split in analysis.main_splits and r.level is not None]
    body = [
        [
            entry.split,
            f"{100 * (entry.level or 0.0):.1f}",
            *(
                cell
                for arrival in entry.arrivals
                for cell in (
                    arrival.label,
                    lr_label(arrival.key[1]),
                    f"{arrival.step:.0f}",
                    str(arrival.ood),
                )
            ),
            str(entry.difference),
        ]
        for entry in readings
    ]
    of_curve = ["lr", "Step", "OOD"]
    header = ["Split", "ID", "First arm", *of_curve, "Second arm", *of_curve, "Second minus first"]
    return Table(header, body) if body else None


def sample_table(analysis: Analysis, rows: Iterable[Row]) -> Table | None:
    """pass@k in percent, and distinct solutions, on every split; None with one episode of each instance."""
    rows = list(rows)
    chosen = [
        (row, split, samples_of(row.checkpoints, split)) for row in rows for split in analysis.curves.splits
    ]
    ks = ks_of(max((samples for _, _, samples in chosen), default=1))
    body = [
        [
            *row.cells(analysis),
            split,
            *(_cell(pass_at_k(row.checkpoints, split, k)) for k in ks),
            _cell(distinct_solutions(row.checkpoints, split)),
        ]
        for row, split, samples in chosen
        if samples > 1
    ]
    header = ["Arm", "lr", "Step", "Split", *(f"pass@{k}" for k in ks), "Distinct solutions"]
    return Table(header, body) if body else None


def divergence_table(analysis: Analysis) -> Table | None:
    """Divergence of every checkpoint from its start in nats per token ± SE; None if it was not measured.

    Further columns give the change since the start on the verdicts' splits, in points.
    """
    if not has_divergence(analysis):
        return None
    path = analysis.curves.path
    ways: list[tuple[Curve | None, list[Checkpoint]]] = []
    ways += [(None, group) for group in (path.steps() if path else [])]
    ways += [(curve, group) for curve in analysis.curves.arms for group in curve.steps()]
    body = []
    for curve, group in ways:
        measured = [c for c in group if c.divergence]
        if not measured:
            continue
        row = Row(measured[0].arm, measured[0].lr, measured)
        cells = [*row.cells(analysis), str(len(measured))]
        cells += [str(divergence_over_seeds(measured, direction)) for direction in DIRECTIONS]
        for split in analysis.main_splits:
            moved = drift(measured, curve, split) if curve else None
            cells.append(str(moved.change) if moved else "–")
        body.append(cells)
    changes = [analysis.column(f"Change, {split}", split) for split in analysis.main_splits]
    header = ["Arm", "lr", "Step", "Seeds", "KL(start || checkpoint)", "KL(checkpoint || start)", *changes]
    return Table(header, body)


def fairness_table(analysis: Analysis) -> Table | None:
    """Settings and costs of the arms, ``!`` where they differ; None without a compared arm."""
    lines = fairness_card(analysis)
    if not lines:
        return None
    arms = list(lines[0].values)
    body = [["!" if line.differs else "", line.name, *(line.values[arm] for arm in arms)] for line in lines]
    header = ["", "Setting", *map(analysis.arms.label, arms)]
    marked = frozenset(index for index, line in enumerate(lines) if line.differs)
    return Table(header, body, text_columns=len(header), marked=marked)


def stage_table(analysis: Analysis) -> Table:
    """Wall time and peak memory of every stage, and their sum and maximum."""
    stages = [stage for stage in analysis.run.stages if stage.kind != "report" or stage.status == "done"]
    body = [
        [
            stage.name,
            stage.kind or "–",
            (f"of {stage.shared_from}" if stage.shared_from else stage.status) or "–",
            lr_label(stage.lr),
            "–" if not stage.arm else str(stage.seed or 0),
            duration(stage.wall_s or None),
            memory(stage.peak_rss_mb or None),
        ]
        for stage in stages
    ]
    if len(stages) > 1:
        seconds, megabytes = sum(s.wall_s for s in stages), max(s.peak_rss_mb for s in stages)
        total = [duration(seconds or None), memory(megabytes or None)]
        body.append(["all stages", "", "", "", "", *total])
    return Table(["Stage", "Kind", "Status", "lr", "Seed", "Wall time", "Peak memory"], body, text_columns=3)


def run_facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Settings of a run: model, hardware, commit, seeds, learning rates; (name, value) pairs."""
    state, run = analysis.run.state, analysis.run
    facts = [("Recipe", state.recipe or "–"), ("Scale", state.scale or "–")]
    if state.model.name:
        facts.append(("Model", state.model.name))
    if state.model.parameters:
        facts.append(("Parameters", f"{state.model.parameters:,}"))
    seeds = sorted({seed for curve in analysis.curves.arms for seed in curve.seeds})
    if seeds:
        facts.append(("Seeds", ", ".join(map(str, seeds))))
    for arm in analysis.curves.arm_names():
        rates = ", ".join(lr_label(lr) for lr in analysis.curves.rates(arm))
        facts.append((f"Learning rate, {analysis.arms.label(arm)}", rates))
    episodes = sorted({record.episodes for record in run.records})
    if episodes:
        facts.append(("Episodes per split and checkpoint", ", ".join(map(str, episodes))))
    if state.hardware:
        parts = [
            f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in state.hardware.items()
            if value not in (None, "", [], {})
        ]
        facts.append(("Hardware", ", ".join(parts)))
    facts.append(("Commit", state.commit or "–"))
    facts += [("Changed after the start", str(change)) for change in state.changes]
    return facts


def results_table(run_dirs: Sequence[Path]) -> str:
    """One Markdown table over several runs: success ± SE at equal compute, with the commit of each row.

    Of runs on routes it is per-step accuracy.

    If any of them has pictures, a second table for the recognition of their cards follows.

    Args:
        run_dirs: Run folders, in the order of the rows.

    Raises:
        SftrlError: if a folder is no run folder or a file in it is malformed.
    """
    analyses = [analyse(Path(run_dir)) for run_dir in run_dirs]
    splits = list(dict.fromkeys(split for analysis in analyses for split in analysis.curves.splits))
    table = _runs_table(analyses, splits, "main").to_markdown() + "\n"
    pictures = [analysis for analysis in analyses if analysis.recognizes]
    if pictures:
        of_cards = _runs_table(pictures, splits, "recognition").to_markdown()
        table += f"\nCards recognized in the first response:\n\n{of_cards}\n"
    return table


def _runs_table(analyses: Sequence[Analysis], splits: Sequence[str], metric: str) -> Table:
    body = []
    for analysis in analyses:
        commit = (analysis.run.state.commit or "–")[:7]
        for row in compared_rows(analysis):
            cost = row.cost(analysis.equal.axis) if analysis.equal.axis else None
            body.append([
                f"{analysis.name} ({analysis.mark})" if analysis.mark else analysis.name,
                analysis.arms.label(row.arm),
                lr_label(row.lr),
                str(len(row.checkpoints)),
                *(_cell(row.measure(split, metric)) for split in splits),
                readable(cost, analysis.equal.axis) if cost else "–",
                commit,
            ])  # fmt: skip
    header = ["Run", "Arm", "lr", "Seeds", *(f"{split} (%)" for split in splits), "Compute", "Commit"]
    return Table(header, body, text_columns=2)
