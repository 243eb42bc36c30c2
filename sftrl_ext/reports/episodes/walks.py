"""Episodes on routes: the points of the rail, with the answers and verdicts at each.

The rail is rebuilt from the stored facts. The outcomes alone give the point of each answer, since the next
point follows a right one; so an older episode that stores only the answers at the last point has a walk too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sftrl_ext.envs  # noqa: F401  (registers the tasks)
from sftrl_ext.envs.route_view import RoutePoint, RouteView
from sftrl_ext.envs.task import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.episodes.dialogues import Line, dialogue
from sftrl_ext.runs.records import SampleEpisode

FIRST, LATER, FAILED, CUT, AHEAD = "right at once", "right after feedback", "wrong", "cut off", "not reached"
"""States of a point: answered right by the first response or a later one, failed, left open because the token
budget ended the episode, or never reached."""

NOT_STORED = "(this answer is not stored)"


@dataclass(frozen=True)
class Visit:
    """One point of a route and what was answered there.

    Attributes:
        number: The point of the rail, counted from 1 as in the prompts.
        point: Where it is and what is right there.
        state: What became of it; see `FIRST`.
        lines: The dialogue there.
    """

    number: int
    point: RoutePoint
    state: str
    lines: tuple[Line, ...] = ()

    @property
    def answers(self) -> tuple[Line, ...]:
        """The model's answers."""
        return tuple(line for line in self.lines if line.role == "assistant")


@dataclass(frozen=True)
class Walk:
    """An episode on its route.

    Attributes:
        visits: Every point of the rail from the first of the episode on.
        view: The route.
        solved: True if the route was walked to its end.
    """

    visits: tuple[Visit, ...]
    view: RouteView
    solved: bool

    @property
    def reached(self) -> tuple[Visit, ...]:
        """The points with an answer."""
        return tuple(visit for visit in self.visits if visit.state != AHEAD)

    def action(self, answer: Line) -> str | None:
        """Action of an answer, as in `RouteView.read_action`."""
        return self.view.read_action(answer.content)

    @property
    def points(self) -> int:
        """Number of points of the rail."""
        return self.visits[-1].number

    @property
    def verdict(self) -> str:
        """Outcome of the walk as text."""
        if self.solved:
            return f"solved: all {len(self.visits)} points right"
        last = self.reached[-1] if self.reached else self.visits[0]
        if last.state == FAILED:
            times = len(last.answers)
            return f"not solved: ended at point {last.number} of {self.points}" + (
                f", wrong {'twice' if times == 2 else f'{times} times'}" if times > 1 else ""
            )
        return f"not solved: cut off at point {last.number} of {self.points}"

    def heading(self, visit: Visit) -> str:
        """Description of a point: number, heading, right action, and its observation with images."""
        point = visit.point
        facts = [
            f"point {visit.number} of {self.points}",
            f"facing {point.facing} ({point.heading:.0f}°)",
            f"right: {point.action}",
        ]
        if self.view.image:
            facts.append(f"to see: {point.observation}")
        return one_line(" · ".join(facts))


@dataclass(frozen=True)
class Part:
    """A part of an episode's dialogue: of a route a point that was reached, else the whole.

    Attributes:
        heading: What is known of the point, in words; "" for the whole of an episode that is no route.
        lines: The dialogue.
        visit: The point.
    """

    heading: str
    lines: tuple[Line, ...]
    visit: Visit | None = None


def parts(episode: SampleEpisode, walk: Walk | None, skip: int = 0) -> list[Part]:
    """Cut an episode's dialogue into its parts.

    Args:
        episode: The episode.
        walk: Its walk, if it is on a route.
        skip: How many of the first stored messages to leave out.
    """
    if walk is None:
        return [Part("", tuple(dialogue(episode))[skip:])]
    reached = walk.reached
    begins = 0 if episode.segments else len(reached) - 1  # an older record has the last prompt only
    return [
        Part(walk.heading(visit), visit.lines[skip if number == begins else 0 :], visit)
        for number, visit in enumerate(reached)
    ]


def short(action: str) -> str:
    """An action in plain words: ``turn_direction(north)`` is "turn north"."""
    inside = re.fullmatch(r"turn_direction\((.+)\)", action)
    return f"turn {inside[1]}" if inside else action.removesuffix("()")


def walk_of(episode: SampleEpisode) -> Walk | None:
    """Place an episode on its route; None for one of another task, or if its facts do not suffice."""
    task = str(episode.facts.get("task"))
    build_view = TASKS[task].route_view if task in TASKS else None
    if build_view is None:
        return None
    try:
        view = build_view(episode.facts)
    except (SftrlError, OSError):
        return None
    placed = _placed(episode, view.first, view.first + len(view.points) - 1)
    visits = []
    for index, point in enumerate(view.points, start=view.first):
        lines = placed.get(index, ())
        visits.append(Visit(index + 1, point, _state(lines, view.max_attempts), tuple(lines)))
    return Walk(tuple(visits), view, episode.solved)


def _placed(episode: SampleEpisode, first: int, last: int) -> dict[int, list[Line]]:
    """The lines of an episode by the point they belong to."""
    placed: dict[int, list[Line]] = {}
    if episode.segments:
        for line in dialogue(episode):
            placed.setdefault(first if line.point is None else line.point, []).append(line)
        return placed
    here = first
    for attempt in episode.attempts:
        outcome, reward = attempt.get("outcome"), attempt.get("reward")
        number = float(reward) if isinstance(reward, int | float) else None
        placed.setdefault(here, []).append(Line("assistant", NOT_STORED, one_line(str(outcome)), number))
        if outcome == "correct" and here < last:
            here += 1
    stored = list(dialogue(episode))
    if placed and sum(line.role == "assistant" for line in stored):
        placed[max(placed)] = stored
    return placed


def _state(lines: Sequence[Line], most: int) -> str:
    answers = [line for line in lines if line.role == "assistant"]
    if not answers:
        return CUT if lines else AHEAD
    if answers[-1].outcome == "correct":
        return FIRST if len(answers) == 1 else LATER
    return FAILED if len(answers) >= most else CUT
