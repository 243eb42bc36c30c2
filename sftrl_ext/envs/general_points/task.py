"""The card game as a registered task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Episode
from sftrl_ext.envs.general_points import TASK
from sftrl_ext.envs.general_points.cards import Card, parse_cards
from sftrl_ext.envs.task import EpisodeLengths, TaskSpec, register_task
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError

_RANKS = {"A": "ace", "J": "jack", "Q": "queen", "K": "king"}
_SUITS = {"S": "spades", "H": "hearts", "D": "diamonds", "C": "clubs"}

_COMPACT_RETRIES = {"text": 0.3, "image": 0.53}
"""Share of the further attempts by modality, counted in laptop runs: an episode of `fig6_gp_l` has 95 tokens,
one of `fig6_gp_vl` 150."""


def _episode(facts: Mapping[str, Any]) -> Episode:
    from sftrl_ext.envs.general_points.episode import (
        GeneralPointsEpisode,  # composing a recipe needs no numpy
    )

    return GeneralPointsEpisode(facts)


def _describe(facts: Mapping[str, Any]) -> str:
    """Name the cards of an image episode and its look.

    Example: ``king of spades, 5 of clubs, ... (classic deck, row, green table)``.
    """
    try:
        cards = parse_cards(facts["cards"])
    except (KeyError, TypeError, SftrlError):
        return ""
    fields = facts.get("look")
    look = fields if isinstance(fields, Mapping) else {}
    parts = [f"{look['deck']} deck"] if "deck" in look else []
    parts += [str(look["arrangement"])] if "arrangement" in look else []
    parts += [f"{look['table']} table"] if "table" in look else []
    return ", ".join(_card(card) for card in cards) + (f" ({', '.join(parts)})" if parts else "")


def _card(card: Card) -> str:
    return f"{_RANKS.get(card.rank, card.rank)}" + (f" of {_SUITS[card.suit]}" if card.suit else "")


def _lengths(config: TaskConfig) -> EpisodeLengths:
    """Of `compact`: the tokens that laptop runs counted (`tokens.jsonl` of fig6_gp_l: 54 a row of SFT, 97 an
    episode). Of `default`: 147 words and signs of a prompt, 45 of an answer, counted over training rows; half
    of the further attempts is the mean of one attempt and the most. Working: counted over rows of four cards.
    Of `compact` with three cards: counted over rows and episodes of `beyond_unseen_rules` (60 a row of SFT,
    136 an episode).
    """
    if config.template == "compact" and config.modality == "text" and config.cards == 3:
        return EpisodeLengths(prompt=22.0, answer=22.7, feedback=5.5, retries=0.45, working=15.3)
    if config.template == "compact":
        retries = _COMPACT_RETRIES[config.modality]
        return EpisodeLengths(prompt=36.0, answer=18.0, feedback=16.0, retries=retries, working=31.0)
    return EpisodeLengths(working=31.0)


def _image_size(config: TaskConfig) -> tuple[int, int]:
    return int(config.look.get("width", 1200)), int(config.look.get("height", 1200))


def _deck_digest(config: TaskConfig) -> str | None:
    if config.modality != "image":
        return None
    from sftrl_ext.envs.general_points.episode import as_look
    from sftrl_ext.envs.general_points.render.decks import deck_digest

    return deck_digest(as_look(config.look).deck)


def _solution(details: Mapping[str, Any]) -> str:
    from sftrl_ext.envs.general_points.distinct import solution_key

    return solution_key(str(details["formula"]))


def _solutions(facts: Mapping[str, Any]) -> int:
    from sftrl_ext.envs.general_points.distinct import count_solutions
    from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode

    episode = GeneralPointsEpisode(facts)
    return count_solutions(episode.numbers, episode.target)


def _rules() -> dict[str, str]:
    """Statement of each card rule; a family's rows have rules of their own."""
    from sftrl_ext.envs.general_points.families import FAMILIES
    from sftrl_ext.envs.general_points.rules import RULES

    families = dict.fromkeys(FAMILIES, "A family: every row has a rule of its own.")
    return {name: RULES[name].statement for name in RULES} | families


def _trained_look(task: Mapping[str, Any]) -> str | None:
    suits = task.get("suits")
    if suits not in ("mixed", "red"):
        return None
    return f"Training shows {suits} suits: the red suits of `visual_ood` are nothing new in this run."


GENERAL_POINTS = register_task(
    TaskSpec(
        name=TASK,
        episode=_episode,
        rows="data_prep.hand_rows:HandRows",
        data_sources={"text": "gp_l", "image": "gp_vl"},
        titles={"gp_l": "GP-L", "gp_vl": "GP-VL"},
        rules=_rules,
        ability="arithmetic",
        wrong_answers=("", '{"formula": "1+"}', '{"formula": "1+1"}'),
        first_claims=("recognized", "number_right"),
        split_titles={
            "visual_ood": "OOD: red suits",
            "visual_ood_unseen": "OOD: red suits, held out",
        },
        looks={
            "visual_ood": "red suits",
            "visual_ood_unseen": "red suits, hands with numbers held out",
            "visual_ood_rotated": "cards turned a little",
            "visual_ood_overlap": "cards that overlap",
            "visual_ood_deck": "another deck",
            "visual_ood_table": "a blue table",
        },
        trained_look=_trained_look,
        describe=_describe,
        lengths=_lengths,
        image_size=_image_size,
        assets_digest=_deck_digest,
        solution=_solution,
        solutions=_solutions,
    )
)
