"""The arms of a run as figures and tables have them: kind, name, order, colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.analysis.splits import arm_label
from sftrl_ext.runs.run_folder import RunFolder

_PLACES = ("base", "sft", "init", "rl")
"""As the bars of the paper stand; arms of no known kind come last."""

_COLOURS = {
    "sft": ("#D55E00", "#E69F00", "#8C3B00", "#CC79A7", "#B8A500", "#882255"),
    "rl": ("#0072B2", "#56B4E9", "#1B2A6B", "#009E73", "#7A6FB0", "#117A8B"),
    "init": ("#555555",),
    "base": ("#969696",),
}
_OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def kind_colour(kind: str) -> str:
    """Colour of an arm that stands alone for its kind."""
    return _COLOURS.get(kind, _OTHERS)[0]


@dataclass(frozen=True)
class Arms:
    """Every arm of a run.

    Attributes:
        kinds: Arm to "sft", "rl", or another kind, in the recipe's order.
        titles: Arm to its title, where the recipe gives one.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def kind(self, arm: str) -> str:
        """Kind of training of an arm; "init" and "base" are kinds too, an unknown arm has its name's."""
        return self.kinds.get(arm, arm.split("_")[0])

    def label(self, arm: str) -> str:
        """An arm as it is written in a figure."""
        return one_line(self.titles.get(arm) or arm_label(arm))

    def order(self, arms: Iterable[str]) -> list[str]:
        """Distinct arms: the base, SFT, the start, RL, others; those of a kind as the recipe has them."""
        listed = list(self.kinds)

        def position(arm: str) -> tuple[int, int, str]:
            kind = self.kind(arm)
            return (
                _PLACES.index(kind) if kind in _PLACES else len(_PLACES),
                listed.index(arm) if arm in listed else len(listed),
                arm,
            )

        return sorted(set(arms), key=position)

    def colour(self, arm: str) -> str:
        """Its colour: one family for each kind, in the order of the arms."""
        kind = self.kind(arm)
        palette = _COLOURS.get(kind, _OTHERS)
        rest = [other for other in self.kinds if (self.kind(other) in _COLOURS) == (kind in _COLOURS)]
        peers = [other for other in rest if self.kind(other) == kind] if kind in _COLOURS else rest
        return palette[(peers.index(arm) if arm in peers else 0) % len(palette)]

    def of_kind(self, kind: str, arms: Iterable[str]) -> list[str]:
        """Those of some arms that are of a kind, in order."""
        return [arm for arm in self.order(arms) if self.kind(arm) == kind]


def arms_of(run: RunFolder) -> Arms:
    """The arms of a run: kinds from its stages, titles and order from its recipe."""
    stored = {stage.arm: stage.kind for stage in run.stages if stage.arm and stage.kind}
    trained = {arm: kind for arm, kind in stored.items() if arm not in ("base", "init")}
    order = [arm for arm in run.recipe.arms if arm in trained]
    order += [arm for arm in trained if arm not in run.recipe.arms]
    titles = {name: arm.title for name, arm in run.recipe.arms.items() if arm.title}
    return Arms({arm: trained[arm] for arm in order}, titles)
