"""The Gymnasium environment ``sftrl/GeneralPoints-v0``: one hand per episode, one response text per step.

Reward: +5 correct, -1 wrong value, -2 wrong numbers, -3 illegal or unparsable, and -1 more on the last of
``max_attempts`` failed attempts; with cards shown as an image also -1.5 for cards not recognized. All
randomness comes from the environment's own generator, which ``reset(seed)`` seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.episode_env import EpisodeEnv, checked_options, verdict_info
from sftrl_ext.envs.general_points.cards import Card, parse_cards, suits_of
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings, as_look, make_facts
from sftrl_ext.envs.general_points.hands import DRAW_OF_PROFILE, Draw, HandSpec, draw_hands
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from sftrl_ext.envs.general_points.render import Look

_OPTIONS = ("cards", "suits")


class GeneralPointsEnv(EpisodeEnv[GeneralPointsEpisode]):
    """GeneralPoints with sequential revision; see the module.

    Observation: ``{"messages": [{"role": ..., "content": ...}, ...]}``, the dialogue so far. With images also
    ``"images"``, a list of RGB pictures of Pillow, one for each ``<image>`` in the user messages.
    Action: any text.

    Args:
        rule: Name of the card rule.
        modality: "text" or "image"; how the cards are shown.
        profile: "exact" or "authors".
        target: Number to reach.
        max_attempts: Attempts that are graded.
        suits: "mixed", "black" or "red".
        num_cards: Cards in a hand, 3 to 6.
        draw: "iid", "deck" or "authors"; by default "authors" under that profile, else "iid".
        need_face: Deal only hands with a J, Q or K.
        template: Name or path of the prompt template.
        exceeded_penalty: Added to the reward of the last failed attempt.
        look: How images are drawn, as a `Look` or its fields; only with modality "image".

    Raises:
        SftrlError: for an unknown name or a value out of range, with the nearest right one.
    """

    def __init__(
        self,
        rule: str = "face_10",
        modality: str = "text",
        profile: str = "exact",
        target: int = 24,
        max_attempts: int = 5,
        suits: str = "mixed",
        *,
        num_cards: int = 4,
        draw: Draw | None = None,
        need_face: bool = False,
        template: str = "default",
        exceeded_penalty: float = -1.0,
        look: Look | Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = PlaySettings(
            max_attempts,
            profile,
            template,
            modality,
            exceeded_penalty,
            None if look is None else as_look(look),
        )
        RULES[rule]  # an environment has one rule, not a family
        draw = draw or DRAW_OF_PROFILE[profile]
        self.spec_of_hands = HandSpec(rule, target, num_cards, draw, suits, need_face)
        drawn = self.settings.look
        super().__init__(None if drawn is None else (drawn.width, drawn.height))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Deal a hand.

        Args:
            seed: Seed of the deal; the same seed and options give the same episode.
            options: ``cards`` (a list such as ``["K", "5", "2", "4"]``; a card without a suit gets one at
                random) and ``suits`` ("mixed", "black" or "red", for this episode).

        Raises:
            SftrlError: if an option is unknown or the cards are no hand of this environment's rule.
        """
        super().reset(seed=seed)
        options = dict(checked_options(options, _OPTIONS))
        suits = options.get("suits", self.spec_of_hands.suits)
        letters = suits_of(suits)
        spec = self.spec_of_hands
        if options.get("cards") is None:
            spec = HandSpec(spec.rule, spec.target, spec.num_cards, spec.draw, suits, spec.need_face)
            cards = draw_hands(self.np_random, spec, 1)[0].cards
        else:
            given = parse_cards(options["cards"])
            if not 3 <= len(given) <= 6:
                raise SftrlError(f"options['cards'] has {len(given)} cards, expected 3 to 6.")
            RULES[spec.rule].numbers(given)
            picks = self.np_random.integers(len(letters), size=len(given))
            cards = tuple(
                Card(card.rank, card.suit or letters[pick]) for card, pick in zip(given, picks, strict=True)
            )
        image_seed = 0 if self.settings.look is None else int(self.np_random.integers(2**31))
        facts = make_facts(cards, spec.rule, spec.target, self.settings, image_seed)
        self._episode = GeneralPointsEpisode(facts)
        return self._observation(), self._info(None)

    def _info(self, verdict: Verdict | None) -> dict[str, Any]:
        episode = self.episode
        return {
            "cards": [card.rank for card in episode.cards],
            "suits": [card.suit for card in episode.cards],
            "numbers": list(episode.numbers),
            "target": episode.target,
            "rule": episode.rule.name,
            "attempt": len(episode.attempts),
            "solved": episode.solved,
            **verdict_info(verdict),
        }
