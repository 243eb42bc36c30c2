"""The plug-in: importing this module registers the task."""

from compose_task.episode import Compose
from compose_task.rows import ComposeRows
from sftrl_ext.envs.task import EpisodeLengths, TaskSpec, register_task

register_task(
    TaskSpec(
        name="compose",
        episode=Compose,
        rows=ComposeRows,
        attempts=1,
        split_titles={"id": "trained pairs", "other_pairs": "other pairs", "depth_3": "chains of three"},
        lengths=lambda config: EpisodeLengths(prompt=20.0, answer=4.0, feedback=8.0, working=8.0),
    )
)
