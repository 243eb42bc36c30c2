"""GeneralPoints: make a number, usually 24, from the numbers of a hand of cards.

Reading order: `cards`, `rules`, `solver`, `hands`, `formula`, `working`, `answer`, `verifier` and `authors`,
`prompts`, `render` (pictures of hands), `episode`, `env`.
"""

from __future__ import annotations

from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.cards import RANKS, SUITS, Card, parse_cards
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings, make_facts
from sftrl_ext.envs.general_points.hands import Hand, HandSpec, draw_hand, hand_at, hand_block, is_held_out
from sftrl_ext.envs.general_points.prompts import PromptTemplate, expert_answer, load_template
from sftrl_ext.envs.general_points.rules import RULES, Rule, register_rule
from sftrl_ext.envs.general_points.solver import is_solvable, solve
from sftrl_ext.envs.general_points.verifier import grade, grade_response

__all__ = [
    "RANKS",
    "RULES",
    "SUITS",
    "Card",
    "GeneralPointsEpisode",
    "Hand",
    "HandSpec",
    "PlaySettings",
    "PromptTemplate",
    "Rule",
    "draw_hand",
    "expert_answer",
    "facts_text",
    "grade",
    "grade_response",
    "hand_at",
    "hand_block",
    "is_held_out",
    "is_solvable",
    "load_template",
    "make_facts",
    "parse_cards",
    "register_rule",
    "solve",
]
