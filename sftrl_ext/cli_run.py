"""Verbs of the command line that run recipes: ``sftrl plan``, ``run`` and ``resume``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sftrl_ext.cli_plugin import add_plugin_option
from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import absolute_name

if TYPE_CHECKING:
    from sftrl_ext.experiments.batch import Requested
    from sftrl_ext.experiments.cluster.launchers import Submission
    from sftrl_ext.experiments.recipe.schema import Recipe

STAGES_HELP = "run only these: names or kinds of stages, or train, separated by commas, as in data,model"
RUN_HELP = "run folder, or <recipe>-<scale> of a run in runs/"


def add_run_verbs(verbs: Any) -> None:
    """Add the verbs to the parser."""
    for name, text, run in (
        ("plan", "print the resources and commands of a recipe without running it", _plan),
        ("run", "run a recipe from data to report", _run),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("recipe", help="recipe file or name, several separated by commas, or all")
        verb.add_argument("--scale", default="laptop", help="smoke, laptop, gpu, node or cluster")
        verb.add_argument("--seeds", help="training seeds of every arm: 0,1,2")
        verb.add_argument("--sft-lrs", help="learning rates of the SFT arms: 1e-4,2e-4")
        verb.add_argument("--rl-lrs", help="learning rates of the RL arms")
        verb.add_argument("--model", help="Hugging Face folder or hub name to start from")
        verb.add_argument(
            "--tracker",
            action="append",
            default=[],
            help="wandb, tensorboard, mlflow, ..; console and file are always on",
        )
        verb.add_argument(
            "--run-dir", type=Path, help="default: runs/<recipe>-<scale>; of several recipes: runs/<scale>"
        )
        verb.add_argument(
            "--share",
            type=Path,
            metavar="RUNS",
            help="reuse identical finished stages of the runs in this folder",
        )
        verb.add_argument("--jobs", type=int, default=1, help="number of recipes to run concurrently")
        verb.add_argument(
            "--launcher", default="local", help="local, ray, slurm, sky, kuberay, or one of a plug-in"
        )
        verb.add_argument("--stages", help=STAGES_HELP)
        add_plugin_option(verb)
        verb.add_argument("--or-resume", action="store_true", help="resume the run if it exists")
        verb.add_argument(
            "overrides",
            nargs="*",
            help="recipe keys to override, as in budget.rl.lr=1e-5, or to remove, as in ~arms.rl",
        )
        if name == "plan":
            shown = verb.add_mutually_exclusive_group()
            for part, text in (("budget", "memory, disk, tokens and hours"), ("commands", "commands")):
                shown.add_argument(
                    f"--{part}-only", dest="show", action="store_const", const=part, help=f"print only {text}"
                )
            verb.set_defaults(show="all")
        verb.set_defaults(run=run)

    resume = verbs.add_parser("resume", help="resume an interrupted or failed run")
    resume.add_argument("run_dir", type=Path, help=RUN_HELP)
    resume.add_argument(
        "--from",
        dest="again_from",
        metavar="STAGE",
        help="do this stage again, and those that depend on it; what they had made is kept in replaced/",
    )
    resume.add_argument("--stages", help=STAGES_HELP)
    resume.add_argument(
        "overrides", nargs="*", help="recipe keys of stages not yet begun, as in budget.rl.updates=60"
    )
    resume.set_defaults(run=_resume)


def find_run(path: Path) -> Path:
    """Folder of a run, by its path or by a name of its recipe."""
    if path.exists():  # no recipe need be read
        return path
    from sftrl_ext.experiments import run_names

    return run_names.find_run(path)


def _overrides(args: argparse.Namespace) -> list[str]:
    overrides = list(args.overrides)
    for key, value in (("seeds", args.seeds), ("sft_lrs", args.sft_lrs), ("rl_lrs", args.rl_lrs)):
        if value:
            overrides.append(f"sweep.{key}=[{value}]")
    if args.tracker:
        overrides.append(f"trackers=[{','.join(args.tracker)}]")
    if args.model:
        overrides += [f"model.path={args.model}", f"model.name={Path(args.model).name}"]
        overrides += ["budget.base=null", "budget.dialogues=null"]
        overrides = [*_engine_overrides(args.model, args.scale), *overrides]
    return overrides


def _engine_overrides(model: str, scale: str) -> list[str]:
    """Engine overrides that the family of a model folder needs; the user's overrides come later."""
    from sftrl_ext.experiments.start_models.model_source import family_settings, find_model
    from sftrl_ext.files import read_json

    try:
        config = read_json(find_model(Path(model)) / "config.json")
    except SftrlError:  # a hub name, or a bad folder, which the model stage reports
        return []
    overrides = [f"scale.{key}={value}" for key, value in family_settings(config.get("model_type")).items()]
    if overrides and scale in ("gpu", "node", "cluster"):
        # the engine's weights stay on the card while the trainer works
        overrides.append("scale.offload=idle")
    return overrides


def recipes_of(args: argparse.Namespace) -> list[Requested]:
    """Requested recipes, composed."""
    from sftrl_ext.experiments.batch import recipes_named, with_variations
    from sftrl_ext.experiments.recipe.recipe_files import load_recipe

    requested: list[Requested] = []
    for name in recipes_named(args.recipe):
        load = partial(load_recipe, name, args.scale, launcher=args.launcher, plugins=args.plugins)
        requested += with_variations(name, _overrides(args), load)
    return requested


def _run_dir(args: argparse.Namespace, recipe: Recipe, several: bool) -> Path:
    from sftrl_ext.experiments.batch import run_dir_of

    if several:
        return run_dir_of(recipe, _runs_dir(args))
    return args.run_dir or run_dir_of(recipe, Path("runs"))


def _runs_dir(args: argparse.Namespace) -> Path:
    """Folder of several runs, which share finished stages."""
    if args.share is not None:
        raise SftrlError("found --share with several runs, which share stages anyway; expected --run-dir.")
    return args.run_dir or Path("runs") / args.scale


def _submission(args: argparse.Namespace, requested: Requested, several: bool) -> Submission:
    from sftrl_ext.experiments.cluster.launchers import LAUNCHERS, make_job

    if args.share is not None:
        raise SftrlError(f"found --share with launcher {args.launcher!r}; expected launcher local.")
    recipe = requested.recipe
    run_dir = _run_dir(args, recipe, several) if args.run_dir is not None else None
    plugins = args.plugins
    if recipe.launcher.run_root is None:  # the nodes see the files of this machine
        plugins = map(absolute_name, plugins)
    words = [*requested.overrides, *(f"--plugin={plugin}" for plugin in plugins)]
    return LAUNCHERS[args.launcher](make_job(recipe, requested.name, words, run_dir, args.stages))


def _plan(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.plan import make_plan, select_stages
    from sftrl_ext.experiments.planner.printing import print_budget
    from sftrl_ext.experiments.recipe.attention import resolve_attention

    requested = recipes_of(args)
    several = len(requested) > 1
    for each in requested:
        recipe = each.recipe
        if args.launcher != "local":
            text = str(_submission(args, each, several))
            console.print(text, markup=False, highlight=False)
            continue
        print_budget(recipe, console, args.show)
        if args.show == "budget":
            continue
        console.print(f"# attention: {resolve_attention(recipe)}\n", markup=False, highlight=False)
        stages = make_plan(recipe, _run_dir(args, recipe, several).resolve())
        for stage in stages if args.stages is None else select_stages(stages, args.stages):
            env = " ".join(f"{k}={shlex.quote(v)}" for k, v in stage.env.items())
            console.print(f"# {stage.name}: {stage.title}", style="bold", highlight=False)
            console.print(f"{env} {shlex.join(stage.command)}".strip() + "\n", markup=False, highlight=False)


def _run(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.batch import run_many
    from sftrl_ext.experiments.planner.fit import check_fit
    from sftrl_ext.experiments.runner import start_or_resume, start_run

    requested = recipes_of(args)
    for each in requested:
        check_fit(each.recipe)
    several = len(requested) > 1
    if args.launcher != "local":
        from sftrl_ext.experiments.cluster.launchers import submit

        for each in requested:
            submit(_submission(args, each, several), console)
        return
    if several:
        if args.stages is not None:
            raise SftrlError("found --stages with several runs; expected one recipe with one run.")
        folder = _runs_dir(args)
        for outcome in run_many([each.recipe for each in requested], folder, console, args.jobs):
            print_report_paths(outcome.run_dir, console)
        _compare_variations(requested, folder, console)
        return
    [only] = requested
    run_dir = _run_dir(args, only.recipe, several=False)
    start = start_or_resume if args.or_resume else start_run
    start(only.recipe, run_dir, console, args.share, args.stages)
    print_report(run_dir, console)


def _compare_variations(requested: Sequence[Requested], folder: Path, console: Console) -> None:
    """Draw the runs of each recipe that a key sets apart."""
    from sftrl_ext.experiments.batch import run_dir_of

    groups: dict[tuple[str, str], list[Path]] = {}
    for each in requested:
        if each.varied is not None:
            groups.setdefault((each.name, each.varied), []).append(run_dir_of(each.recipe, folder))
    for (_, key), run_dirs in groups.items():
        print_comparison(run_dirs, key, folder, console)


def print_comparison(run_dirs: Sequence[Path], key: str, folder: Path, console: Console) -> None:
    """Draw runs against a key of their recipes, and print the table and the paths."""
    from sftrl_ext.reports.against import write_against

    written = write_against(run_dirs, key, folder)
    console.print(f"\n{written.table}", markup=False, highlight=False)
    for path in written.paths:
        console.print(f"  {path}", markup=False, highlight=False)


def _resume(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.runner import resume_run

    run_dir = find_run(args.run_dir)
    resume_run(run_dir, console, args.overrides, args.again_from, args.stages)
    print_report(run_dir, console)


def print_report(run_dir: Path, console: Console) -> None:
    """Print the verdict and the numbers of a run that has a report, then its paths."""
    if (run_dir / "report" / "report.md").is_file():
        from sftrl_ext.reports.outcome import print_outcome

        console.print()
        print_outcome(run_dir, console)
    print_report_paths(run_dir, console)


def print_report_paths(run_dir: Path, console: Console) -> None:
    """Print the paths of a run's report, if it has one."""
    report = run_dir / "report"
    summary = report / "report.md"
    if summary.is_file():
        console.print(f"\nReport and figures: {report.resolve()}", highlight=False)
        for name in ("report.html", "report.md"):
            console.print(f"  {report.resolve() / name}", highlight=False)
