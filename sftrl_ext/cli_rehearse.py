"""Verb ``sftrl rehearse``: run the commands of a GPU scale without GPUs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


def add_rehearse_verb(verbs: Any) -> None:
    """Add the verb to the parser."""
    verb = verbs.add_parser(
        "rehearse", help="run the commands of a GPU scale without GPUs, on a toy model of the same family"
    )
    verb.add_argument("recipe", help="recipe file or name, several separated by commas, or all")
    verb.add_argument("--scale", default="node", help="gpu, node or cluster; several separated by commas")
    verb.add_argument(
        "--run-dir",
        type=Path,
        default=Path("runs/rehearsal"),
        help="folder of the rehearsals; finished stages in it are reused",
    )
    verb.add_argument(
        "--list", action="store_true", dest="only_list", help="print the replaced keys without running"
    )
    verb.add_argument("overrides", nargs="*", help="recipe keys to override, as in scale.engine=hf")
    verb.set_defaults(run=_rehearse)


def recipes_to_rehearse(args: argparse.Namespace) -> list[Recipe]:
    """Requested recipes, composed at each requested scale.

    Raises:
        SftrlError: for a scale without GPUs, or if no recipe is named.
    """
    from sftrl_ext.experiments.batch import recipes_named
    from sftrl_ext.experiments.recipe.recipe_files import load_recipe
    from sftrl_ext.experiments.rehearsal.run import GPU_SCALES

    scales = args.scale.split(",")
    for scale in scales:
        if scale not in GPU_SCALES:
            raise unknown_name("scale to rehearse", scale, GPU_SCALES)
    names = recipes_named(args.recipe)
    if not names:
        raise SftrlError("found no recipe; expected a recipe, several separated by commas, or all.")
    return [load_recipe(name, scale, args.overrides) for scale in scales for name in names]


def _rehearse(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.rehearsal.compare import differences
    from sftrl_ext.experiments.rehearsal.divide import rehearsed
    from sftrl_ext.experiments.rehearsal.run import rehearse_all, replaced_table
    from sftrl_ext.experiments.runner import require_training

    require_training()
    recipes = recipes_to_rehearse(args)
    if args.only_list:
        for recipe in recipes:
            console.rule(f"{recipe.name} at {recipe.scale.name}", align="left")
            console.print(replaced_table(differences(recipe, rehearsed(recipe), args.run_dir.resolve())))
        return
    rehearse_all(recipes, args.run_dir, console)
