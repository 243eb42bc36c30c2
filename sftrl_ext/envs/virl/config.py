"""The keys ``task.routes`` of a recipe: cities and routes."""

from __future__ import annotations

from dataclasses import dataclass, field


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
