"""Evaluation records and sample episodes: ``eval/records.jsonl`` and ``eval/episodes.jsonl``.

Of a checkpoint and split that were written twice (an evaluation that was killed and resumed, a divergence
measured later) the later line counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from pydantic import Field

from sftrl_ext.files import append_lines, drop_torn_tail, jsonl, write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.stats import mean_of_seeds
from sftrl_ext.runs.typed_json import Count, read_records

RecordKey = tuple[str, int, str]
"""Stage, step and split."""

DIRECTIONS = ("forward", "reverse")
"""The two measures of a `Divergence`."""


@dataclass(frozen=True)
class CityCount:
    """Counts of the routes of one city; ``solved`` are routes walked to their end."""

    episodes: Count
    solved: Count
    correct_actions: Count
    responses: Count

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
class KLEstimate:
    """A divergence per generated token.

    Attributes:
        nats: The mean.
        se: Its standard error over episodes, and over seeds; None for a single episode, which has none.
        episodes, tokens: Episodes and generated tokens it was measured on.
    """

    nats: float
    se: float | None = None
    episodes: int | None = None
    tokens: int | None = None

    def __str__(self) -> str:
        digits = 4 if self.nats < 0.1 else 3
        error = "" if self.se is None else f" ± {self.se:.{digits}f}"
        return f"{self.nats:.{digits}f}{error}"


@dataclass(frozen=True)
class Divergence:
    """Divergence of a checkpoint from its start, on episodes of the split trained on.

    Attributes:
        start: ``<stage>@<step>`` of its start.
        forward: KL(start || checkpoint), on episodes that the start played.
        reverse: KL(checkpoint || start), on its own episodes.
        absent: Reason why it could not be measured.
    """

    start: str
    forward: KLEstimate | None = None
    reverse: KLEstimate | None = None
    absent: str | None = None
    wall_s: float | None = None

    def __post_init__(self) -> None:
        if self.absent is None and (self.forward is None or self.reverse is None):
            raise ValueError("a divergence needs 'forward' and 'reverse', or 'absent'")


CLAIMS = ("recognized", "number_right")
"""Claims about a picture that have a field of their own in `EvalRecord`."""


def mean_divergence(divergences: Iterable[Divergence], direction: str) -> KLEstimate | None:
    """Mean of several seeds' divergences, with its standard error; None if there is none.

    Args:
        divergences: One for each seed.
        direction: ``forward`` or ``reverse``.
    """
    parts: list[KLEstimate] = [getattr(divergence, direction) for divergence in divergences]
    if not parts:
        return None
    mean, se = mean_of_seeds([part.nats for part in parts], [part.se or 0.0 for part in parts])
    return KLEstimate(mean, se or None)


@dataclass(frozen=True, kw_only=True)
class EvalRecord:
    """The result of one checkpoint on one split: ``solved`` of ``episodes`` episodes.

    Attributes:
        arm: "base", "init", or the name of an arm.
        successes: Solved episodes of each instance, in the order of the split; None in older records.
        instances: Digest of the instances: records that share it are compared instance by instance.
        distinct: Distinct solutions over the episodes of each instance; None with one episode each.
        solutions: Distinct solutions that each instance has.
        solved_first: Episodes solved by their first response.
        trained_rule_first: Episodes whose first response is wrong by the rule stated and right by the rule
            that was trained; None where they are the same, or there are no rules.
        correct_actions, responses: Right actions and all responses, of all episodes together; None where only
            whole episodes are right or wrong.
        step_counts: The same of each instance, in the order of the split.
        by_city: City to the counts of its routes, where a split has several cities; else empty.
        recognized_first, number_right_first: Episodes whose first response names the right cards, the right
            numbers; None where there is no picture to read.
        first_claims: Other claims of a task (`TaskSpec.first_claims`) to the episodes whose first response
            makes them correctly.
        divergence: From what the checkpoint's stage started from, in the record of the split trained on.
    """

    stage: str
    arm: str
    seed: Count = 0
    lr: float | None = None
    step: Count = 0
    split: str
    data_source: str = ""
    episodes: Annotated[int, Field(ge=1)]
    solved: Count
    successes: tuple[Count, ...] | None = None
    instances: str | None = None
    distinct: tuple[Count, ...] | None = None
    solutions: tuple[Count, ...] | None = None
    solved_first: Count | None = None
    trained_rule_first: Count | None = None
    attempts_mean: float | None = None
    correct_actions: Count | None = None
    responses: Count | None = None
    recognized_responses: Count | None = None
    step_counts: tuple[tuple[Count, Count], ...] | None = None
    by_city: dict[str, CityCount] = field(default_factory=dict)
    recognized_first: Count | None = None
    number_right_first: Count | None = None
    first_claims: dict[str, Count] = field(default_factory=dict)
    outcomes: dict[str, Count] = field(default_factory=dict)
    errors: Count = 0
    out_of_tokens: Count = 0
    prompt_tokens: Count = 0
    generated_tokens: Count = 0
    feedback_tokens: Count = 0
    wall_s: float | None = None
    engine: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    divergence: Divergence | None = None

    def __post_init__(self) -> None:
        for part in (
            "solved",
            "solved_first",
            "trained_rule_first",
            "recognized_first",
            "number_right_first",
        ):
            self._check_share(part, "episodes")
        self._check_share("correct_actions", "responses")
        self._check_successes()
        self._check_step_counts()
        for name in (count.name for count in fields(CityCount)) if self.by_city else ():
            if sum(getattr(city, name) for city in self.by_city.values()) != getattr(self, name):
                raise ValueError(f"'by_city' should have {name!r} that add up to {getattr(self, name)}")

    @property
    def key(self) -> RecordKey:
        """Stage, step and split."""
        return self.stage, self.step, self.split

    @property
    def samples(self) -> int:
        """Episodes of each instance."""
        return self.episodes // len(self.successes) if self.successes else 1

    def _check_share(self, part: str, total_name: str) -> None:
        count, total = getattr(self, part), getattr(self, total_name)
        if count is not None and total is not None and count > total:
            raise ValueError(f"{part!r} should lie between 0 and {total_name!r}, {total}, found {count}")

    def _check_successes(self) -> None:
        if self.successes is None:
            return
        samples, rest = divmod(self.episodes, max(1, len(self.successes)))
        if rest or sum(self.successes) != self.solved or max(self.successes, default=0) > samples:
            raise ValueError(
                f"'successes' should count {self.solved} solved of {self.episodes} episodes, as many of each "
                f"instance, found {len(self.successes)} counts with the sum {sum(self.successes)}"
            )
        for name in ("distinct", "solutions"):
            counts = getattr(self, name)
            if counts is not None and len(counts) != len(self.successes):
                raise ValueError(f"{name!r} should have {len(self.successes)} counts, found {len(counts)}")

    def _check_step_counts(self) -> None:
        if self.step_counts is None:
            return
        totals = [self.correct_actions, self.responses]
        sums = [sum(column) for column in zip(*self.step_counts, strict=True)]
        above = any(correct > responses for correct, responses in self.step_counts)
        instances = self.episodes // self.samples
        if len(self.step_counts) != instances or sums != totals or above:
            raise ValueError(f"'step_counts' should be {instances} pairs that add up to {totals}")


@dataclass(frozen=True)
class StoredSegment:
    """One prompt of an episode and the turns that followed it; of a route, those at one point."""

    point: int
    messages: tuple[dict[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class SampleEpisode:
    """One stored episode: its messages, and the attempts with their outcome and reward.

    Attributes:
        facts: What rebuilds the episode.
        messages: The dialogue of the last prompt.
        segments: The dialogues of all prompts, where there is more than one.
    """

    stage: str = ""
    arm: str
    seed: Count = 0
    step: Count = 0
    split: str
    facts: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] = ()
    attempts: tuple[dict[str, Any], ...] = ()
    solved: bool = False
    segments: tuple[StoredSegment, ...] = ()

    @property
    def key(self) -> RecordKey:
        """Stage, step and split."""
        return self.stage, self.step, self.split

    @property
    def opening(self) -> tuple[Mapping[str, Any], ...]:
        """The dialogue of the first prompt that is stored."""
        return self.segments[0].messages if self.segments else self.messages


def read_eval_records(
    layout: RunLayout, on_torn_tail: Callable[[], None] | None = None
) -> dict[RecordKey, EvalRecord]:
    """The record of every evaluated checkpoint and split.

    Raises:
        SftrlError: naming file and line, if a line is no record.
    """
    return {record.key: record for _, record in read_records(EvalRecord, layout.records, on_torn_tail)}


def read_episodes(layout: RunLayout, on_torn_tail: Callable[[], None] | None = None) -> list[SampleEpisode]:
    """The sample episodes.

    Raises:
        SftrlError: naming file and line, if a line is no episode.
    """
    return [episode for _, episode in read_records(SampleEpisode, layout.episodes, on_torn_tail)]


def prepare_to_append(layout: RunLayout) -> None:
    """Cut last lines that a kill left incomplete, so that appending is safe again."""
    for path in (layout.records, layout.episodes):
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_torn_tail(path)


def append_record(layout: RunLayout, record: EvalRecord, episodes: Sequence[SampleEpisode] = ()) -> None:
    """Append a record after its sample episodes; both are on disk when this returns."""
    # The record comes last: where it is, a resumed evaluation takes the split as done.
    append_lines(layout.episodes, map(_as_json, episodes))
    append_lines(layout.records, [_as_json(record)])


def write_records(
    layout: RunLayout, records: Iterable[EvalRecord], episodes: Iterable[SampleEpisode]
) -> None:
    """Write both files whole; a file that would not change is left alone."""
    for path, lines in ((layout.episodes, episodes), (layout.records, records)):
        text = jsonl(map(_as_json, lines))
        if text != (path.read_text(encoding="utf-8") if path.is_file() else ""):
            write_text(path, text)


def _as_json(record: EvalRecord | SampleEpisode) -> dict[str, Any]:
    """The fields of a record that have a value."""
    return asdict(record, dict_factory=lambda items: {k: v for k, v in items if v not in (None, {}, ())})
