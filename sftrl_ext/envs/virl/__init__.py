"""V-IRL: walk through a city along a list of instructions.

Reading order: `geo`, `routes`, `plain_pickle` and `panoramas` (the authors' files), `track` and `rail` (what
an episode is made of), `street_view` (pictures), `answer`, `verifier`, `prompts`, `episode`, `env`; `city`
makes synthetic data in the authors' formats.
"""

from __future__ import annotations

TASK = "virl"
"""Name of the task in facts."""
