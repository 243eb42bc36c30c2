"""Reading the stored metrics of a run folder; nothing else of the run is looked at.

A file that is not there is a fact to note (`RunMetrics.notes`), so that half a run gives half a report. A
file that is there but broken is an error that names the file and the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.arms import Arms
from sftrl_ext.runs.divergence import Divergence, read_divergence
from sftrl_ext.runs.jsonl import Fields, read_jsonl
from sftrl_ext.runs.token_counts import TokenCount, read_token_counts


@dataclass(frozen=True)
class StageInfo:
    """One stage as ``state.json`` tells it.

    Attributes:
        name: Folder name under ``stages/``.
        kind: What the stage does ("data", "sft", "rl", "eval", ...).
        arm: "base", "init", the name of an arm, or "" for a stage that trains nothing.
        start: Stage and step it starts from; None where that is not stored.
        wall_s: Wall time in seconds; None while unknown.
        peak_rss_mb: Peak memory in MB; None while unknown.
        extra: The whole entry.
    """

    name: str
    kind: str = ""
    arm: str = ""
    seed: int = 0
    lr: float | None = None
    status: str = ""
    wall_s: float | None = None
    peak_rss_mb: float | None = None
    start: tuple[str, int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CityCount:
    """Counts of the routes of one city; ``solved`` are routes walked to their end."""

    episodes: int
    solved: int
    correct_actions: int
    responses: int

    def __add__(self, other: CityCount) -> CityCount:
        return CityCount(
            self.episodes + other.episodes,
            self.solved + other.solved,
            self.correct_actions + other.correct_actions,
            self.responses + other.responses,
        )

    def __str__(self) -> str:
        accuracy = f"{100 * self.correct_actions / self.responses:.1f}" if self.responses else "–"
        return f"{self.solved}/{self.episodes}, {accuracy}"


@dataclass(frozen=True)
class EvalRecord:
    """The result of one checkpoint on one split: ``solved`` of ``episodes`` episodes.

    Attributes:
        arm: "base", "init", or the name of an arm.
        solved_first: Episodes solved by their first response.
        recognized, number_right: Episodes whose first response names the right cards, the right numbers; None
            where there is no picture to read.
        correct_actions, responses: Right actions and all responses, of all episodes together; None where only
            whole episodes are right or wrong.
        step_counts: The same of each episode, in the order of the split; None in older runs.
        divergence: From what the checkpoint's stage started from, in the record of the split trained on; None
            elsewhere, and in older runs. A text says why it could not be measured.
        by_city: City to the counts of its routes, where a split has several cities; else empty.
    """

    stage: str
    arm: str
    seed: int
    lr: float | None
    step: int
    split: str
    episodes: int
    solved: int
    data_source: str = ""
    attempts_mean: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    generated_tokens: int | None = None
    wall_s: float | None = None
    solved_first: int | None = None
    recognized: int | None = None
    number_right: int | None = None
    correct_actions: int | None = None
    responses: int | None = None
    step_counts: tuple[tuple[int, int], ...] | None = None
    divergence: Divergence | str | None = None
    by_city: Mapping[str, CityCount] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredSegment:
    """One prompt of an episode and the turns that followed it; of a route, those at one point."""

    point: int
    messages: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class SampleEpisode:
    """One stored episode: its messages, and the attempts with their outcome and reward.

    Attributes:
        messages: The dialogue of the last prompt.
        segments: The dialogues of all prompts, where there is more than one; older runs do not have them.
    """

    stage: str
    arm: str
    seed: int
    step: int
    split: str
    facts: Mapping[str, Any]
    messages: tuple[Mapping[str, str], ...]
    attempts: tuple[Mapping[str, Any], ...]
    solved: bool
    segments: tuple[StoredSegment, ...] = ()

    @property
    def opening(self) -> tuple[Mapping[str, str], ...]:
        """The dialogue of the first prompt that is stored."""
        return self.segments[0].messages if self.segments else self.messages


@dataclass
class RunMetrics:
    """Everything a report is made of.

    Attributes:
        tokens: Stage name to {step: cumulative tokens of that stage}.
        training: Stage name to [(step, {metric: value})], in order of steps.
        notes: What was missing, in words, for the reader of the report.
    """

    folder: Path
    state: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    stages: list[StageInfo] = field(default_factory=list)
    records: list[EvalRecord] = field(default_factory=list)
    episodes: list[SampleEpisode] = field(default_factory=list)
    tokens: dict[str, dict[int, TokenCount]] = field(default_factory=dict)
    training: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def arms(self) -> Arms:
        """The arms: kinds from the stages, titles and order from the recipe."""
        told = self.recipe.get("arms")
        told = told if isinstance(told, Mapping) else {}
        found = {stage.arm: stage.kind for stage in self.stages if stage.arm and stage.kind}
        found = {arm: kind for arm, kind in found.items() if arm not in ("base", "init")}
        order = [arm for arm in told if arm in found] + [arm for arm in found if arm not in told]
        titles = {arm: one.get("title") for arm, one in told.items() if isinstance(one, Mapping)}
        return Arms(
            {arm: found[arm] for arm in order}, {arm: str(title) for arm, title in titles.items() if title}
        )

    @property
    def parameters(self) -> float | None:
        """N, the parameters of the model; None if ``state.json`` does not say."""
        return self._size("parameters")

    @property
    def critic_parameters(self) -> float | None:
        """Parameters of the critic; None if ``state.json`` does not say."""
        return self._size("critic_parameters")

    def _size(self, key: str) -> float | None:
        model = self.state.get("model")
        value = model.get(key) if isinstance(model, Mapping) else None
        return float(value) if isinstance(value, int | float) and value > 0 else None


def _record(path: Path, line: int, item: Mapping[str, Any]) -> EvalRecord:
    get = Fields(path, line, item)
    episodes, solved = get.integer("episodes"), get.integer("solved")
    if not episodes > 0 or solved > episodes:
        raise SftrlError(
            f"{get.where}: 'solved' should lie between 0 and 'episodes' (at least 1), "
            f"found {solved} of {episodes}."
        )
    responses = None if item.get("responses") is None else get.integer("responses")
    return EvalRecord(
        stage=get.text("stage"), arm=get.text("arm"), seed=get.integer("seed", 0), lr=get.number("lr"),
        step=get.integer("step", 0), split=get.text("split"), episodes=episodes, solved=solved,
        data_source=get.text("data_source", ""), attempts_mean=get.number("attempts_mean"),
        outcomes=get.counts("outcomes"), wall_s=get.number("wall_s"),
        generated_tokens=get.integer("generated_tokens", 0), solved_first=get.share("solved_first", episodes),
        recognized=get.share("recognized_first", episodes),
        number_right=get.share("number_right_first", episodes), responses=responses,
        correct_actions=None if responses is None else get.share("correct_actions", responses),
        step_counts=_step_counts(get, episodes), divergence=read_divergence(get), by_city=_by_city(get),
    )  # fmt: skip


def _by_city(get: Fields) -> dict[str, CityCount]:
    """Counts of each city; they must add up to those of the record."""
    cities = get.inner("by_city")
    if cities is None:
        return {}
    names = ("episodes", "solved", "correct_actions", "responses")
    counts = {}
    for city in cities.item:
        inner = cities.inner(city)
        counts[city] = CityCount(*(inner.integer(name) if inner else 0 for name in names))
    for name in names:
        if sum(getattr(count, name) for count in counts.values()) != get.integer(name):
            raise get.bad("by_city", f"an object whose {name!r} add up to {get.integer(name)}")
    return counts


def _step_counts(get: Fields, episodes: int) -> tuple[tuple[int, int], ...] | None:
    """Counts of each route; they must add up to those of the record."""
    pairs = get.pairs("step_counts")
    if pairs is None:
        return None
    sums = [sum(column) for column in zip(*pairs, strict=True)]
    totals = [get.integer("correct_actions"), get.integer("responses")]
    if len(pairs) != episodes or sums != totals or any(part > whole for part, whole in pairs):
        raise get.bad("step_counts", f"{episodes} pairs that add up to {totals}")
    return pairs


def _episode(path: Path, line: int, item: Mapping[str, Any]) -> SampleEpisode:
    get = Fields(path, line, item)
    facts = item.get("facts", {})
    if not isinstance(facts, dict):
        raise get.bad("facts", "an object")
    return SampleEpisode(
        stage=get.text("stage", ""), arm=get.text("arm"), seed=get.integer("seed", 0),
        step=get.integer("step", 0), split=get.text("split"), facts=facts,
        messages=get.objects("messages"), attempts=get.objects("attempts"), solved=bool(item.get("solved")),
        segments=tuple(_segment(path, line, part) for part in get.objects("segments")),
    )  # fmt: skip


def _segment(path: Path, line: int, item: Mapping[str, Any]) -> StoredSegment:
    get = Fields(path, line, item)
    return StoredSegment(get.integer("point"), get.objects("messages"))


def _metrics_line(path: Path, line: int, item: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    get = Fields(path, line, item)
    data = item.get("data")
    if not isinstance(data, dict):
        raise get.bad("data", "an object of metrics")
    numbers = {k: float(v) for k, v in data.items() if isinstance(v, int | float) and math.isfinite(v)}
    return get.integer("step"), numbers


def _stage(path: Path, number: int, item: Any) -> StageInfo:
    if not isinstance(item, dict):
        raise SftrlError(f"{path}: stages[{number}] should be an object, found {type(item).__name__}.")
    get = Fields(path, 1, {k: v for k, v in item.items() if v is not None})
    get.where = f"{path}, stages[{number}]"
    start, _, step = get.text("start", "").rpartition("@")
    return StageInfo(
        name=get.text("name"), kind=get.text("kind", ""), arm=get.text("arm", ""),
        seed=get.integer("seed", 0), lr=get.number("lr"), status=get.text("status", ""),
        wall_s=get.number("wall_s"), peak_rss_mb=get.number("peak_rss_mb"),
        start=(start, int(step)) if step.isdigit() else None, extra=item,
    )  # fmt: skip


def _mapping_file(path: Path, parse: Callable[[str], Any], notes: list[str], loss: str) -> Mapping[str, Any]:
    if not path.is_file():
        notes.append(f"`{path.name}` is not there: {loss}.")
        return {}
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise SftrlError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise SftrlError(f"{path}: expected a mapping, found {type(value).__name__}.")
    return value


def load_run(run_dir: Path) -> RunMetrics:
    """Read the stored metrics of ``run_dir``.

    A checkpoint evaluated twice on a split (a run killed in evaluation and resumed) counts once: the later
    line stands. The same holds for the steps of ``tokens.jsonl`` and ``metrics.jsonl``.

    Raises:
        SftrlError: if the folder does not exist or is no run folder, or a file is malformed.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise SftrlError(f"{run_dir}: no such run folder.")
    if not any((run_dir / part).exists() for part in ("state.json", "recipe.yaml", "eval", "stages")):
        raise SftrlError(
            f"{run_dir}: not a run folder: it holds none of state.json, recipe.yaml, eval/, stages/."
        )
    run = RunMetrics(run_dir)
    run.state = _mapping_file(
        run_dir / "state.json", json.loads, run.notes, "no stage times, no hardware, no model size"
    )
    run.recipe = _mapping_file(
        run_dir / "recipe.yaml", yaml.safe_load, run.notes, "no numbers of the paper to compare with"
    )
    stages = run.state.get("stages") or []
    if isinstance(stages, Mapping):
        stages = [{"name": name, **(entry or {})} for name, entry in stages.items()]
    run.stages = [_stage(run_dir / "state.json", i, entry) for i, entry in enumerate(stages)]

    records_file, episodes_file = run_dir / "eval" / "records.jsonl", run_dir / "eval" / "episodes.jsonl"
    if records_file.is_file():
        records = (_record(records_file, line, item) for line, item in read_jsonl(records_file, run.notes))
        run.records = list({(r.stage, r.arm, r.seed, r.lr, r.step, r.split): r for r in records}.values())
    if not run.records:
        run.notes.append("No evaluation records yet (`eval/records.jsonl`): no success figures, no verdict.")
    for reason in sorted({r.divergence for r in run.records if isinstance(r.divergence, str)}):
        run.notes.append(f"The divergence from the start was not measured: {reason}.")
    if episodes_file.is_file():
        run.episodes = [
            _episode(episodes_file, line, item) for line, item in read_jsonl(episodes_file, run.notes)
        ]
    if not run.episodes:
        run.notes.append("No sample episodes were stored (`eval/episodes.jsonl`).")
    for folder in sorted(path for path in (run_dir / "stages").glob("*") if path.is_dir()):
        training = _training(folder, run.notes)
        if training:
            run.training[folder.name] = training
        tokens_file = folder / "tokens.jsonl"
        if tokens_file.is_file():
            run.tokens[folder.name] = read_token_counts(tokens_file, training, run.notes)
    return run


def _launch(path: Path) -> int:
    return int((re.findall(r"\d+", path.stem) or ["0"])[-1])


def _training(folder: Path, notes: list[str]) -> list[tuple[int, dict[str, float]]]:
    """Logged metrics of a stage by step; while there is no ``metrics.jsonl``, those of its launches."""
    whole = folder / "metrics.jsonl"
    files = [whole] if whole.is_file() else sorted(folder.glob("metrics*.jsonl"), key=_launch)
    merged: dict[int, dict[str, float]] = {}
    for path in files:
        for line in read_jsonl(path, notes):
            step, numbers = _metrics_line(path, *line)
            merged.setdefault(step, {}).update(numbers)
    return sorted(merged.items())
