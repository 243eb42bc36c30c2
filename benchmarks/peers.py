"""What a user would take instead, beside ours: TRL's GRPO, transformers' sampling, reasoning-gym's verifiers.

    make peers                                    # builds .venv-peers, measures, rewrites the table
    python -m benchmarks.peers --part generation  # one of training, generation, verifiers
    python -m benchmarks.peers --table            # only the table in README.md, from peers.json

Each side is measured in a process of its own, with the same model, prompts and number of threads. Results of
a part replace those of the same part in `peers.json`. Run it on free cores, with `--free-cores`: two threads
that share a core with other work wait for each other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sftrl_ext.files import read_json, write_json, write_text
from sftrl_ext.runs.machine import describe_commit, describe_hardware

FOLDER = Path(__file__).parent
STORED, README = FOLDER / "peers.json", FOLDER / "README.md"
BEGIN, END = "<!-- peers: begin -->\n", "<!-- peers: end -->\n"
PACKAGES = ("torch", "transformers", "trl", "reasoning-gym", "sympy", "verl", "sftrl-ext")
PARTS = ("training", "generation", "verifiers")
DATASETS = ("puzzle24", "countdown")
INSTANCES = 100
"""Instances that a data set is timed on."""


def versions() -> dict[str, str]:
    """Versions of the packages that are compared, as far as they are installed."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def measure_training(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Median updates of every trainer for every number of threads; verl has two processes of one."""
    from benchmarks.peer_inputs import measure_apart

    results: dict[str, Any] = {}
    for threads in options.threads:
        settings = {"model": model, "threads": threads, "updates": options.updates}
        for side in ("plain loop", "trl"):
            results[f"{side}, {_threads(threads)}"] = measure_apart(
                "peer_training", {**settings, "side": side}
            )
    if options.verl:
        settings = {"model": model, "side": "verl", "updates": options.updates}
        results["verl, 2 threads"] = measure_apart("peer_training", settings)
    for name, row in results.items():
        peer = results.get(f"trl, {name.rpartition(', ')[2]}")
        if peer is not None and not name.startswith("trl"):
            row["ratio_episodes_per_s"] = round(row["episodes_per_s"] / peer["episodes_per_s"], 2)
            if "cpu_s" in row:
                row["ratio_per_cpu_s"] = round(peer["cpu_s"] / row["cpu_s"], 2)
    return results


def measure_generation(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of both sides for every number of threads, and their ratios."""
    from benchmarks.peer_inputs import measure_apart

    results: dict[str, Any] = {}
    for threads in options.threads:
        settings = {"model": model, "threads": threads, "batches": [64, 256], "rounds": options.rounds}
        sides = {
            side: measure_apart("peer_generation", {**settings, "side": side})
            for side in ("ours", "transformers")
        }
        for case, speed in sides["ours"].items():
            peer = sides["transformers"][case]
            ratio = {f"ratio_{key}": round(speed[key] / peer[key], 2) for key in speed}
            results[f"{case}, {_threads(threads)}"] = {"ours": speed, "transformers": peer, **ratio}
    return results


def measure_verifiers(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Verdicts and instances of both sides on both data sets."""
    from benchmarks.peer_inputs import measure_apart

    def result(side: str, dataset: str) -> Any:
        return measure_apart("peer_verifiers", {"side": side, "dataset": dataset, "count": INSTANCES})

    results: dict[str, Any] = {}
    for dataset in DATASETS:
        ours, peer = result("ours", dataset), result("reasoning-gym", dataset)
        rates = [key for key in ours if key.endswith("_per_s")]
        ratio = {f"ratio_{key}": round(ours[key] / max(peer[key], 1), 1) for key in rates}
        results[dataset] = {"ours": ours, "reasoning-gym": peer, **ratio}
    return results


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def training_table(results: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the updates."""
    titles = ("GRPO update", "seconds", "of them sampling", "CPU seconds", "episodes/s")
    titles = (*titles, "generated tokens/s", "trained tokens/s", "episodes/s over TRL's", "per CPU second")
    yield f"| {' | '.join(titles)} |"
    yield "|---|" + "---:|" * 8
    for name, row in results.items():
        keys = ("step_s", "sample_s", "cpu_s", "episodes_per_s", "generated_tokens_per_s")
        keys = (*keys, "trained_tokens_per_s", "ratio_episodes_per_s", "ratio_per_cpu_s")
        yield f"| {name} | " + " | ".join(str(row.get(key, "")) for key in keys) + " |"


def generation_table(results: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the speeds of sampling."""
    yield "| sampled tokens/s | ours | `transformers.generate` | ratio | ratio per CPU second |"
    yield "|---|---:|---:|---:|---:|"
    for case, row in results.items():
        speeds = f"{row['ours']['tokens_per_s']} | {row['transformers']['tokens_per_s']}"
        yield f"| {case} | {speeds} | {row['ratio_tokens_per_s']} | {row['ratio_tokens_per_cpu_s']} |"


def verifiers_table(results: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the verdicts."""
    sides = [(dataset, side) for dataset in results for side in ("ours", "reasoning-gym")]
    yield "| | " + " | ".join(f"{dataset}, {side}" for dataset, side in sides) + " |"
    yield "|---|" + "---:|" * len(sides)
    for title, key in (
        ("instances/s, each with a right answer", "instances_per_s"),
        ("verdicts/s on right answers", "right_verdicts_per_s"),
        ("verdicts/s on wrong answers", "wrong_verdicts_per_s"),
        (f"right answers of {INSTANCES} instances that it rejects", "right_answers_misjudged"),
        ("stated answers", "answers"),
        ("of these, wrong verdicts", "wrong"),
        ("no verdict within 2 CPU seconds", "no_verdict"),
        ("answers that it ran as code", "answers_run"),
    ):
        values = [results[dataset][side].get(key, "") for dataset, side in sides]
        shown = [str(len(value) if isinstance(value, list) else value) for value in values]
        yield f"| {title} | " + " | ".join(shown) + " |"
    yield ""
    for dataset, side in sides:
        for title, key in (("wrong verdicts", "wrong"), ("no verdict", "no_verdict")):
            if results[dataset][side][key]:
                yield f"- {side}, {dataset}, {title}: {'; '.join(results[dataset][side][key])}."


TABLES = {"training": training_table, "generation": generation_table, "verifiers": verifiers_table}
MEASURES = {"training": measure_training, "generation": measure_generation, "verifiers": measure_verifiers}


def table(stored: Mapping[str, Any]) -> str:
    """The section of the README: one table a part, and where it was measured."""
    lines: list[str] = []
    for part in PARTS:
        if part not in stored:
            continue
        entry = stored[part]
        hardware, installed = entry["machine"], entry["versions"]
        packages = ", ".join(f"{name} {number}" for name, number in installed.items() if name != "sftrl-ext")
        cores = "free cores" if entry["free_cores"] else "cores shared with other work"
        lines += [*TABLES[part](entry["results"]), ""]
        lines += [f"{hardware['cpu']}, {cores}; {packages}; commit {entry['commit']}; {entry['model']}.", ""]
    return "\n".join(lines)


def with_table(readme: str, stored: Mapping[str, Any]) -> str:
    """The README with the section of `table` in its place."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table(stored) + END + rest.split(END)[1]


def measure_parts(parts: Sequence[str], options: argparse.Namespace) -> None:
    """Measure parts, and store each with its machine, versions and commit."""
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            from benchmarks.peer_inputs import build_start

            build_start(Path(folder, "start"))
        model = str((options.model or Path(folder, "start")).resolve())
        commit = describe_commit()  # before the stored results change
        for part in parts:
            entry = {
                "machine": describe_hardware(),
                "versions": versions(),
                "commit": commit,
                "free_cores": options.free_cores,
                "model": "random weights" if options.model is None else "weights of a trained init",
                "results": MEASURES[part](model, options),
            }
            stored = read_json(STORED) if STORED.is_file() else {}
            write_json(STORED, {**stored, part: entry})


def main() -> None:
    """Measure the parts, store them, and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this part")
    parser.add_argument("--model", type=Path, help="folder of the model; default: the laptop's, untrained")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=6, help="updates of a trainer, the first left out")
    parser.add_argument("--verl", action="store_true", help="also the recipe's own RL stage, by verl")
    parser.add_argument("--free-cores", action="store_true", help="nothing else runs on the machine")
    options = parser.parse_args()
    if not options.table:
        measure_parts(options.part or PARTS, options)
    stored = read_json(STORED)
    write_text(README, with_table(README.read_text(encoding="utf-8"), stored))
    if not options.table:
        print(STORED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
