"""Splits: named kinds of hands, each with a data source of its own.

``seen`` and ``held_out`` are the two parts of the number multisets (by numbers, not by ranks): training draws
only from ``seen``. A new split is one line, here or in any other package::

    register_split("ood_all_3", rule="all_3", need_face=True, part="seen")
    register_split("visual_ood_wood", look={"table": "wood"}, hands_of="id", part="seen")

What a split says about its hands or its look is what it is about: changes asked for elsewhere leave it alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_prep.schema import data_source
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.envs.general_points.families import FAMILIES
from sftrl_ext.envs.general_points.hands import HandSpec
from sftrl_ext.envs.general_points.rules import DRAWN, RULES
from sftrl_ext.envs.general_points.task import GENERAL_POINTS
from sftrl_ext.errors import Registry, SftrlError, unknown_name

TRAIN_STREAM = "train"
"""Name of the random stream that training hands come from."""

TASK_OF = GENERAL_POINTS.data_sources
"""Modality to the task's name in data sources."""


@dataclass(frozen=True)
class Split:
    """A named set of hands.

    Attributes:
        name: Its name.
        hands: What kind of hands it holds.
        look: Fields of `Look` that it changes; only images have a look.
        about: Fields of ``hands`` that the split sets itself.
        hands_of: A split whose evaluation hands it shows in its own way: the two compare hand by hand.
    """

    name: str
    hands: HandSpec
    look: Mapping[str, Any] = field(default_factory=dict)
    about: frozenset[str] = frozenset()
    hands_of: str = ""

    def data_source(self, modality: str = "text") -> str:
        """Key that rewards and validation metrics go by: ``gp_l/<name>``, for images ``gp_vl/<name>``.

        Raises:
            SftrlError: if the modality is unknown.
        """
        return data_source(TASK_OF, modality, self.name)

    @property
    def stream(self) -> str:
        """Name of the random stream that evaluation hands come from; no training draw shares it."""
        return f"eval/{self.hands_of or self.name}"

    def changed(self, hands: Mapping[str, Any]) -> Split:
        """A copy with these hand fields overridden, except those the split itself defines.

        Args:
            hands: Fields of `HandSpec`.
        """
        about = self.about | ({"targets"} if "target" in self.about else set())
        return replace(self, hands=replace(self.hands, **{k: v for k, v in hands.items() if k not in about}))

    def settings(self, settings: PlaySettings) -> PlaySettings:
        """Play settings of the split: the given ones with the split's look.

        Raises:
            SftrlError: if the split is about the look of images, and cards are text or look so already.
        """
        if not self.look:
            return settings
        if settings.modality != "image":
            raise SftrlError(
                f"split {self.name!r} changes the look of images; expected modality 'image', "
                f"found {settings.modality!r}."
            )
        base = as_look(settings.look)
        look = replace(base, **self.look)
        if look == base:
            raise SftrlError(f"split {self.name!r} changes nothing: the look has {dict(self.look)} already.")
        return replace(settings, look=look)


SPLITS: Registry[Split] = Registry("split")
"""Split name to split."""

_TARGET = re.compile(r"ood_target_([0-9]{1,4})")


def register_split(
    name: str, *, look: Mapping[str, Any] | None = None, hands_of: str = "", **hands: Any
) -> Split:
    """File a split under its name.

    Args:
        name: The split's name.
        look: Fields of `Look` that it changes.
        hands_of: A split whose evaluation hands it shares.
        **hands: Fields of `HandSpec`.

    Raises:
        SftrlError: if the name is taken, or the rule, draw or suits are unknown.
    """
    split = Split(name, HandSpec(**hands), dict(look or {}), frozenset(hands), hands_of)
    SPLITS.add(name, split)
    return split


def get_split(name: str) -> Split:
    """The split of a name.

    Besides the registered ones, ``ood_target_<n>`` is known for every n, and the name of a card rule or of a
    family of rules is a split too: any hands under that rule, or each under a rule of the family, with seen
    number multisets, for training on a mixture of rules.

    Raises:
        SftrlError: if there is none, with the nearest name.
    """
    if name in SPLITS:
        return SPLITS[name]
    if name in FAMILIES or name in RULES or str(name).startswith(DRAWN):
        return Split(name, HandSpec(rule=name, part="seen"), about=frozenset({"rule", "part"}))
    match = _TARGET.fullmatch(str(name))
    if match:
        return Split(name, HandSpec(target=int(match.group(1))), about=frozenset({"target"}))
    raise unknown_name("split", name, [*SPLITS, *RULES, *FAMILIES, "ood_target_<n>"])


register_split("id", part="seen")
register_split("id_unseen", part="held_out")
register_split("rule_ood", rule="face_11_12_13", need_face=True, part="seen")
register_split("rule_ood_unseen", rule="face_11_12_13", need_face=True, part="held_out")
register_split("ood_all_5", rule="all_5", need_face=True, part="seen")
register_split("ood_all_7", rule="all_7", need_face=True, part="seen")
register_split("ood_all_12", rule="all_12", need_face=True, part="seen")
register_split("ood_large", rule="large")
register_split("ood_five_cards", num_cards=5)
register_split("ood_target_36", target=36)
register_split("visual_ood", suits="red", part="seen", hands_of="id")
register_split("visual_ood_unseen", suits="red", part="held_out", hands_of="id_unseen")
register_split("visual_ood_rotated", look={"arrangement": "rotated"}, part="seen", hands_of="id")
register_split("visual_ood_overlap", look={"arrangement": "overlap"}, part="seen", hands_of="id")
register_split("visual_ood_deck", look={"deck": "plain"}, part="seen", hands_of="id")
register_split("visual_ood_table", look={"table": "blue"}, part="seen", hands_of="id")
