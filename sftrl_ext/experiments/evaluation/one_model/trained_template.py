"""Prompt template that a model was trained with: a model asked in other words is another measurement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.recipe import read_recipe


@dataclass(frozen=True)
class TrainedTemplate:
    """A template, and where it is known from.

    Attributes:
        name: ``task.template`` of the run.
        origin: The run folder, or the server that says so.
    """

    name: str
    origin: str


def template_of_folder(folder: Path) -> TrainedTemplate | None:
    """Template of the run that a model or checkpoint folder is part of; None outside runs.

    Raises:
        SftrlError: if the run's recipe cannot be read.
    """
    for parent in folder.resolve().parents:
        layout = RunLayout(parent)
        if layout.recipe.is_file() and layout.state.is_file():
            return TrainedTemplate(read_recipe(layout.recipe).task.get("template", "default"), str(parent))
    return None


def check_template(trained: TrainedTemplate | None, sets: Iterable[EvalSet]) -> None:
    """Refuse rows whose prompts are of another template than the one a model was trained with.

    Raises:
        SftrlError: naming both templates and how to build rows that fit.
    """
    if trained is None:
        return
    for chosen in sets:
        for facts in chosen.facts:
            found = str(facts.get("template", "default"))
            # A template file is named by its path.
            if Path(found).stem != Path(trained.name).stem:
                raise SftrlError(
                    f"split {chosen.split}: prompts of the template {found!r}; the model was trained with "
                    f"{trained.name!r} ({trained.origin}). Expected rows of `sftrl data rl --eval --template "
                    f"{trained.name}`, or --any-template to ask it in other words."
                )
