"""Countdown: make a target from a few numbers, with the parser, solver and grader of GeneralPoints.

Reading order: `numbers`, `prompts`, `episode`, `task`.
"""

TASK = "countdown"
"""Name of the task in facts."""
