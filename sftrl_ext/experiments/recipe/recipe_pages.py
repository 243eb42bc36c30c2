"""One page per recipe in ``docs/recipes``, from the recipe, ``results/*.json`` and ``docs/figures``.

`sftrl_ext.experiments.recipe.recipe_table` writes the pages together with ``recipes/README.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.paper_settings import PAPER
from sftrl_ext.experiments.recipe.recipe_files import recipe_files
from sftrl_ext.experiments.recipe.schema import ExpectedConfig, Recipe
from sftrl_ext.files import read_json
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.reports.pages.tables import Table

FIGURES = {
    "compute": "Performance against compute",
    "ood-vs-id": "OOD against ID",
    "forgetting": "Forgetting against divergence from the start",
}
"""Endings of the figures of a results file, with their captions."""

_METRICS = {"success": "success", "per_step": "per-step accuracy", "recognition": "recognition"}
_BOUNDS = {"level": "{:g}", "at_most": "at most {:g}", "change": "{:+g}"}
_COMMON = ("kind", "title", "start")
_README = "../../recipes/README.md"

_PAGE = """# {name}

**{title}**

{question}

| | |
| :-- | :-- |
| Source | {source} |
| Task | `configs/task/{task}.yaml` |
| Recipe | `recipes/{name}.yaml` |
| Other names | {also} |

```bash title="needs the extra cpu; the run takes minutes"
sftrl plan {name} --scale laptop
sftrl run {name} --scale smoke
```

## Arms

Every key that an arm changes; the rest is the budget of the scale.

{arms}

## The paper's numbers

{paper}

## Deviations from the paper

{deviations}

## Our numbers

{ours}
This page is generated: `python -m sftrl_ext.experiments.recipe.recipe_table`.
"""


@dataclass
class RecipeRuns:
    """Stored results of one recipe.

    Attributes:
        measured: Records of its results files by file stem.
        smoke: Records of its runs from data to report, whose numbers mean nothing.
    """

    measured: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    smoke: list[Mapping[str, Any]] = field(default_factory=list)


def read_runs(results: Path) -> dict[str, RecipeRuns]:
    """Read the results files of a folder, by the name of the recipe.

    Raises:
        SftrlError: if a results file names an unknown recipe or lacks a key.
    """
    files = recipe_files()
    runs = {path.stem: RecipeRuns() for path in files.values()}
    for path in sorted(results.glob("*.json")):
        record = read_json(path)
        required = {"scale", "date", "commit", "hardware"}
        required |= set() if "recipes" in record else {"recipe", "measurements"}
        if missing := required - set(record):
            raise SftrlError(f"{path}: no {', '.join(sorted(missing))}; expected the results of a recipe.")
        for name in record.get("recipes", [record.get("recipe")]):
            if name not in files:
                raise SftrlError(f"{path}: unknown recipe {name!r}; expected one that ships.")
        if "recipes" not in record:
            runs[files[record["recipe"]].stem].measured[path.stem] = record
            continue
        for name, run in record["recipes"].items():
            if run["done"]:
                runs[files[name].stem].smoke.append({**record, **run})
    return runs


def recipe_page(path: Path, recipe: Recipe, runs: RecipeRuns, figures: Path) -> str:
    """The page of one recipe in Markdown.

    Args:
        path: File of the recipe; its leading comment is the question it asks.
        recipe: The recipe, composed at scale ``node``.
        runs: Its stored results.
        figures: Folder of the figures.
    """
    arms = recipe_arms(recipe)
    return _PAGE.format(
        name=recipe.name,
        title=recipe.title,
        question=question(path),
        source=recipe.source,
        task=_task_file(path),
        also=", ".join(f"`{name}`" for name in recipe.also) or "–",
        arms=_arms_table(recipe, arms),
        paper=_paper(recipe, arms),
        deviations=_deviations(recipe),
        ours=_ours(recipe, runs, figures),
    )


def _task_file(path: Path) -> str:
    """Name of the group file of its task, which the defaults of the recipe name."""
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return next(str(entry["task"]) for entry in defaults if isinstance(entry, dict) and "task" in entry)


def question(path: Path) -> str:
    """The comment at the top of a recipe file, as one paragraph."""
    lines = path.read_text(encoding="utf-8").split("defaults:")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines).strip()


def recipe_arms(recipe: Recipe) -> Arms:
    """Kinds and titles of a recipe's arms."""
    titles = {name: arm.title for name, arm in recipe.arms.items() if arm.title}
    return Arms({name: arm.kind for name, arm in recipe.arms.items()}, titles)


def commits(runs: RecipeRuns) -> str:
    """Scale and commit of each stored run."""
    entries = [*runs.measured.values(), *runs.smoke]
    return "; ".join(f"`{e['scale']}` at {_short(e['commit'])}" for e in entries)


def _short(commit: str) -> str:
    """Text with every commit cut to seven digits."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]+\b", r"\1", commit)


def _arms_table(recipe: Recipe, arms: Arms) -> str:
    rows = [
        [f"`{name}`", arms.label(name), arm.kind.upper(), f"`{arm.start}`", _changes(arm)]
        for name, arm in recipe.arms.items()
    ]
    return Table(["Arm", "Title", "Kind", "Starts from", "Changes"], rows, text_columns=5).to_markdown()


def _changes(arm: ArmConfig) -> str:
    """Keys of an arm whose value is not the default."""
    default = ArmConfig(kind=arm.kind)
    changed: dict[str, Any] = {}
    for key in (f.name for f in fields(arm) if f.name not in _COMMON):
        value = getattr(arm, key)
        if isinstance(value, dict):
            changed |= {f"{key}.{name}": number for name, number in value.items()}
        elif value != getattr(default, key):
            changed[key] = value
    return ", ".join(f"`{key}={_override(value)}`" for key, value in changed.items()) or "–"


def _override(value: Any) -> str:
    """A value as an override on the command line has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_override, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paper(recipe: Recipe, arms: Arms) -> str:
    if PAPER not in recipe.source:
        return "The experiment is not in the paper."
    if not recipe.expected:
        return "The paper gives curves and no numbers."
    rows = [
        [entry.source.rpartition(", ")[2], f"`{entry.split}`", _metric(entry), _expected_numbers(entry, arms)]
        for entry in recipe.expected
    ]
    models = ", ".join(dict.fromkeys(entry.model for entry in recipe.expected))
    table = Table(["Figure", "Split", "Metric", "Numbers"], rows, text_columns=4).to_markdown()
    return f"In percent, of the paper's own model ({models}). They are not results of this code.\n\n{table}"


def _metric(entry: ExpectedConfig) -> str:
    return _METRICS[entry.metric] + (", change from the start" if entry.says == "change" else "")


def _expected_numbers(entry: ExpectedConfig, arms: Arms) -> str:
    given = {"sft": entry.sft, "init": entry.init, "rl": entry.rl, **entry.arms}
    form = _BOUNDS[entry.says]
    numbers = [f"{arms.label(arm)} {form.format(value)}" for arm, value in given.items() if value is not None]
    if entry.previous_best is not None:
        numbers.append(f"previous best {entry.previous_best:g}")
    return ", ".join(numbers)


def _deviations(recipe: Recipe) -> str:
    common = (
        f"those of [every recipe]({_README}#what-is-ours-at-node) "
        f"and of [the smaller scales]({_README}#what-is-ours-at-the-other-scales)"
    )
    rows = [
        [d.what, ", ".join(f"`{s}`" for s in d.scales) or "all", d.paper, d.ours, d.why]
        for d in recipe.deviations
    ]
    if PAPER not in recipe.source:
        parts = ["Not applicable."]
    elif rows:
        header = ["Setting", "Scales", "The paper", "Ours", "Why"]
        parts = [f"In addition to {common}:", Table(header, rows, text_columns=5).to_markdown()]
    else:
        parts = [f"Only {common}."]
    if recipe.unequal_compute:
        parts.append(f"Arms end at unequal compute: {recipe.unequal_compute}.")
    return "\n\n".join(parts)


def _ours(recipe: Recipe, runs: RecipeRuns, figures: Path) -> str:
    parts = [_measured(stem, record, figures) for stem, record in runs.measured.items()]
    if not parts:
        parts.append("No measured run is stored.\n")
    for run in runs.smoke:
        shared = f", {run['shared']} stages shared with other recipes" if run["shared"] else ""
        parts.append(
            f"Scale `{run['scale']}` ({run['date']}, commit {_short(run['commit'])}, {run['hardware']}): "
            f"from data to report in {run['wall_s']:.0f} s{shared}. Numbers at this scale mean nothing.\n"
        )
    if PAPER in recipe.source:
        numbers = re.findall(r"\d+", recipe.source.partition("Figure")[2].partition("(")[0])
        drawn = ", ".join(f"Figure {number}" for number in numbers)
        parts.append(f"In the paper's form: [{drawn}](../figures.md).\n")
    return "\n".join(parts)


def _measured(stem: str, record: Mapping[str, Any], figures: Path) -> str:
    """Section of one results file: where it ran, the compared checkpoints, the figures."""
    first = record["measurements"][0]
    model = record["model"]
    if not isinstance(model, str):
        model = f"{model['name']} with {model['parameters']:,} parameters"
    measure = record.get("measure") or record["metric"]
    if measure == "per-step accuracy" and any(row.get("se_unit") != "route" for row in first["rows"]):
        measure += ", with errors per response (too small: responses of one route are correlated)"
    facts = [f"- Model: {model}", f"- Hardware: {record['hardware']}", f"- Compared: {first['what']}"]
    facts += ["- Routes: **synthetic cities**"] if record.get("synthetic_cities") else []
    facts += [f"- Numbers: percent ± standard error, {measure}"]
    pictures = [
        f"![{caption}](../figures/{stem}-{ending}.png)\n"
        for ending, caption in FIGURES.items()
        if (figures / f"{stem}-{ending}.png").is_file()
    ]
    return "\n".join([
        f"### `{record['scale']}`, commit {record['commit']}, {record['date']}\n",
        *facts,
        f"\n{_measured_table(first['rows'], record)}\n",
        *pictures,
        f"Data: `results/{stem}.json`; discussion: [Results](../../RESULTS.md).\n",
    ])  # fmt: skip


def _measured_table(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    arms = Arms({}, {name: arm["title"] for name, arm in record.get("arms", {}).items() if "title" in arm})
    splits = list(dict.fromkeys(split for row in rows for split in row["percent"]))
    body = []
    for row in rows:
        values = [
            f"{row['percent'][s]:.1f} ± {row['se'][s]:.1f}" if s in row["percent"] else "–" for s in splits
        ]
        compute = row.get("tflop_counted")
        body.append([
            arms.label(row["arm"]), lr_label(row.get("lr")), str(row.get("step", "–")), str(row["seeds"]),
            "–" if compute is None else f"{compute:g}", *values,
        ])  # fmt: skip
    return Table(["Arm", "lr", "Step", "Seeds", "TFLOP (counted)", *splits], body).to_markdown()
