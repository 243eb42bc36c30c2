"""The paper's reward: the verifier's own grade, and the penalty on the attempt that uses up the last try."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("outcome", "gp_l/*", "gp_vl/*", "countdown/*")
def outcome(step: Step, facts: Facts) -> float:
    """+5 correct, -1 wrong value, -1.5 wrong cards of a picture, -2 wrong numbers, -3 illegal or unparsable.

    -1 more on the last failure.
    """
    return step.reward
