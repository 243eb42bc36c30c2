"""Environment ``sftrl-rows`` of verifiers, where an id is the name of a top-level module."""

from sftrl_ext.bridges.verifiers_taskset import EpisodeEnv, EpisodeTaskset

__all__ = ["EpisodeEnv", "EpisodeTaskset"]
