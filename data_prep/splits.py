"""Splits: named kinds of hands, each with a data source of its own.

``seen`` and ``held_out`` are the two parts of the number multisets (by numbers, not by ranks): training draws
only from ``seen``. A new split is one line, here or in any other package::

    register_split("ood_all_3", rule="all_3", need_face=True, part="seen")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sftrl_ext.envs.general_points.hands import HandSpec
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.errors import Registry, unknown_name

TRAIN_STREAM = "train"
"""Name of the random stream that training hands come from."""


@dataclass(frozen=True)
class Split:
    """A named set of hands.

    Attributes:
        name: Its name.
        hands: What kind of hands it holds.
    """

    name: str
    hands: HandSpec

    @property
    def data_source(self) -> str:
        """Key that rewards and validation metrics go by."""
        return f"gp_l/{self.name}"

    @property
    def stream(self) -> str:
        """Name of the random stream that evaluation hands come from; no training draw shares it."""
        return f"eval/{self.name}"


SPLITS: Registry[Split] = Registry("split")
"""Split name to split."""

_TARGET = re.compile(r"ood_target_([0-9]{1,4})")


def register_split(name: str, **hands: Any) -> Split:
    """File a split under its name.

    Args:
        name: The split's name.
        **hands: Fields of `HandSpec`.

    Raises:
        SftrlError: if the name is taken, or the rule, draw or suits are unknown.
    """
    split = Split(name, HandSpec(**hands))
    SPLITS.add(name, split)
    return split


def get_split(name: str) -> Split:
    """The split of a name.

    Besides the registered ones, ``ood_target_<n>`` is known for every n, and a card rule's name is a split
    too: any hands under that rule with seen number multisets, for training on a mixture of rules.

    Raises:
        SftrlError: if there is none, with the nearest name.
    """
    if name in SPLITS:
        return SPLITS[name]
    if name in RULES:
        return Split(name, HandSpec(rule=name, part="seen"))
    match = _TARGET.fullmatch(str(name))
    if match:
        return Split(name, HandSpec(target=int(match.group(1))))
    raise unknown_name("split", name, [*SPLITS, *RULES, "ood_target_<n>"])


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
