"""One route being walked: a prompt at each point, responses, verdicts, feedback, and on to the next point.

At a point the model sees the prompt followed by its failed responses there and their feedback. A wrong action
is not executed. After the right one the prompt is built anew at the next point (`Step.new_prompt`), with
everything before as lines of history. The episode ends when the last point's ``stop()`` is given (terminated:
the route is solved) or when ``max_attempts`` responses at one point failed (truncated: the whole route has
failed); that last one also receives ``exceeded_penalty``.

With the modality "image" the prompt holds a marker for one picture, four views from the point, and names what
is observed there only by the note of an intersection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftrl_ext.envs.base import Attempt, Episode, Message, Step, Verdict, is_number
from sftrl_ext.envs.virl import TASK
from sftrl_ext.envs.virl.geo import shown
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.prompts import TEMPLATES, expert_answer, load_template
from sftrl_ext.envs.virl.rail import ACTION_SPACES, PROFILES, Point, draw_rail
from sftrl_ext.envs.virl.routes import Route
from sftrl_ext.envs.virl.track import POINTS_PER_LEG, Track, lay_track, read_track
from sftrl_ext.envs.virl.verifier import MODALITIES, OUTCOMES, grade_response
from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from sftrl_ext.envs.virl.street_view import StreetViews

IMAGE_SIZE = 1200
"""Default side of a picture in pixels."""


@dataclass(frozen=True)
class PlaySettings:
    """Settings of a walk, apart from the route itself.

    Attributes:
        action_space: "absolute" or "relative"; the words of a turn.
        max_attempts: Attempts that are graded at each point.
        profile: "exact" or "authors"; how turns are worded, and which grader.
        template: Name or path of the prompt template; a path is made absolute.
        modality: "text" or "image"; how what is to be observed is shown.
        exceeded_penalty: Added to the reward of the failed attempt that ends the route.
        drop_rate: Probability that a point between milestones is left out.
        street_views: Folder of the panoramas; it is made absolute. None for text.
        image_size: Side of a picture in pixels; None for text.
    """

    action_space: str = "absolute"
    max_attempts: int = 2
    profile: str = "exact"
    template: str = "default"
    modality: str = "text"
    exceeded_penalty: float = -1.0
    drop_rate: float = 0.5
    street_views: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.action_space not in ACTION_SPACES:
            raise unknown_name("action space", self.action_space, ACTION_SPACES)
        if self.profile not in PROFILES:
            raise unknown_name("profile", self.profile, PROFILES)
        if self.modality not in MODALITIES:
            raise unknown_name("modality", self.modality, MODALITIES)
        _check_count("max_attempts", self.max_attempts)
        if not is_number(self.exceeded_penalty):
            raise SftrlError(f"exceeded_penalty is {shown(self.exceeded_penalty)}, expected a number.")
        if not is_number(self.drop_rate) or not 0 <= self.drop_rate <= 1:
            raise SftrlError(f"drop_rate is {shown(self.drop_rate)}, expected a number from 0 to 1.")
        template = load_template(self.template)
        if self.modality == "image":
            template.check_image()
            if self.street_views is None:
                raise SftrlError("modality 'image' needs street_views, the folder of the panoramas.")
            object.__setattr__(self, "street_views", str(Path(self.street_views).expanduser().resolve()))
            object.__setattr__(self, "image_size", IMAGE_SIZE if self.image_size is None else self.image_size)
            _check_count("image_size", self.image_size)
        else:
            for name in ("street_views", "image_size"):
                if getattr(self, name) is not None:
                    raise SftrlError(f"{name} is given with modality 'text'; expected modality 'image'.")
        if self.template not in TEMPLATES:  # a row must find the file from any working directory
            object.__setattr__(self, "template", str(Path(self.template).expanduser().resolve()))


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SftrlError(f"{name} is {shown(value)}, expected a whole number >= 1.")


@lru_cache(maxsize=2)
def _views(folder: str) -> StreetViews:
    """One reader for each folder, so that episodes share what it keeps in memory."""
    from sftrl_ext.envs.virl.street_view import StreetViews  # text needs no Pillow

    return StreetViews(folder)


def track_of(
    route: Route,
    settings: PlaySettings,
    panoramas: PanoramaMap | None = None,
    points_per_leg: int = POINTS_PER_LEG,
    missing_panorama: str = "error",
    on_skip: Callable[[str], None] | None = None,
) -> Track:
    """The track of a route; with images, a panorama whose picture is not in the folder counts as missing.

    Raises:
        SftrlError: if a panorama is missing, or images are asked for without a map of panoramas.
    """
    usable = None
    if settings.street_views is not None:
        if panoramas is None:
            raise SftrlError("modality 'image' needs gps_to_pano, the map from points to panoramas.")
        folder = Path(settings.street_views)
        if not folder.is_dir():
            raise SftrlError(f"{folder}: no such folder of panoramas (street_views).")

        def usable(pano_id: str) -> bool:
            return (folder / f"{pano_id}.jpg").is_file()

    return lay_track(
        route,
        panoramas,
        points_per_leg=points_per_leg,
        missing=missing_panorama,
        usable=usable,
        on_skip=on_skip,
    )


def make_facts(
    track: Track, settings: PlaySettings | None = None, rail_seed: int = 0, first_point: int = 0
) -> dict[str, Any]:
    """The JSON-able facts that rebuild an episode; `facts_text` makes the text a row carries of them.

    Args:
        track: The route with its places; see `track_of`.
        settings: How it is walked.
        rail_seed: Seed of the rail: which points are left out, and a random first heading.
        first_point: The point of the rail at which the episode begins, with everything before done right;
            above 0 in the rows of an expert's answers.
    """
    play = asdict(settings or PlaySettings())
    if play["modality"] != "image":
        del play["street_views"], play["image_size"]
    begin = {"first_point": first_point} if first_point else {}
    return {"task": TASK, **play, "rail_seed": rail_seed, "route": track.facts(), **begin}


_KEYS = frozenset({"task", "route", "rail_seed", "first_point", *PlaySettings.__dataclass_fields__})


class NavigationEpisode(Episode):
    """One route being walked; see the module for the rules.

    Args:
        facts: What `make_facts` gives. Only ``route`` must be there; the rest has defaults.

    Raises:
        SftrlError: if a fact is missing, unknown or malformed.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        for key in facts:
            if key not in _KEYS:
                raise unknown_name("fact", key, _KEYS)
        if "route" not in facts:
            raise SftrlError(
                f"the fact 'route' is missing; found {', '.join(map(str, facts)) or 'no facts'}."
            )
        self.settings = PlaySettings(
            **{k: v for k, v in facts.items() if k in PlaySettings.__dataclass_fields__}
        )
        seed = facts.get("rail_seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise SftrlError(f"the fact 'rail_seed' is {shown(seed)}, expected a whole number >= 0.")
        self.rail_seed: int = seed
        self.track = read_track(facts["route"])
        if self.settings.modality == "image" and any(
            waypoint.pano_id is None for waypoint in self.track.waypoints
        ):
            raise SftrlError(
                "the fact 'route' has a waypoint without a panorama; modality 'image' needs one."
            )
        self.template = load_template(self.settings.template)
        self.rail = draw_rail(
            self.track,
            np.random.default_rng(seed),
            drop_rate=self.settings.drop_rate,
            action_space=self.settings.action_space,
            profile=self.settings.profile,
            note=self.template.note,
        )
        self._landmarks = tuple([leg.landmark for leg in self.track.legs if leg.landmark])
        first = facts.get("first_point", 0)
        if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < len(self.rail.points):
            raise SftrlError(
                f"the fact 'first_point' is {shown(first)}, expected a whole number from 0 to "
                f"{len(self.rail.points) - 1}, a point of the rail."
            )
        self.attempts: list[Attempt] = []
        self.first_point: int = first
        self.position: int = first
        self._failed_here = 0
        self._rights = 0
        self._first_rights = 0
        self._rewards = 0.0
        self._images: tuple[Image, ...] | None = None
        self._messages = self._opening()

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that rebuild this episode at its start."""
        return make_facts(self.track, self.settings, self.rail_seed, self.first_point)

    @property
    def point(self) -> Point:
        """Point at which the traveller is."""
        return self.rail.points[self.position]

    @property
    def tries(self) -> int:
        """Number of failed attempts at this point."""
        return self._failed_here

    @property
    def history(self) -> str:
        """The lines O_i and A_i up to here."""
        return self.template.history(self.rail.points[: self.position + 1], self.settings.modality)

    def expert_answer(self) -> str:
        """A right answer at this point."""
        return expert_answer(self.template, self.rail, self.position)

    def messages(self) -> list[Message]:
        """The dialogue at this point; it ends with the user message that waits, or the last answer."""
        return [dict(message) for message in self._messages]

    def images(self) -> Sequence[Image]:
        """The four views from this point, drawn at the first call; nothing with modality "text"."""
        if self._images is None:
            self._images = ()
            if self.settings.street_views is not None and self.settings.image_size is not None:
                pano_id = self.point.pano_id or ""
                views = _views(self.settings.street_views)
                profile, size = self.settings.profile, self.settings.image_size
                self._images = (views.grid(pano_id, self.point.heading, profile, size=size),)
        return self._images

    def grade(self, response: str) -> Verdict:
        """Grade a response at this point, with the template's feedback, without advancing."""
        verdict = grade_response(
            response,
            self.point,
            profile=self.settings.profile,
            modality=self.settings.modality,
            action_space=self.settings.action_space,
            landmarks=self._landmarks,
        )
        feedback = self.template.feedback_text(verdict)
        return replace(verdict, feedback=feedback)

    def submit(self, response: str) -> Step:
        """Grade one response and advance.

        Raises:
            RuntimeError: if the episode is over.
        """
        if self.done:
            raise RuntimeError("the episode is over: no further response can be submitted.")
        verdict = self.grade(response)
        attempt = Attempt(response, verdict)
        self.attempts.append(attempt)
        self._messages.append({"role": "assistant", "content": response})
        if verdict.correct:
            return self._advance(attempt)
        self._failed_here += 1
        most = self.settings.max_attempts
        truncated = self._failed_here >= most
        reward = verdict.reward + (self.settings.exceeded_penalty if truncated else 0.0)
        self._rewards += reward
        reply = None
        if not truncated:
            reply = self.template.reply(verdict.feedback, self._failed_here, most)
            self._messages.append({"role": "user", "content": reply})
        return Step(attempt, reward, terminated=False, truncated=truncated, reply=reply)

    def _advance(self, attempt: Attempt) -> Step:
        """Go on to the next point after the right action."""
        reward = attempt.verdict.reward
        self._rewards += reward
        self._rights += 1
        self._first_rights += self._failed_here == 0
        if not self.solved:
            self.position += 1
            self._failed_here = 0
            self._images = None
            self._messages = self._opening()
        return Step(attempt, reward, terminated=self.solved, truncated=False, new_prompt=not self.solved)

    def _opening(self) -> list[Message]:
        settings = self.settings
        return self.template.opening(
            self.rail, self.position, settings.action_space, settings.max_attempts, settings.modality
        )

    @property
    def _points(self) -> int:
        """Number of points to walk."""
        return len(self.rail.points) - self.first_point

    @property
    def solved(self) -> bool:
        """True if the right action was given at every point from the first on."""
        return self._rights == self._points

    @property
    def done(self) -> bool:
        """True if the episode is over."""
        return self.solved or self._failed_here >= self.settings.max_attempts

    def metrics(self) -> dict[str, float]:
        """Numbers about the episode.

        Returns:
            ``solved`` (the whole route), ``points`` (to walk), ``points_solved``, ``progress`` (their
            share), ``first_tries`` (points solved by the first attempt), ``attempts`` (all responses),
            ``correct_actions`` and ``responses``, whose sums over episodes give the per-step accuracy,
            ``step_accuracy`` (their share in this one), ``recognized`` (share of the responses whose
            observation is right), ``recognized_responses`` (how many those are), ``reward_total``, and for
            every outcome ``outcome/<name>``, its share of the responses. Shares are 0 before the first
            response.
        """
        attempts = len(self.attempts)
        outcomes = Counter(attempt.verdict.outcome for attempt in self.attempts)
        seen = sum(bool(attempt.verdict.details.get("recognized")) for attempt in self.attempts)
        numbers = {
            "solved": float(self.solved),
            "points": float(self._points),
            "points_solved": float(self._rights),
            "progress": self._rights / self._points,
            "first_tries": float(self._first_rights),
            "attempts": float(attempts),
            "correct_actions": float(self._rights),
            "responses": float(attempts),
            "step_accuracy": self._rights / attempts if attempts else 0.0,
            "recognized": seen / attempts if attempts else 0.0,
            "recognized_responses": float(seen),
            "reward_total": self._rewards,
        }
        for outcome in OUTCOMES:
            numbers[f"outcome/{outcome}"] = outcomes[outcome] / attempts if attempts else 0.0
        return numbers
