"""One game of GeneralPoints being played: prompt, responses, feedback, end.

Its attempts are a sequential revision, see `sftrl_ext.envs.revision`.

With the modality "image" the prompt holds a marker for one picture of the hand, and nothing that the model
reads names the cards or their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.general_points import TASK
from sftrl_ext.envs.general_points.cards import Card, parse_cards
from sftrl_ext.envs.general_points.prompts import OUTCOMES, TEMPLATES, load_template
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.envs.revision import RevisionEpisode, check_attempts
from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from sftrl_ext.envs.general_points.render import Look

PROFILES: tuple[str, ...] = ("exact", "authors")
"""Graders."""

MODALITIES: tuple[str, ...] = ("text", "image")
"""Presentations of the cards."""


@dataclass(frozen=True)
class PlaySettings:
    """Settings of an episode, apart from the hand itself.

    Attributes:
        max_attempts: Attempts that are graded.
        profile: "exact" or "authors"; which grader.
        template: Name or path of the prompt template; a path is made absolute.
        modality: "text" or "image"; how the cards are shown.
        exceeded_penalty: Added to the reward of the last failed attempt.
        look: How an image is drawn, as a `Look` or its fields; `Look()` if not given. None for text.
    """

    max_attempts: int = 5
    profile: str = "exact"
    template: str = "default"
    modality: str = "text"
    exceeded_penalty: float = -1.0
    look: Look | None = None

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise unknown_name("profile", self.profile, PROFILES)
        if self.modality not in MODALITIES:
            raise unknown_name("modality", self.modality, MODALITIES)
        check_attempts(self.max_attempts, self.exceeded_penalty)
        template = load_template(self.template)
        if self.modality == "image":
            template.check_image()
            object.__setattr__(self, "look", as_look(self.look))
        elif self.look is not None:
            raise SftrlError(f"look is given with modality {self.modality!r}; expected modality 'image'.")
        if self.template not in TEMPLATES:  # a row must find the file from any working directory
            object.__setattr__(self, "template", str(Path(self.template).expanduser().resolve()))


def as_look(look: Look | Mapping[str, Any] | None) -> Look:
    """A look from a look, from its fields, or the default one.

    Raises:
        SftrlError: if a field is unknown or its value is.
    """
    from sftrl_ext.envs.general_points.render import Look  # text needs no Pillow

    if look is None or isinstance(look, Look):
        return look or Look()
    if not isinstance(look, Mapping):
        raise SftrlError(f"look is {look!r}, expected a Look or its fields, such as {{'table': 'green'}}.")
    for key in look:
        if key not in Look.__dataclass_fields__:
            raise unknown_name("field of look", key, Look.__dataclass_fields__)
    return Look(**look)


def make_facts(
    cards: Sequence[Card | str],
    rule: str = "face_10",
    target: int = 24,
    settings: PlaySettings | None = None,
    image_seed: int = 0,
) -> dict[str, Any]:
    """The JSON-able facts that rebuild an episode; `facts_text` makes the text a row carries of them.

    Args:
        cards: The hand.
        rule: Name of the card rule.
        target: The number to reach.
        settings: How the hand is played.
        image_seed: Seed of what varies in the picture; only an image has it.
    """
    play = asdict(settings or PlaySettings())
    image = {"image_seed": image_seed}
    if play["modality"] != "image":
        del play["look"]
        image = {}
    # The cards, and after them the seed of the picture, come last: builders of rows fill in JSON up to there.
    hand = {"cards": [str(card) for card in cards]}
    return {"task": TASK, "rule": rule, "target": target, **play, **hand, **image}


_KEYS = frozenset({"task", "rule", "target", "cards", "image_seed", *PlaySettings.__dataclass_fields__})


class GeneralPointsEpisode(RevisionEpisode):
    """One hand being played; see the module for the rules of the game.

    Args:
        facts: What `make_facts` gives. Only ``cards`` must be there; the rest has defaults.

    Raises:
        SftrlError: if a fact is missing, unknown or malformed.
    """

    outcomes = OUTCOMES

    def __init__(self, facts: Mapping[str, Any]) -> None:
        for key in facts:
            if key not in _KEYS:
                raise unknown_name("fact", key, _KEYS)
        if "cards" not in facts:
            raise SftrlError(
                f"the fact 'cards' is missing; found {', '.join(map(str, facts)) or 'no facts'}."
            )
        self.settings = PlaySettings(
            **{k: v for k, v in facts.items() if k in PlaySettings.__dataclass_fields__}
        )
        self.cards = parse_cards(facts["cards"])
        self.rule = RULES[facts.get("rule", "face_10")]
        self.numbers = self.rule.numbers(self.cards)
        target = facts.get("target", 24)
        if isinstance(target, bool) or not isinstance(target, int):
            raise SftrlError(f"the fact 'target' is {target!r}, expected a whole number.")
        self.target: int = target
        self.image_seed = self._checked_image_seed(facts)
        self.template = load_template(self.settings.template)
        self._ranks = [card.rank for card in self.cards]
        self._cards_text = self.template.cards(self.cards)
        self._numbers_text = ", ".join(map(str, self.numbers))
        play = self.settings
        opening = self.template.opening(self.cards, self.rule, target, play.max_attempts, play.modality)
        super().__init__(opening, play.max_attempts, play.exceeded_penalty)
        self._images: tuple[Image, ...] | None = None

    def _checked_image_seed(self, facts: Mapping[str, Any]) -> int:
        """The seed of the picture, after a look at whether there can be one."""
        if self.settings.modality != "image":
            if "image_seed" in facts:
                raise SftrlError("the fact 'image_seed' is given with modality 'text'; expected 'image'.")
            return 0
        for card in self.cards:
            if not card.suit:
                raise SftrlError(
                    f"the card {card.rank!r} has no suit; an image needs one, as in '{card.rank}S'."
                )
        if self.settings.profile == "authors" and len(self.cards) != 4:
            raise SftrlError(
                f"the hand has {len(self.cards)} cards; in an image profile 'authors' recognizes exactly 4."
            )
        seed = facts.get("image_seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise SftrlError(f"the fact 'image_seed' is {seed!r}, expected a whole number >= 0.")
        return seed

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that rebuild this episode at its start."""
        return make_facts(self.cards, self.rule.name, self.target, self.settings, self.image_seed)

    def images(self) -> Sequence[Image]:
        """The picture of the hand, drawn at the first call; nothing with modality "text"."""
        if self._images is None:
            self._images = (self._draw(),) if self.settings.modality == "image" else ()
        return self._images

    def _draw(self) -> Image:
        from sftrl_ext.envs.general_points.render import draw_hand

        return draw_hand(self.cards, as_look(self.settings.look), self.image_seed)

    def grade(self, response: str) -> Verdict:
        """Grade a response, with the template's feedback, without advancing."""
        verdict = grade_response(
            response,
            cards=self._ranks,
            numbers=self.numbers,
            target=self.target,
            profile=self.settings.profile,
            modality=self.settings.modality,
        )
        feedback = self.template.feedback_text(
            verdict, cards=self._cards_text, numbers=self._numbers_text, target=self.target
        )
        return replace(verdict, feedback=feedback)

    def reply(self, feedback: str, attempt: int) -> str:
        """See `RevisionEpisode`."""
        return self.template.reply(feedback, attempt, self.settings.max_attempts, self.target)

    def metrics(self) -> dict[str, float]:
        """See `RevisionEpisode`.

        With images also ``recognized`` and ``number_right``, the shares of the attempts that name the right
        cards and the right numbers.
        """
        numbers, attempts = super().metrics(), len(self.attempts)
        if self.settings.modality == "image":
            for claim in ("recognized", "number_right"):
                count = sum(bool(attempt.verdict.details.get(claim)) for attempt in self.attempts)
                numbers[claim] = count / attempts if attempts else 0.0
        return numbers
