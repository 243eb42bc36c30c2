"""Run several recipes one after the other, what they have in common once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, from_yaml, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.runner import start_or_resume
from sftrl_ext.experiments.subprocesses import end_with_parent
from sftrl_ext.files import write_json, write_text
from sftrl_ext.paths import shown_path
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.machine import describe_commit, describe_hardware, hardware_line
from sftrl_ext.runs.state import RunState

ALL = "all"
"""Names every recipe that ships."""
SUMMARY = "recipes.json"

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.+-]")


@dataclass(frozen=True)
class Outcome:
    """Result of one recipe of several.

    Attributes:
        name: The recipe.
        run_dir: Its run folder.
        error: What stopped it; None if it is done.
    """

    name: str
    run_dir: Path
    error: SftrlError | None = None


def recipes_named(text: str) -> list[str]:
    """The recipes of ``all``, or of names with commas between."""
    if text != ALL:
        return [name for name in text.split(",") if name]
    return [path.stem for path in distinct_recipes()]


@dataclass(frozen=True)
class Requested:
    """A recipe of a command line, composed.

    Attributes:
        name: The recipe as it was asked for: a file, or a name.
        overrides: Hydra overrides that it was composed with.
        varied: The key that sets it apart from other runs of the same recipe; None without one.
    """

    name: str
    overrides: Sequence[str]
    recipe: Recipe
    varied: str | None = None


def with_variations(
    name: str, overrides: Sequence[str], load: Callable[[Sequence[str]], Recipe]
) -> list[Requested]:
    """A recipe, or, where its ``sweep.runs`` has values, one run of it for each.

    An override of that key itself asks for one run.

    Args:
        name: As it was asked for.
        overrides: Hydra overrides.
        load: Composes it with overrides.

    Raises:
        SftrlError: if two values give a run the same name.
    """
    recipe = load(overrides)
    key, values = recipe.sweep.runs.key, recipe.sweep.runs.values
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    if not values or key in given:
        return [Requested(name, overrides, recipe)]
    if key is None:
        raise SftrlError(f"{name}: sweep.runs.key: null; expected a key of the recipe for {values}.")
    varied: dict[str, Requested] = {}
    for value in values:
        run = f"{recipe.name}-{_NOT_IN_NAMES.sub('_', str(value))}"
        if run in varied:
            raise SftrlError(f"{name}: sweep.runs.values: {value!r} names the run {run!r} a second time.")
        varied_overrides = [*overrides, f"{key}={json.dumps(value)}", "sweep.runs.values=[]", f"name={run}"]
        varied[run] = Requested(name, varied_overrides, load(varied_overrides), key)
    return list(varied.values())


def run_many(recipes: Sequence[Recipe], folder: Path, console: Console, jobs: int = 1) -> list[Outcome]:
    """Run recipes, each in ``<folder>/<recipe>-<scale>``; started again, go on with what is not done.

    Args:
        recipes: What to run, in this order.
        folder: Holds the runs, which share what they have in common.
        console: Where progress is shown.
        jobs: How many run at the same time, each as a process of its own. Of a small run most time is the
            start of its processes, one after the other.

    One that fails does not keep the others from running. What was run, where and in what time is written to
    ``<folder>/recipes.json``; wall times are of the stages that a recipe ran itself, over all launches.

    Raises:
        SftrlError: at the end, naming those that failed.
        KeyboardInterrupt: if interrupted; its text says how to go on.
    """
    started = time.monotonic()
    try:
        if jobs > 1:
            outcomes = _side_by_side(recipes, folder, console, jobs)
        else:
            outcomes = [_one(recipe, folder, console, n, len(recipes)) for n, recipe in enumerate(recipes, 1)]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished stages are kept in {shown_path(folder)}. The same command goes on with what is not "
            "done."
        ) from None
    elapsed = time.monotonic() - started
    summary = {
        "scale": recipes[0].scale.name,
        "jobs": jobs,
        "elapsed_s": round(elapsed, 1),
        **_summary(outcomes),
    }
    write_json(folder / SUMMARY, summary)
    console.print(_table(summary))
    failed = [outcome.name for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SftrlError(
            f"{len(failed)} of {len(outcomes)} recipes failed: {', '.join(failed)}. The same command goes on "
            "with what is not done."
        )
    return outcomes


def _one(recipe: Recipe, folder: Path, console: Console, number: int, count: int) -> Outcome:
    """Run a recipe here."""
    run_dir = run_dir_of(recipe, folder)
    console.rule(f"{number} of {count}: {recipe.name}", align="left")
    try:
        start_or_resume(recipe, run_dir, console, share=folder)
    except SftrlError as error:
        console.print(f"[bold red]{recipe.name} failed:[/] ", end="")
        console.print(str(error), markup=False, highlight=False)
        return Outcome(recipe.name, run_dir, error)
    return Outcome(recipe.name, run_dir)


def _side_by_side(recipes: Sequence[Recipe], folder: Path, console: Console, jobs: int) -> list[Outcome]:
    """Run recipes as processes, so many at a time; what they say is shown with their names before it."""
    running: dict[str, subprocess.Popen[str]] = {}
    stopped = threading.Event()

    def run(recipe: Recipe) -> Outcome:
        run_dir = run_dir_of(recipe, folder)
        recipe_file = folder / ".recipes" / f"{run_dir.name}.yaml"
        write_text(recipe_file, to_yaml(recipe))
        if stopped.is_set():
            return Outcome(recipe.name, run_dir, SftrlError("not begun"))
        command = [
            sys.executable,
            "-m",
            "sftrl_ext.experiments.batch",
            str(recipe_file),
            str(run_dir),
            str(folder),
        ]
        last = ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as child:
            running[recipe.name] = child
            assert child.stdout is not None
            for line in child.stdout:
                last = line.strip() or last
                console.print(f"{recipe.name}: {line.rstrip()}", markup=False, highlight=False)
        error = SftrlError(last) if child.returncode else None
        return Outcome(recipe.name, run_dir, error)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, recipe) for recipe in recipes]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            stopped.set()
            for child in running.values():
                child.terminate()
            raise


def run_dir_of(recipe: Recipe, folder: Path) -> Path:
    """The folder of a run among others."""
    return folder / f"{recipe.name}-{recipe.scale.name}"


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    recipes = {}
    for outcome in outcomes:
        state = RunLayout(outcome.run_dir).state
        done = [s for s in RunState.load(state).stages if s.status == "done"] if state.is_file() else []
        trained = [stage for stage in done if stage.shared_from is None]
        recipes[outcome.name] = {
            "done": outcome.error is None,
            "stages": len(done),
            "shared": len(done) - len(trained),
            "wall_s": round(sum(stage.wall_s for stage in trained), 1),
        }
    return {
        "date": date.today().isoformat(),
        "commit": describe_commit(),
        "hardware": hardware_line(describe_hardware()),
        "wall_s": round(sum(record["wall_s"] for record in recipes.values()), 1),
        "recipes": recipes,
    }


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table("Recipe", "Stages run", "Stages shared", "Wall time", "Result", box=None)
    for name, record in summary["recipes"].items():
        result = "[green]done[/]" if record["done"] else "[red]failed[/]"
        trained = record["stages"] - record["shared"]
        table.add_row(name, str(trained), str(record["shared"]), f"{record['wall_s']:.0f} s", result)
    table.add_row("all", "", "", f"{summary['elapsed_s']:.0f} s", "")
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of several recipes: ``<composed recipe> <run folder> <folder of runs>``."""
    recipe, run_dir, folder = map(Path, (sys.argv[1:] if argv is None else argv)[:3])
    # Ended like by Ctrl-C: the runner then ends its stage before it goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform == "linux":
        end_with_parent()
    try:
        start_or_resume(from_yaml(recipe), run_dir, Console(soft_wrap=True, emoji=False), share=folder)
    except SftrlError as error:
        print(error, flush=True)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
