"""The command line, ``sftrl``: data, validate, plan, run, resume, eval, serve, report, show, doctor."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

import sftrl_ext
from sftrl_ext.cli_eval import add_eval_verbs
from sftrl_ext.errors import SftrlError

Add = Callable[[argparse.ArgumentParser], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0, or 2 if the input was wrong (the message says how to mend it), or 130 if interrupted.
    """
    args = _parse(argv)
    # A terminated run ends its stage as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(soft_wrap=True)
    try:
        args.run(args, console)
    except SftrlError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {_escape(str(error))}", highlight=False
        )
        return 2
    except KeyboardInterrupt as stop:
        said = str(stop) or "nothing finished is lost. Go on with `sftrl resume <run folder>`."
        Console(stderr=True, soft_wrap=True).print(f"interrupted; {_escape(said)}", highlight=False)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; overrides (key=value, ~key) may stand before, between or after the options."""
    parser = _parser()
    args, extra = parser.parse_known_args(argv)
    overrides = [w for w in extra if ("=" in w or w.startswith("~")) and not w.startswith("-")]
    if extra and (len(overrides) < len(extra) or "overrides" not in args):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    if overrides:
        args.overrides = [*args.overrides, *overrides]
    return args


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sftrl", description=sftrl_ext.__doc__)
    parser.add_argument("--version", action="version", version=f"sftrl-ext {sftrl_ext.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="verb")

    data = verbs.add_parser("data", help="build or import parquet files")
    data.add_argument("kind", help="rl, sft, reasoned, suboptimal, import, virl-city or panoramas")
    data.add_argument("--task", default="general_points", help="general_points or virl")
    data.add_argument("--split", default="id", help="split, or several with commas (mixed evenly)")
    data.add_argument("--rows", type=int, default=1000, help="how many; of a city, its routes")
    data.add_argument("--seed", type=int, default=0)
    data.add_argument(
        "--eval", action="store_true", help="draw from the split's evaluation stream, not the training one"
    )
    data.add_argument(
        "--template", default="default", help="prompt template: a name, or a YAML file of yours"
    )
    data.add_argument("--max-attempts", type=int, help="default: 5 for cards, 2 at each point of a route")
    data.add_argument("--profile", default="exact")
    data.add_argument("--draw", default=None, help="iid or deck")
    data.add_argument("--suits", default=None, help="mixed, black or red; images are black by default")
    data.add_argument("--modality", default="text", help="text or image: how cards or places are shown")
    data.add_argument("--image-size", metavar="WxH", help="size of images, in pixels")
    data.add_argument("--look", help="how images are drawn: table=blue,deck=plain,arrangement=row")
    data.add_argument("--embed-images", action="store_true", help="write the pictures into the file as PNG")
    data.add_argument("--routes", type=Path, help="virl: a route_infos.json, or a city's folder")
    data.add_argument("--away", type=Path, nargs="+", help="virl: routes of other cities, for visual_ood")
    data.add_argument("--holdout", type=float, help="virl: share of the routes that no training walks")
    data.add_argument("--missing-panorama", help="virl: error or skip, for a point between milestones")
    data.add_argument("--skip-bad", action="store_true", help="virl: leave out bad routes and list them")
    data.add_argument("--style", help="virl-city: how the city looks")
    data.add_argument(
        "--from", dest="source", type=Path, help="import: the authors' data.json; panoramas: their map"
    )
    data.add_argument("--out", type=Path, required=True)
    data.set_defaults(run=_data)

    validate = verbs.add_parser("validate", help="check the rows of parquet files")
    validate.add_argument("files", type=Path, nargs="+")
    validate.set_defaults(run=_validate)

    for name, text, run in (
        ("plan", "print every command a recipe would run", _plan),
        ("run", "run a recipe from data to report", _run),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("recipe", help="a recipe file, or the name of one that ships")
        verb.add_argument("--scale", default="laptop", help="smoke, laptop, gpu, node or cluster")
        verb.add_argument("--seeds", help="seeds of every arm: 0,1,2")
        verb.add_argument("--sft-lrs", help="learning rates of the SFT arms: 1e-4,2e-4")
        verb.add_argument("--rl-lrs", help="learning rates of the RL arms")
        verb.add_argument("--model", help="an HF folder or hub name to start from")
        verb.add_argument(
            "--tracker",
            action="append",
            default=[],
            help="beside console and file: wandb, tensorboard, mlflow",
        )
        verb.add_argument("--run-dir", type=Path, help="default: runs/<recipe>-<scale>")
        verb.add_argument("--launcher", default="local", help="local, ray, slurm, sky or kuberay")
        verb.add_argument("--or-resume", action="store_true", help="go on if the run is there already")
        verb.add_argument(
            "overrides", nargs="*", help="key=value of the recipe, as in budget.rl.lr=1e-5; ~key"
        )
        verb.set_defaults(run=run)

    resume = verbs.add_parser("resume", help="go on with a run that stopped")
    resume.add_argument("run_dir", type=Path)
    resume.set_defaults(run=_resume)

    add_eval_verbs(verbs)

    report = verbs.add_parser("report", help="draw the figures of a run again, from its stored metrics")
    report.add_argument("run_dir", type=Path, nargs="+")
    report.add_argument("--table", action="store_true", help="print one Markdown table of all runs instead")
    report.add_argument("--results", type=Path, help="also write what was measured into this folder, as JSON")
    report.set_defaults(run=_report)

    show = verbs.add_parser("show", help="read the episodes of a run")
    show.add_argument("run_dir", type=Path)
    show.add_argument("--arm")
    show.add_argument("--split")
    show.add_argument("--seed", type=int)
    show.add_argument("--step", type=int)
    show.add_argument("--limit", type=int, default=5)
    show.add_argument("--pictures", type=Path, help="a folder for the images that the episodes show")
    show.add_argument(
        "--out",
        type=Path,
        help="draw the episodes (routes on a map): a .png, .svg or .html file, or a folder",
    )
    show.set_defaults(run=_show)

    doctor = verbs.add_parser("doctor", help="what is installed, what verl registered, which scale fits here")
    doctor.set_defaults(run=_doctor)
    return parser


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
    return overrides


def _recipe(args: argparse.Namespace) -> tuple[object, Path]:
    from sftrl_ext.experiments.recipe_files import load_recipe

    recipe = load_recipe(args.recipe, args.scale, _overrides(args), args.launcher)
    return recipe, args.run_dir or Path("runs") / f"{recipe.name}-{recipe.scale.name}"


def _submission(args: argparse.Namespace) -> object:
    from sftrl_ext.experiments.launchers import LAUNCHERS, make_job

    recipe, _ = _recipe(args)
    job = make_job(recipe, args.recipe, _overrides(args), args.run_dir)  # type: ignore[arg-type]
    return LAUNCHERS[args.launcher](job)


def _plan(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.plan import make_plan

    if args.launcher != "local":
        console.print(str(_submission(args)), markup=False, highlight=False)
        return
    recipe, run_dir = _recipe(args)
    for stage in make_plan(recipe, run_dir.resolve()):  # type: ignore[arg-type]
        env = " ".join(f"{k}={shlex.quote(v)}" for k, v in stage.env.items())
        console.print(f"# {stage.name}: {stage.title}", style="bold", highlight=False)
        console.print(f"{env} {shlex.join(stage.command)}".strip() + "\n", markup=False, highlight=False)


def _run(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.runner import start_or_resume, start_run

    if args.launcher != "local":
        from sftrl_ext.experiments.launchers import submit

        submit(_submission(args), console)  # type: ignore[arg-type]
        return
    recipe, run_dir = _recipe(args)
    start = start_or_resume if args.or_resume else start_run
    start(recipe, run_dir, console)  # type: ignore[arg-type]
    _say_where(run_dir, console)


def _resume(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.runner import resume_run

    resume_run(args.run_dir, console)
    _say_where(args.run_dir, console)


def _say_where(run_dir: Path, console: Console) -> None:
    report = run_dir / "report"
    summary = report / "report.md"
    if summary.is_file():
        console.print(f"\nThe figures and the report: {report.resolve()}", highlight=False)
        for name in ("report.html", "report.md"):
            console.print(f"  {report.resolve() / name}", highlight=False)


def _report(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.reports import build_report, results_table

    if args.table:
        console.print(results_table(args.run_dir), markup=False, highlight=False)
        return
    for run_dir in args.run_dir:
        build_report(run_dir)
        _say_where(run_dir, console)
        if args.results is not None:
            from sftrl_ext.reports.results_file import write_results

            console.print(f"  {write_results(run_dir, args.results)}", highlight=False)


def _show(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.reports.show import show_episodes

    show_episodes(
        args.run_dir,
        console,
        arm=args.arm,
        split=args.split,
        seed=args.seed,
        step=args.step,
        limit=args.limit,
        pictures=args.pictures,
        out=args.out,
    )


def _data(args: argparse.Namespace, console: Console) -> None:
    from data_prep.build import build_file

    rows = build_file(args, lambda text: console.print(text, highlight=False, markup=False))
    what = {"virl-city": "routes", "panoramas": "places"}.get(args.kind, "rows")
    console.print(f"{args.out}: {rows} {what}", highlight=False)


def _validate(args: argparse.Namespace, console: Console) -> None:
    from data_prep.validate import validate_file

    for path in args.files:
        console.print(f"{path}: {validate_file(path)}", highlight=False)


def _doctor(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.doctor import examine

    examine(console)


if __name__ == "__main__":
    sys.exit(main())
