"""The file that keeps every finished episode of an evaluation, so that a stopped one can go on.

Its first line says of which model, data and settings it is; every further line is one episode. A line holds
the model's responses; verdicts are made of them again, so a file goes on only with a grader that agrees. An
episode that ended with an error is played again, and its later line counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.episode_records import stored_episode
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.files import append_durably, drop_torn_tail, read_jsonl
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.episode_files import FORMAT

_COUNTS = ("cut_turns", "prompt_tokens", "generated_tokens", "feedback_tokens", "prefill_tokens")
_FLAGS = ("out_of_tokens", "error")

Place = tuple[int, int]
"""Number of the set, and of the instance in it."""


def describe_data(sets: Sequence[EvalSet]) -> list[dict[str, object]]:
    """Source, size and digest of each set; the digest covers facts and first prompts."""
    described = []
    for chosen in sets:
        digest = hashlib.sha256()
        for facts in chosen.facts:
            digest.update(json.dumps([facts, make_episode(facts).messages()], sort_keys=True).encode())
        described.append(
            {
                "data_source": chosen.data_source,
                "episodes": len(chosen.facts),
                "sha256": digest.hexdigest()[:16],
            }
        )
    return described


class EpisodeLog:
    """A file open for one evaluation; `open_log` opens it.

    Attributes:
        path: The file.
        done: The episodes that are in it.
    """

    def __init__(
        self, path: Path, sets: Sequence[EvalSet], done: dict[Place, PlayedEpisode], file: TextIO
    ) -> None:
        self.path, self.done = path, done
        self._sets, self._file = sets, file

    def add(self, key: Place, played: PlayedEpisode) -> None:
        """Append one finished episode; it is on disk when this returns."""
        number, index = key
        chosen = self._sets[number]
        line = {
            "set": number,
            "split": chosen.split,
            "index": index,
            **stored_episode(chosen.facts[index], played),
            "responses": [step.attempt.response for step in played.steps],
            "extra": [dict(extra) for extra in played.extra],
            **{name: getattr(played, name) for name in (*_COUNTS, *_FLAGS)},
        }
        append_durably(self._file, json.dumps(line, ensure_ascii=False) + "\n")
        self.done[key] = played


@contextmanager
def open_log(path: Path, sets: Sequence[EvalSet], settings: Mapping[str, Any]) -> Iterator[EpisodeLog]:
    """Open the file, new or to go on with it; a last line that a kill cut short is dropped.

    Args:
        path: The file.
        sets: The instances.
        settings: What a file must agree in, JSON-like; `describe_data` is for the instances.

    Raises:
        SftrlError: if the file is of something else, is broken, or another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SftrlError(f"{path}: another evaluation is writing this file.") from None
        done: dict[Place, PlayedEpisode] = {}
        head = json.dumps({"format": FORMAT, **settings}, ensure_ascii=False) + "\n"
        if _is_beginning_of(path, head):
            file.truncate(0)
            append_durably(file, head)
        else:
            _check_head(path, json.loads(head))
            drop_torn_tail(path)
            done = _read(path, sets)
        yield EpisodeLog(path, sets, done, file)


def _is_beginning_of(path: Path, head: str) -> bool:
    """True for a file that is new, or was cut off within its first line."""
    first_line = head.encode()
    with path.open("rb") as file:
        start = file.read(len(first_line))
    return len(start) < len(first_line) and first_line.startswith(start)


def _check_head(path: Path, expected: Mapping[str, Any]) -> None:
    """Look at the first line alone, before anything of a file that may be foreign is changed."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        head = json.loads(line)
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise SftrlError(f"{path}: not a file of episodes ({FORMAT}); name another one.")
    for key in sorted(expected.keys() | head.keys()):
        if head.get(key) != expected.get(key):
            raise SftrlError(
                f"{path}: these episodes were played with {key} = {json.dumps(head.get(key))}; now it is "
                f"{json.dumps(expected.get(key))}. Name another file, or evaluate as before."
            )


def _read(path: Path, sets: Sequence[EvalSet]) -> dict[Place, PlayedEpisode]:
    done: dict[Place, PlayedEpisode] = {}
    for number, line in enumerate(read_jsonl(path), 1):
        if number == 1:
            continue
        try:
            if line["error"] is not None:
                continue
            key = int(line["set"]), int(line["index"])
            done[key] = _replay(sets[key[0]].facts[key[1]], line)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise SftrlError(
                f"{path}, line {number}: no episode of this evaluation, or one that this version grades "
                f"differently ({error}). Name another file."
            ) from None
    return done


def _replay(facts: Mapping[str, Any], line: Mapping[str, Any]) -> PlayedEpisode:
    """The episode of a line, its responses graded again."""
    episode = make_episode(facts)
    steps = [episode.submit(response) for response in line["responses"]]
    outcomes = [step.attempt.verdict.outcome for step in steps]
    if outcomes != [attempt["outcome"] for attempt in line["attempts"]]:
        raise RuntimeError(f"outcomes are now {outcomes}")
    return PlayedEpisode(
        steps=steps,
        messages=line["messages"],
        solved=episode.solved,
        metrics=episode.metrics(),
        extra=line["extra"],
        **{name: line[name] for name in (*_COUNTS, *_FLAGS)},
    )
