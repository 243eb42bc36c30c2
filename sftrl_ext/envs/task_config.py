"""The keys ``task`` of a recipe: what is played, how it is graded, which splits are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.envs.virl.config import RoutesConfig


@dataclass
class TaskConfig:
    """The task, how its answers are graded, and the splits it is evaluated on."""

    name: str = "???"  # omegaconf: the recipe must set it
    """Short task name; every ``data_source`` is ``<name>/<split>``."""
    kind: str = "general_points"
    """The registered task: ``general_points``, ``virl``, or one of yours. ``target``, ``solutions``,
    ``suits``, ``draw`` and ``look`` are about the first, ``routes`` about the second."""
    module: str | None = None
    """Module or Python file that registers a task of yours."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of a task of yours; its `TaskRows` reads them."""
    routes: RoutesConfig = field(default_factory=RoutesConfig)
    """The routes of ``virl``; which words a turn has is the split's."""
    train_split: str = "id"
    """The split every arm trains on, unless it names others."""
    pretrain_splits: list[str] = field(default_factory=list)
    """The splits a base model of our own is pre-trained on (several rules, mixed evenly)."""
    eval_splits: list[str] = field(default_factory=list)
    """The splits every saved checkpoint is evaluated on."""
    eval_sets: dict[str, str] = field(default_factory=dict)
    """Given instances to be evaluated on: name to a CSV, JSON or parquet list of hands or routes, or a route
    file. A set is a split: its name says what it is compared as (``id_..``, ``rule_..`` or ``visual_..``).
    Every row is played, or as many as ``budget.eval.hands_of`` says."""
    target: int = 24
    max_attempts: int = 5
    profile: str = "exact"
    template: str = "default"
    """Name of a prompt template, or the path of a template file."""
    reward: str = "outcome"
    """Name of the reward function that RL learns from."""
    reward_file: str | None = None
    """A Python file of yours that registers reward functions."""
    solutions: str = "random"
    """Which solution an expert row shows: ``random``, or the ``first`` of each hand."""
    suits: str = "mixed"
    """Suits of the hands; a split that is about its suits keeps its own."""
    pretrain_suits: str | None = None
    """Suits of the hands a base model of our own is pre-trained on; null: the same."""
    draw: str | None = None
    """Draw of the hands: ``iid``, ``deck`` or ``authors`` (one forced J, Q or K where a split needs one);
    null: ``authors`` under that profile, else ``iid``. A split that sets its own draw keeps it."""
    modality: str = "text"
    """``text`` or ``image``: how the cards, or the places, are shown."""
    look: dict[str, Any] = field(default_factory=dict)
    """How an image is drawn (``width``, ``height``, ``table``, ``deck``, ``arrangement``). The deck may be a
    folder of card pictures."""
