"""Grade the answer at one point: the outcome, the reward and a sentence of feedback.

================== ====== =============================================================================
outcome            reward when
================== ====== =============================================================================
correct              +1   the action is the right one, whatever the observation says
unparsable           -1   there is no action in the response
wrong_observation  -1.5   the action is wrong, and the observation is not what is there to see
wrong_action         -1   the action is wrong
================== ====== =============================================================================

Under the profile ``exact`` an action may be spelled in any usual way, and the observation is compared with
what there is: whether it is an intersection and, with street views, the name of the landmark.

Under ``authors`` the action's text has to be the expected one to the letter, and an observation is wrong if
"intersection" is in it and not in the point's landmark text, or the reverse. That text does not say so at
real intersections, so there a right observation beside a wrong action costs -1.5. The response is read as
JSON from end to end, else by the first ``"action": "..."`` and ``"current observation": "..."``; what is
missing is the text ``None``. Where the original stops with an exception (an observation that is a number) the
response is unparsable.

Neither raises for any text, and both take bounded time. Feedback never tells the right action.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sftrl_ext.envs.answer import first_quoted, whole_json
from sftrl_ext.envs.base import Finding, Verdict
from sftrl_ext.envs.virl.answer import Answer, extract_answer, normalize_action
from sftrl_ext.envs.virl.rail import ACTION_SPACES, FORWARD, PROFILES, STOP, Point, turn_action
from sftrl_ext.errors import unknown_name

OUTCOMES: tuple[str, ...] = ("correct", "wrong_action", "wrong_observation", "unparsable")
"""Every outcome the verifier can give."""

REWARDS: dict[str, float] = {
    "correct": 1.0,
    "wrong_action": -1.0,
    "wrong_observation": -1.5,
    "unparsable": -1.0,
}
"""Outcome to reward: appendix B.3 of arXiv 2501.17161."""

MODALITIES: tuple[str, ...] = ("text", "image")
"""Forms of an observation: text or street views."""

QUOTED = 200
"""Most characters of a claim that are repeated in details."""

_READ = 20_000
_NO_LANDMARK = re.compile(r"\bno landmarks?\b")
# A negation up to 40 characters before the word, in the same clause.
_DENIED = re.compile(r"(?:\b(?:no|not|without|never|neither)|n['’]t)\b[^.,;!?\n]{0,40}?\bintersections?\b")
_WORDS = re.compile(r"[^\W_]+")
_WHERE = re.compile(
    r"\s+(?:is|are|lies|stands)\s+(?:on|at|in|to|ahead|behind|directly|straight|right|left|near|just)\b.*",
    re.IGNORECASE | re.DOTALL,
)


def grade_response(
    text: str,
    point: Point,
    *,
    profile: str = "exact",
    modality: str = "text",
    action_space: str = "absolute",
    landmarks: Sequence[str] = (),
) -> Verdict:
    """Grade a whole response.

    Args:
        text: What the model wrote; any text.
        point: Where the traveller is.
        profile: "exact" or "authors".
        modality: "image" if what is there has to be seen in street views, else "text".
        action_space: "absolute" or "relative"; what feedback calls an action.
        landmarks: The landmarks of the whole route: naming one that is not here is a wrong observation.

    Returns:
        The verdict. Its details: ``observation``, ``instruction``, ``action`` (what the response claims, None
        if absent), ``intersection_right`` (it says whether this is an intersection), ``landmark_right`` (it
        names the landmark that is here, and no other) and ``recognized`` (there is an observation, and both).

    Raises:
        SftrlError: if the profile, the modality or the action space is unknown.
    """
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    if action_space not in ACTION_SPACES:
        raise unknown_name("action space", action_space, ACTION_SPACES)
    if profile == "authors":
        return _grade_as_authors(text, point, landmarks)
    answer = extract_answer(text)
    details = _claims(answer, point, landmarks)
    if answer.action is None or not answer.action.strip():
        return _verdict("unparsable", "The response holds no answer object with an action.", details)
    action = normalize_action(answer.action)
    if action == point.action:
        return _verdict("correct", "The action is right.", details)
    if not details["intersection_right"]:
        claim = "an intersection" if point.at_intersection else "no intersection"
        feedback = f"There is {claim} here; the observation is wrong."
        return _wrong_about_intersection(feedback, details, point.at_intersection)
    if modality == "image" and not details["landmark_right"]:
        wrong = "does not name the landmark that is here" if point.landmark else "names a landmark not here"
        return _verdict("wrong_observation", f"The observation {wrong}.", details)
    actions = ACTION_SPACES[action_space]
    if action not in (FORWARD, STOP, *map(turn_action, actions)):
        feedback = (
            f"That is not one of the actions: forward(), turn_direction(x), stop(); x: {', '.join(actions)}."
        )
    else:
        feedback = "The action is not right here."
    return _verdict("wrong_action", feedback, details)


def landmark_name(landmark: str) -> str:
    """The name in a clause such as "Corner Bakery is on your left"."""
    return _WHERE.sub("", landmark, count=1)


def _verdict(outcome: str, feedback: str, details: dict[str, Any], reward: float | None = None) -> Verdict:
    return Verdict(outcome, REWARDS[outcome] if reward is None else reward, feedback, details)


def _wrong_about_intersection(feedback: str, details: dict[str, Any], present: bool) -> Verdict:
    """A wrong observation, with its direction as the finding.

    Args:
        feedback: The verdict's sentence.
        details: The verdict's details.
        present: True if there is an intersection, which the observation missed; else it claimed one.
    """
    finding = Finding("intersection_missed" if present else "intersection_claimed")
    return replace(_verdict("wrong_observation", feedback, details), findings=(finding,))


def _claims(answer: Answer, point: Point, landmarks: Sequence[str]) -> dict[str, Any]:
    """The details of a verdict."""
    claim = (answer.observation or "")[:_READ]
    here = point.landmark
    others = [landmark for landmark in landmarks if landmark != here]
    intersection = _says_intersection(claim, [here, *others] if here else others) == point.at_intersection
    padded = f" {_plain(claim)} "
    name = _plain(landmark_name(here)) if here else ""
    named = f" {name} " in padded
    # A name within the right one, such as "Park" in "Park Cafe", is no other landmark.
    rest = padded.replace(f" {name} ", "  ") if name else padded
    other = any(f" {_plain(landmark_name(landmark))} " in rest for landmark in others)
    landmark = not other and (named or here is None)
    return {
        "observation": answer.observation and answer.observation[:QUOTED],
        "instruction": answer.instruction and answer.instruction[:QUOTED],
        "action": answer.action and answer.action[:QUOTED],
        "intersection_right": intersection,
        "landmark_right": landmark,
        "recognized": answer.observation is not None and intersection and landmark,
    }


def _plain(text: str) -> str:
    """The words of a text, in lower case, with single blanks between."""
    return " ".join(_WORDS.findall(text.casefold()))


def _says_intersection(observation: str, landmarks: Sequence[str]) -> bool:
    """True if an observation claims an intersection; the word in a landmark's name does not count."""
    lowered = observation.lower()
    for landmark in landmarks:
        for part in (landmark, landmark_name(landmark)):
            if "intersection" in part.lower():
                lowered = lowered.replace(part.lower(), " ")
    return "intersection" in _DENIED.sub(" ", _NO_LANDMARK.sub(" ", lowered))


def _grade_as_authors(text: str, point: Point, landmarks: Sequence[str]) -> Verdict:
    fields = whole_json(text)

    def read(key: str) -> Any:
        return fields[key] if key in fields else first_quoted(text, key)

    action, observation = read("action"), read("current observation")
    claimed = [
        value if isinstance(value, str) else None
        for value in (observation, read("current instruction"), action)
    ]
    details = _claims(Answer(*claimed), point, landmarks)
    if action == point.action:
        return _verdict("correct", "The action is right.", details)
    if observation is None and "current observation" not in fields:
        observation = "None"
    if not isinstance(observation, (str, list, dict)):
        return _verdict("unparsable", "The observation in the answer is not a text.", details)
    says, at_intersection = "intersection" in observation, "intersection" in point.landmark_text
    if says != at_intersection:
        seen = "an intersection" if at_intersection else "no intersection"
        return _wrong_about_intersection(f"There is {seen} to observe here.", details, at_intersection)
    if not isinstance(action, str):
        return _verdict("unparsable", "The response holds no action in the form asked for.", details)
    return _verdict("wrong_action", "The action is not right here.", details)
