"""The paper's reward on a route: the verifier's own grade, and the penalty that ends the route as failed."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("virl_outcome", "virl_l/*", "virl_vl/*")
def virl_outcome(step: Step, facts: Facts) -> float:
    """+1 right action, -1 wrong action or none, -1.5 wrong action with landmarks not detected.

    -1 more on the last failure at a point (the fact ``exceeded_penalty``).
    """
    return step.reward
