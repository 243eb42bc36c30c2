"""Episodes played by a model: turns as tokens, masks and dense rewards."""

AGENT_LOOP = "verifier"
"""``agent_name`` of our agent loop in rows and in ``rollout.agent.default_agent_loop``."""
