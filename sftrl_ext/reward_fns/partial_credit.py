"""A dense reward between 0 and 1 that grows with every step towards a solution.

=====================================  ======================================================================
a formula is there                     0.1
it is legal arithmetic                 0.1 more
it uses the given numbers              up to 0.3 more: the share of numbers that are right
its value is near (all numbers right)  up to 0.3 more: 1 / (1 + distance to the target)
it is correct                          1
=====================================  ======================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sftrl_ext.envs import Step
from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("partial_credit")
def partial_credit(step: Step, facts: Facts) -> float:
    """Credit for how far a response got; see the module."""
    verdict = step.attempt.verdict
    text = verdict.details.get("formula")
    if verdict.correct:
        return 1.0
    if not isinstance(text, str):
        return 0.0
    formula = parse(text)
    if not formula.legal:
        return 0.1
    given = Counter(_numbers(facts))
    used = Counter(formula.numbers)
    right = sum((given & used).values())
    share = right / max(sum(given.values()), sum(used.values()))
    value = formula.value() if share == 1 else None
    near = 0.0 if value is None else 1.0 / (1.0 + abs(float(value) - facts.get("target", 24)))
    return 0.2 + 0.3 * share + 0.3 * near


def _numbers(facts: Facts) -> Sequence[int]:
    """The numbers to be used; Countdown has no cards."""
    if "numbers" in facts:
        return tuple(facts["numbers"])
    return RULES[facts.get("rule", "face_10")].numbers(parse_cards(facts["cards"]))
