"""Pictures of hands: every card is drawn here, with no font and no artwork from elsewhere.

Reading order: `shapes`, `letters`, `royals`, `decks`, `tables`, `arrange`, `draw`.
"""

from __future__ import annotations

from sftrl_ext.envs.general_points.render.arrange import ARRANGEMENTS, Arrangement, Spot
from sftrl_ext.envs.general_points.render.decks import DECKS, Deck, draw_card
from sftrl_ext.envs.general_points.render.draw import PAPER_LOOK, Look, draw_hand
from sftrl_ext.envs.general_points.render.tables import TABLES, Table

__all__ = [
    "ARRANGEMENTS",
    "DECKS",
    "PAPER_LOOK",
    "TABLES",
    "Arrangement",
    "Deck",
    "Look",
    "Spot",
    "Table",
    "draw_card",
    "draw_hand",
]
