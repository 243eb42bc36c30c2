"""Command line ``sftrl``: argument parser and the verbs data, validate, report, show, watch and doctor."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

import sftrl_ext
from data_prep.options import DataOptions
from sftrl_ext.cli_eval import add_eval_verbs
from sftrl_ext.cli_list import add_list_verb
from sftrl_ext.cli_new import add_new_verb
from sftrl_ext.cli_plugin import add_plugin_option
from sftrl_ext.cli_rehearse import add_rehearse_verb
from sftrl_ext.cli_run import RUN_HELP, add_run_verbs, find_run, print_comparison, print_report
from sftrl_ext.cli_template import add_template_verb
from sftrl_ext.errors import SftrlError, error_text
from sftrl_ext.plain_text import printable
from sftrl_ext.plugins import load_plugins

Add = Callable[[argparse.ArgumentParser], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0, 2 for bad input (the message says how to fix it), or 130 if interrupted.
    """
    args = _parse(argv)
    # SIGTERM stops the current stage as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = _console()
    try:
        args.run(args, console)
    except (SftrlError, OSError) as error:
        _console(stderr=True).print(f"[bold red]error:[/] {_escape(error_text(error))}", highlight=False)
        return 2
    except KeyboardInterrupt as stop:
        message = str(stop) or "finished stages are kept. Continue with `sftrl resume <run folder>`."
        _console(stderr=True).print(f"interrupted; {_escape(message)}", highlight=False)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; overrides (key=value, ~key) and options may come in any order."""
    parser = _parser()
    args, extra = parser.parse_known_args(argv)
    overrides = [arg for arg in extra if ("=" in arg or arg.startswith("~")) and not arg.startswith("-")]
    if extra and (len(overrides) < len(extra) or "overrides" not in args):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    if overrides:
        args.overrides = [*args.overrides, *overrides]
    return args


def _console(stderr: bool = False) -> Console:
    """Console that prints ``:x:`` as it is, in a path or a name; rich makes a picture of it."""
    return Console(stderr=stderr, soft_wrap=True, emoji=False)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sftrl", description=sftrl_ext.__doc__)
    parser.add_argument("--version", action="version", version=f"sftrl-ext {sftrl_ext.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="verb")

    data = verbs.add_parser("data", help="build or import parquet files")
    DataOptions.add_to(data)
    data.set_defaults(run=_data)

    validate = verbs.add_parser("validate", help="check the rows of parquet files")
    validate.add_argument("files", type=Path, nargs="+")
    validate.set_defaults(run=_validate)

    add_template_verb(verbs)
    add_new_verb(verbs)
    add_run_verbs(verbs)
    add_list_verb(verbs)
    add_rehearse_verb(verbs)
    add_eval_verbs(verbs)

    report = verbs.add_parser("report", help="rebuild the report of a run from its stored metrics")
    report.add_argument(
        "run_dir", type=Path, nargs="+", help=f"{RUN_HELP}; with --figure, also a results file"
    )
    report.add_argument("--figure", help="draw one figure of the paper from these runs: fig5, fig6, ..")
    report.add_argument("--axis", choices=("counted", "paper", "tokens"), help="compute axis of --figure")
    report.add_argument(
        "--out",
        type=Path,
        default=Path(),
        help="output folder of --figure and --against; default: the working folder",
    )
    report.add_argument(
        "--against",
        metavar="KEY",
        help="draw these runs against a key of their recipes, as in task.exposure.rule_ood",
    )
    report.add_argument("--table", action="store_true", help="print one Markdown table of all runs instead")
    report.add_argument("--results", type=Path, help="also write the measurements as JSON into this folder")
    report.add_argument(
        "--rl-tokens",
        choices=("per_epoch", "once"),
        help="how D_RL of the paper's formula counts tokens; default: as in the recipe",
    )
    report.set_defaults(run=_report)

    publish = verbs.add_parser("publish", help="write a finished run as repositories of the Hugging Face hub")
    publish.add_argument("run_dir", type=Path)
    publish.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder")
    publish.add_argument("--embed-images", action="store_true", help="write pictures into the parquet files")
    publish.set_defaults(run=_publish)

    show = verbs.add_parser("show", help="print or draw the stored episodes of a run")
    show.add_argument("source", type=Path, nargs="+", help=f"{RUN_HELP}; or files of episodes: evals/*.jsonl")
    show.add_argument("--arm")
    show.add_argument("--split")
    show.add_argument("--seed", type=int)
    show.add_argument("--step", type=int)
    show.add_argument("--limit", type=int, help="default: 5; all in an .html page")
    show.add_argument("--pictures", type=Path, help="folder to save the images of the episodes in")
    show.add_argument(
        "--out",
        type=Path,
        help="draw the episodes (routes on a map) into a .png, .svg or .html file, or a folder",
    )
    show.set_defaults(run=_show)

    watch = verbs.add_parser("watch", help="serve the report of a run on this machine while the run goes on")
    watch.add_argument("run_dir", type=Path)
    watch.add_argument("--port", type=int, default=8017, help="port of the loopback address; 0: any free one")
    watch.set_defaults(run=_watch)

    doctor = verbs.add_parser(
        "doctor", help="check the installation, the verl plug-ins, and which scales fit here"
    )
    doctor.set_defaults(run=_doctor)
    add_plugin_option(data, validate, doctor)
    return parser


def _report(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.reports import build_report, results_table

    run_dirs = [find_run(run_dir) for run_dir in args.run_dir]
    if args.figure is not None:
        from sftrl_ext.reports.figures.matplotlib_needed import needs_matplotlib

        with needs_matplotlib("a figure"):
            from sftrl_ext.reports.paper.figures import write_paper_figure
        for path in write_paper_figure(args.figure, run_dirs, args.out, args.axis, args.rl_tokens):
            console.print(f"  {path}", markup=False, highlight=False)
        return
    if args.against is not None:
        print_comparison(run_dirs, args.against, args.out, console)
        return
    if args.table:
        console.print(results_table(run_dirs), markup=False, highlight=False)
        return
    for run_dir in run_dirs:
        build_report(run_dir, args.rl_tokens)
        print_report(run_dir, console)
        if args.results is not None:
            from sftrl_ext.reports.results_file import write_results

            console.print(f"  {write_results(run_dir, args.results)}", markup=False, highlight=False)


def _publish(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.publish.publish import publish_run

    publish_run(args.run_dir, args.to, console, args.embed_images)
    console.print(
        f"{args.to / 'README.md'}: what is here, and how to upload it", markup=False, highlight=False
    )


def _show(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.reports.episodes.show import show_episodes

    show_episodes(
        [path if path.is_file() else find_run(path) for path in args.source],
        console,
        arm=args.arm,
        split=args.split,
        seed=args.seed,
        step=args.step,
        limit=args.limit,
        pictures=args.pictures,
        out=args.out,
    )


def _watch(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.reports.watch import watch_run

    watch_run(args.run_dir, console, args.port)


def _data(args: argparse.Namespace, console: Console) -> None:
    from data_prep.build import build_file, unit_of

    load_plugins(args.plugins)
    options = DataOptions.of(args)
    rows = build_file(options, lambda text: console.print(text, highlight=False, markup=False))
    console.print(f"{args.out}: {rows} {unit_of(args.kind)}", markup=False, highlight=False)


def _validate(args: argparse.Namespace, console: Console) -> None:
    from data_prep.validate import validate_file

    load_plugins(args.plugins)
    for path in args.files:
        console.print(f"{path}: {printable(str(validate_file(path)))}", markup=False, highlight=False)


def _doctor(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.doctor import examine

    examine(console, args.plugins)


if __name__ == "__main__":
    sys.exit(main())
