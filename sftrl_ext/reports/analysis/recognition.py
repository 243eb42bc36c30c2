"""Change of card recognition during training, separated from the use of recognized cards.

For first responses, correct = recognized x (correct if recognized), exactly: with a picture no response is
correct that names other cards. The records do not count later attempts separately, so they cannot tell if a
recognized hand is solved in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftrl_ext.reports.analysis.curves import Checkpoint, Curves, change_between, mean_over_seeds
from sftrl_ext.reports.analysis.verdict import ComparedArms
from sftrl_ext.runs.stats import Change, Measure, change


@dataclass(frozen=True)
class Measured:
    """A metric at the shared start and at the compared checkpoint.

    Attributes:
        change: Gain or loss since the start.
    """

    before: Measure
    after: Measure
    change: Change

    def __str__(self) -> str:
        return f"{100 * self.before.p:.1f} → {100 * self.after.p:.1f} % ({self.change.evidence})"


@dataclass(frozen=True)
class RecognitionChange:
    """Recognition and success of one arm on one split, at the start and at the compared checkpoint.

    Attributes:
        success: Solved within the attempts.
        read: The first response names the right cards.
        numbers: It names the right numbers; None if not stored.
        first: It is correct; None if not stored.
        first_if_read: It is correct, among those that name the right cards; None if it cannot be told.
        label: The arm as it is written.
    """

    arm: str
    split: str
    success: Measured
    read: Measured
    numbers: Measured | None
    first: Measured | None
    first_if_read: Measured | None
    label: str = ""

    @property
    def numbers_fall_further(self) -> bool:
        """True if right numbers fell by more than right cards did, beyond two standard errors."""
        if self.numbers is None:
            return False
        # Right numbers and right cards of a response go together, so errors that are added as if independent
        # are too wide rather than too narrow.
        parts = self.numbers.change, self.read.change
        further = Change(parts[0].delta - parts[1].delta, math.hypot(parts[0].se, parts[1].se))
        return further.direction == "down"

    @property
    def reason(self) -> str:
        """Change that accompanies the change of success, if the numbers show one; "" if not."""
        if self.first_if_read is None:
            return "How often a hand is solved once it is read cannot be told from these records"
        moved = self.success.change.direction
        read, used = self.read.change.direction, self.first_if_read.change.direction
        if moved == "same":
            lower = self._moves(read, used, "down")
            return f"Yet {lower}" if lower else ""
        if moved not in (read, used):
            return "Neither reading nor what follows it has moved that way by 2 SE: the cause cannot be told"
        text = self._moves(read, used, moved)
        return text[0].upper() + text[1:]

    def _moves(self, read: str, used: str, way: str) -> str:
        fewer = way == "down"
        reading = "the cards are read less often" if fewer else "the cards are read more often"
        if fewer and self.numbers_fall_further:
            using = "cards that are read get the wrong numbers: the rule is misapplied"
        else:
            using = f"hands that are read are solved {'less' if fewer else 'more'} often"
        return " and ".join(text for text, moved in ((reading, read), (using, used)) if moved == way)

    @property
    def sentence(self) -> str:
        """The numbers and the reason in words."""
        ways = {"up": "rises", "down": "falls", "same": "stays within 2 SE"}
        text = f"success {ways[self.success.change.direction]}, {self.success}."
        text += f" {self.reason}." if self.reason else ""
        text += f" First responses: right cards {self.read}"
        if self.numbers:
            text += f", right numbers {self.numbers}"
        if self.first_if_read:
            text += f"; correct, among those with the right cards, {self.first_if_read}"
        return f"{self.label} on `{self.split}`: {text}."


def has_recognition(curves: Curves) -> bool:
    """True if any record counts recognized cards, as those of pictures do."""
    records = (record for c in curves.checkpoints() for record in c.results.values())
    return any(record.recognized_first is not None for record in records)


def _measured(
    start: Sequence[Checkpoint], end: Sequence[Checkpoint], split: str, metric: str
) -> Measured | None:
    before, after = mean_over_seeds(start, split, metric), mean_over_seeds(end, split, metric)
    if before is None or after is None:
        return None
    # Records hold the results of each instance for the main measure alone: on cards that is success.
    main = metric == "success" and all(c.results[split].responses is None for c in end if split in c.results)
    moved = change_between(end, start, split) if main else None
    return Measured(before, after, moved or change(after, before))


def recognition_changes(compared: ComparedArms, splits: Iterable[str]) -> list[RecognitionChange]:
    """Every arm's headline curve on every split that has the numbers, split by split.

    Args:
        compared: The arms at equal compute.
        splits: Names of the splits.
    """
    changes = []
    for split in splits:
        for arm, curve in compared.picked.items():
            groups = curve.start, compared.equal.chosen.get(curve.key, [])
            names = ("success", "recognition", "numbers", "first", "first_if_read")
            success, read, numbers, first, first_if_read = (_measured(*groups, split, name) for name in names)
            if success and read:
                label = compared.arms.label(arm)
                changes.append(
                    RecognitionChange(arm, split, success, read, numbers, first, first_if_read, label)
                )
    return changes
