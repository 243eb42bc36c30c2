"""Check a parquet file row by row: schema, facts, prompts, pictures, and that trained answers are right."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.authors import SPLIT as IMPORTED
from data_prep.images import IMAGE_ROW_GROUP
from data_prep.schema import iter_rows, read_schema
from sftrl_ext.envs import Episode, Step, count_markers, make_episode, parse_facts
from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class FileReport:
    """Counts of a valid file.

    Attributes:
        path: The file.
        rows: All rows.
        sft_rows: Rows with a dialogue.
        turns: Assistant turns that carry loss.
        splits: Rows per split.
        pictures: Pictures in the rows.
        own_prompts: Rows that keep a prompt of their own: it is not the one that their episode opens with.
    """

    path: Path
    rows: int = 0
    sft_rows: int = 0
    turns: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    own_prompts: int = 0
    _drawn: dict[str, int] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {rows}" for name, rows in self.splits.items())
        dialogues = f"{self.sft_rows} dialogues with {self.turns} trained answers"
        pictures = f"; {self.pictures} pictures" if self.pictures else ""
        return f"{self.rows} rows are valid ({splits or 'none'}); {dialogues}{pictures}"


def validate_file(path: str | Path, limit: int | None = None) -> FileReport:
    """Check a file; the first thing that is wrong is raised.

    Every row must rebuild its episode from its facts, and its prompt must be the episode's opening. The
    dialogue of an SFT row must be what the episode gives for its answers, and the answers that carry loss
    must be graded correct. A prompt must have as many image markers as the episode has pictures, and pictures
    in the row must be those. Rows imported from the authors' data keep their own prompts: only their last
    answer is graded.

    Args:
        path: A parquet file.
        limit: Check only so many rows.

    Raises:
        SftrlError: naming file, row and column, with what was found and expected.
    """
    path = Path(path)
    batch = IMAGE_ROW_GROUP if "images" in read_schema(path).names else 4096
    report = FileReport(path)
    for number, row in enumerate(iter_rows(path, batch=batch)):
        if limit is not None and number >= limit:
            break
        try:
            check_row(row, report)
        except SftrlError as error:
            raise SftrlError(f"{path}: row {number}: {error}") from None
    return report


def check_row(row: dict[str, Any], report: FileReport) -> None:
    """Check one row and count it; see `validate_file`.

    Raises:
        SftrlError: naming the column, what was found and expected.
    """
    _check_row(row, report)
    report.rows += 1
    report.splits[row["extra_info"]["split"]] += 1


_MAY_BE_NULL = ("ability", "images", "messages", "train_turns")
"""Columns that may be null as a whole; a picture may also lack its bytes or its path."""


def _check_nulls(value: Any, column: str) -> None:
    """Refuse a value that is null, or has a null anywhere in it."""
    if value is None:
        raise SftrlError(f"column {column!r} is null; expected a value.")
    if isinstance(value, dict):
        for name, field_value in value.items():
            _check_nulls(field_value, f"{column}.{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_nulls(item, f"{column}[{number}]")


def _check_row(row: dict[str, Any], report: FileReport) -> None:
    for column, value in row.items():
        if column != "images" and not (value is None and column in _MAY_BE_NULL):
            _check_nulls(value, column)
    for column in ("data_source", "agent_name", "prompt", "reward_model", "extra_info"):
        if not row[column]:
            raise SftrlError(f"column {column!r} is empty.")
    text = row["extra_info"]["facts"]
    if row["reward_model"]["ground_truth"] != text:
        raise SftrlError(
            "column 'reward_model.ground_truth' differs from 'extra_info.facts'; expected the same text."
        )
    facts = parse_facts(text, "column 'extra_info.facts'")
    imported = row["extra_info"]["split"] == IMPORTED
    turns = row["train_turns"] or []
    messages = row["messages"] or []
    for turn in turns:
        if not 0 <= turn < len(messages) or messages[turn]["role"] != "assistant":
            raise SftrlError(f"column 'train_turns' has {turn}, which is no assistant turn of 'messages'.")
    if messages and not turns:
        raise SftrlError(
            "column 'train_turns' is empty in a row with 'messages': nothing in it would be trained."
        )
    marked = [turn for turn, message in enumerate(messages) if message.get("loss_mask")]
    if "loss_mask" in next(iter(messages), {}) and marked != sorted(set(turns)):
        raise SftrlError(
            f"column 'messages' has a loss_mask at {marked}; expected the turns of 'train_turns', {turns}."
        )
    messages = [{"role": message["role"], "content": message["content"]} for message in messages]
    report.sft_rows += bool(messages)
    report.turns += len(turns)
    if imported and not facts:
        report.own_prompts += 1
        return
    episode = make_episode(facts)
    if imported:
        report.own_prompts += row["prompt"] != episode.messages()
        if messages:
            expect_correct(episode, messages[-1]["content"], len(messages) - 1)
        return
    _check_pictures(row, facts, episode, report)
    _same("prompt", row["prompt"], episode.messages())
    if messages:
        _replay(episode, messages, set(turns))


def _check_pictures(row: dict[str, Any], facts: dict[str, Any], episode: Episode, report: FileReport) -> None:
    """Compare the markers of the prompt and the pictures of the row with the pictures of the episode.

    Drawing takes longer than all the rest, so a row without pictures is drawn once per task and look.
    """
    given = row.get("images")
    look = json.dumps([facts.get(name) for name in ("task", "modality", "look")])
    if given is not None or look not in report._drawn:
        report._drawn[look] = len(episode.images())
    markers, wanted = count_markers(row["prompt"]), report._drawn[look]
    if markers != wanted:
        raise SftrlError(f"column 'prompt' has {markers} image markers, expected {wanted}.")
    if given is None:
        return
    if len(given) != wanted:
        raise SftrlError(f"column 'images' has {len(given)} pictures, expected {wanted}.")
    for index, (picture, drawn) in enumerate(zip(given, episode.images(), strict=True)):
        decoded = _decoded(picture and picture["bytes"], index)
        if decoded.size != drawn.size:
            raise SftrlError(
                f"column 'images': picture {index} has the size {_size(decoded)}, expected {_size(drawn)}."
            )
        if decoded.convert("RGB").tobytes() != drawn.tobytes():
            raise SftrlError(
                f"column 'images': picture {index} is not what the facts draw; expected the same pixels."
            )
    report.pictures += len(given)


def _decoded(data: bytes | None, index: int) -> Image:
    from PIL import Image

    if not data:
        raise SftrlError(f"column 'images': picture {index} has no bytes, expected a PNG file.")
    with picture_errors(f"column 'images': picture {index}", "a PNG file"):
        image = Image.open(io.BytesIO(data))
        image.load()
    return image


def _size(image: Image) -> str:
    return f"{image.width}x{image.height}"


def _replay(episode: Episode, messages: list[dict[str, str]], turns: set[int]) -> None:
    start = len(episode.messages())
    _same("messages", messages[:start], episode.messages())
    for turn in range(start, len(messages), 2):
        if episode.done:
            raise SftrlError(f"column 'messages' goes on at turn {turn}, after the end of the episode.")
        if turn in turns:
            step = expect_correct(episode, messages[turn]["content"], turn)
        else:
            step = episode.submit(messages[turn]["content"])
        if not step.new_prompt:
            _same("messages", messages[: turn + 2], episode.messages())
        elif turn + 1 < len(messages):
            raise SftrlError(
                f"column 'messages' goes on at turn {turn + 1}, where the episode begins a new prompt."
            )


def expect_correct(episode: Episode, answer: str, turn: int) -> Step:
    """Submit an answer that must be right.

    Raises:
        SftrlError: with its turn and its outcome if it is not.
    """
    step = episode.submit(answer)
    verdict = step.attempt.verdict
    if not verdict.correct:
        raise SftrlError(
            f"column 'messages': the answer at turn {turn} carries loss but is graded {verdict.outcome!r}: "
            f"{answer[:120]!r}; expected 'correct'."
        )
    return step


def _same(column: str, messages: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    for index, (have, want) in enumerate(zip(messages, expected, strict=False)):
        if have != want:
            raise SftrlError(f"column {column!r} has at message {index} {have}, expected {want}.")
    if len(messages) != len(expected):
        raise SftrlError(f"column {column!r} has {len(messages)} messages, expected {len(expected)}.")
