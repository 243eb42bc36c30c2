"""The keys ``task`` of a recipe: what is played, how it is graded, which splits are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

REQUIRED: Any = "???"
"""Default of a key that the recipe must set: ``omegaconf.MISSING``, without the import of omegaconf."""


@dataclass
class CityConfig:
    """A city: routes of a file, or a synthetic one that the data stage makes.

    Pictures of a synthetic city are drawn only where the task shows images.
    """

    style: str = "brick"
    seed: int = 0
    routes: int = 1000
    width: int = 1024
    """Width of its panoramas in pixels."""
    most_legs: int = 8
    """Most legs of a route of a synthetic city, 2 to 8."""
    path: str | None = None
    """Routes to read instead: a route file, its folder, or a folder with one folder for each city. The map of
    panoramas and the street views lie beside each file."""


@dataclass
class RoutesConfig:
    """The routes of a recipe."""

    home: CityConfig = field(default_factory=CityConfig)
    """The city that is trained on."""
    away: list[CityConfig] = field(default_factory=list)
    """Other cities, for the split ``visual_ood``."""
    pretrain: list[CityConfig] = field(default_factory=list)
    """Further cities, where only a base model of our own is pre-trained: the stages ``base`` and
    ``dialogues`` walk the routes of these and of home, each as often. A small model reads only names like
    those it has read: without these cities ``visual_ood`` is a test of unknown names. None may be one of
    ``away``. They are not made where ``budget.base`` is null."""
    holdout: float = 0.1
    """Share of the routes, at home and of ``pretrain``, that no training walks."""
    drop_rate: float = 0.5
    """Probability that a point between milestones is left out."""
    points_per_leg: int = 5
    missing_panorama: str = "skip"
    """``skip`` or ``error``: what a point between milestones without a panorama is; the authors' loader skips
    it. A start or a milestone without one makes a bad route."""
    skip_bad: bool = True
    """Leave out routes that cannot be read or walked, and list them in the log and the dataset card; false:
    the first one is an error."""
    most_legs: int | None = None
    """Routes read from a file are cut after so many legs, for models with room for short prompts only; null:
    never."""
    exceeded_penalty: float = -1.0
    """Added to the reward of the failed attempt that ends a route."""
    image_size: int = 1200
    """Side of a picture in pixels."""


@dataclass
class TaskConfig:
    """The task, how its answers are graded, and the splits it is evaluated on."""

    name: str = REQUIRED
    """Short task name; every ``data_source`` is ``<name>/<split>``."""
    kind: str = "general_points"
    """The registered task: ``general_points``, ``virl``, ``countdown``, or one of yours. ``target``,
    ``targets``, ``cards``, ``held_out``, ``solutions``, ``suits``, ``draw`` and ``look`` are about the first,
    ``routes`` about the second."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of ``countdown`` or of a task of yours; its `TaskRows` reads them. ``file`` is a path."""
    routes: RoutesConfig = field(default_factory=RoutesConfig)
    """The routes of ``virl``; which words a turn has is the split's."""
    train_split: str = "id"
    """The split every arm trains on, unless it names others."""
    pretrain_splits: list[str] = field(default_factory=list)
    """The splits a base model of our own is pre-trained on (several rules, mixed evenly). A family of rules
    is a split too: each of its rows has a rule of its own."""
    held_out: list[str] = field(default_factory=list)
    """Card rules (each of their numbers of J, Q and K), bindings (``K=13``) or bindings that may not stand
    together (``J=5 Q=5 K=5``) that no row of the stages ``base``, ``dialogues`` and ``init`` may state; the
    init may state the rule it trains. The data stage reads its files back and refuses a row that does."""
    exposure: dict[str, float] = field(default_factory=dict)
    """Splits that a base model of our own reads beside ``pretrain_splits``, each to its share of the rows of
    ``base`` and of ``dialogues``. These rows may state their own rule although it is held out; the data
    stage counts them."""
    eval_splits: list[str] = field(default_factory=list)
    """The splits every saved checkpoint is evaluated on."""
    eval_sets: dict[str, str] = field(default_factory=dict)
    """Given instances to be evaluated on: name to a CSV, JSON or parquet list of hands or routes, or a route
    file. A set is a split: its name says what it is compared as (``id_..``, ``rule_..`` or ``visual_..``).
    Every row is played, or as many as ``budget.eval.hands_of`` says."""
    target: int = 24
    """Number to reach, in training and in every split that is not about it."""
    targets: list[int] | None = None
    """Smallest and largest number to reach, drawn for each row in the place of ``target``."""
    cards: int = 4
    """Cards in a hand, 3 to 6; a split that is about their number keeps its own."""
    max_attempts: int = 5
    profile: str = "exact"
    template: str = "default"
    """Name of a prompt template, or the path of a template file."""
    reward: str = "outcome"
    """Name of the reward function that RL learns from."""
    solutions: str = "random"
    """Which solution an expert row shows: ``random``, or the ``first`` or ``last`` of each hand."""
    working: bool = False
    """Every expert answer shows its working before the formula, from pre-training on; see ``rows: reasoned``
    of an arm, which is one with it while the start model has read none."""
    suits: str = "mixed"
    """Suits of the hands; a split that is about its suits keeps its own."""
    pretrain_suits: str | None = None
    """Suits of the hands a base model of our own is pre-trained on; null: the same."""
    draw: str | None = None
    """Draw of the hands: ``iid``, ``deck`` or ``authors`` (one forced J, Q or K where a split needs one);
    null: ``authors`` under that profile, else ``iid``. A split that sets its own draw keeps it."""
    modality: str = "text"
    """``text`` or ``image``: the form of cards and places in a prompt."""
    look: dict[str, Any] = field(default_factory=dict)
    """Options of a drawn image (``width``, ``height``, ``table``, ``deck``, ``arrangement``). A deck may be a
    folder of card pictures."""
