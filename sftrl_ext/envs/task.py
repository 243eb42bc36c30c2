"""The record of a task: everything the rest of the package needs to know about one, in one registry.

A task outside this package registers a `TaskSpec` in a plug-in (`sftrl_ext.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.envs.base import Episode
from sftrl_ext.envs.route_view import RouteView
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import Registry
from sftrl_ext.plugins import load_plugins


@dataclass(frozen=True)
class EpisodeLengths:
    """Average lengths of a task's texts and episodes in tokens, without pictures: inputs of the planner.

    Attributes:
        prompt: Prompt of a row.
        answer: One answer.
        feedback: Feedback after a wrong answer, with the chat template around it.
        retries: Share of the further attempts that an episode takes at a prompt.
        prompts: Prompts of an episode.
        spread: Longest prompt over the average one.
        working: Tokens that working adds to an answer.
    """

    prompt: float = 170.0
    answer: float = 55.0
    feedback: float = 35.0
    retries: float = 0.5
    prompts: float = 1.0
    spread: float = 1.1
    working: float = 0.0


@dataclass(frozen=True)
class TaskSpec:
    """A task.

    Attributes:
        name: Name in the facts of rows, in ``task.kind`` of a recipe, and of ``sftrl data --task``.
        episode: Rebuilds an episode from its facts.
        rows: Its `data_prep.task_rows.TaskRows`: the class, or ``module:class``, imported for building.
        data_sources: Modality to the first part of its data sources; by default the name.
        titles: First part of a data source to the title of its panels.
        ability: What verl groups its rows by.
        attempts: Default attempts of an episode, or at each prompt of one.
        several_prompts: True if an episode goes on with new prompts (`Step.new_prompt`).
        wrong_answers: Answers that are wrong in every episode; their feedback is training text of the
            tokenizer of a small model.
        first_claims: Details of a first response to an image that evaluation counts.
        compute_ratio: The paper's lambda: tokens read and generated for each token that RL trains on.
        no_working: Reason why its answers cannot show their working; None if they can.
        split_titles: Splits with a title of their own in figures.
        looks: What its visual splits show, for the method notes of a report.
        trained_look: Returns a note for reports where training shows the look of a visual split already.
        describe: Describes what an image episode shows, from its facts.
        lengths: Average lengths under some settings.
        image_size: Width and height of its images.
        made_up: Keys of the recipe that stand for data which the run itself makes up. Takes the recipe's
            ``task`` as a mapping, and whether the split is about the look.
        assets_digest: Digest of the user's files that its images are drawn from; None if there are none.
        route_view: Rebuilds the route of an episode from its facts, for maps; None if episodes are no routes.
        solution: Name of the solution in a correct response, the same for all ways to write it, from the
            details of its verdict; None if instances have one solution.
        solutions: Number of distinct solutions of an instance, from its facts.
        rules: Returns its registered rules, name to statement, for listings; empty for a task without rules.
    """

    name: str
    episode: Callable[[Mapping[str, Any]], Episode]
    rows: str | type[Any] = ""
    data_sources: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    ability: str = ""
    attempts: int = 5
    several_prompts: bool = False
    wrong_answers: tuple[str, ...] = ("",)
    first_claims: tuple[str, ...] = ()
    compute_ratio: float = 6.0
    no_working: str | None = None
    split_titles: Mapping[str, str] = field(default_factory=dict)
    looks: Mapping[str, str] = field(default_factory=dict)
    trained_look: Callable[[Mapping[str, Any]], str | None] = lambda task: None
    describe: Callable[[Mapping[str, Any]], str] = lambda facts: ""
    lengths: Callable[[TaskConfig], EpisodeLengths] = lambda config: EpisodeLengths()
    image_size: Callable[[TaskConfig], tuple[int, int]] = lambda config: (1200, 1200)
    made_up: Callable[[Mapping[str, Any], bool], list[str]] = lambda task, visual: []
    assets_digest: Callable[[TaskConfig], str | None] = lambda config: None
    route_view: Callable[[Mapping[str, Any]], RouteView] | None = None
    solution: Callable[[Mapping[str, Any]], str] | None = None
    solutions: Callable[[Mapping[str, Any]], int] | None = None
    rules: Callable[[], Mapping[str, str]] = dict

    def __post_init__(self) -> None:
        if not self.data_sources:
            object.__setattr__(self, "data_sources", {"text": self.name, "image": self.name})
        if not self.ability:
            object.__setattr__(self, "ability", self.name)


TASKS: Registry[TaskSpec] = Registry("task")
"""Task name to its record."""


def register_task(spec: TaskSpec) -> TaskSpec:
    """File a task under its name.

    Raises:
        SftrlError: if another task has the name already.
    """
    TASKS.add(spec.name, spec)
    return spec


def make_episode(facts: Mapping[str, Any]) -> Episode:
    """Rebuild an episode from the facts a row carries.

    Args:
        facts: JSON-like; ``facts["task"]`` names the task, the rest is the task's own.

    Raises:
        SftrlError: if the task is unknown or a fact is missing or malformed.
    """
    return TASKS[facts.get("task", "")].episode(facts)


def task_of_source(data_source: str) -> TaskSpec | None:
    """The task of a data source ``<first part>/<split>``, or of a first part; None for any other."""
    load_plugins()
    first = data_source.partition("/")[0]
    specs = [TASKS[name] for name in TASKS]
    return next((spec for spec in specs if first in (spec.name, *spec.data_sources.values())), None)
