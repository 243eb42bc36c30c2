"""Cards of a published run: front matter that the hub reads, and what a reader wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sftrl_ext.experiments.start_models.model_source import is_hub_name
from sftrl_ext.plain_text import markdown_line
from sftrl_ext.reports.pages.tables import Table, duration
from sftrl_ext.runs.compute import TERA, flops_counted
from sftrl_ext.runs.machine import hardware_line
from sftrl_ext.runs.records import EvalRecord
from sftrl_ext.runs.run_folder import RunFolder
from sftrl_ext.runs.state import StageState
from sftrl_ext.runs.stats import binomial_se

TAG = "sftrl-ext"
"""Tag of everything that is published."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SMOKE = (
    "> A run at scale `smoke` shows that everything works. Its numbers mean nothing, and its models solve "
    "next to nothing."
)


def model_card(run: RunFolder, stage: StageState, steps: Sequence[int], images: bool) -> str:
    """The card of a stage's checkpoints.

    Args:
        run: The run.
        stage: A stage that trained.
        steps: The saved steps that are published.
        images: The model reads pictures.
    """
    records = {(r.step, r.split): r for r in run.records if r.stage == stage.name}
    last = [record for (step, _), record in records.items() if step == steps[-1]]
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text" if images else "text-generation",
        "tags": [TAG, stage.kind, *filter(None, [run.state.recipe])],
    }
    name = run.state.model.name or ""
    if is_hub_name(name):
        front["base_model"] = name
    if last:
        front["model-index"] = [{"name": stage.name, "results": [_result(r, images) for r in last]}]
    body = [
        f"# {stage.name}",
        "",
        markdown_line(run.state.title),
        "",
        *([_SMOKE, ""] if run.state.scale == "smoke" else []),
        *_facts(run, stage),
        "",
        "Each folder `step_<n>` is a checkpoint: `from_pretrained(<this repository>, subfolder='step_<n>')`.",
        "",
        _numbers(run, stage, steps, records).to_markdown(),
        "",
        "Success in percent of the episodes ± standard error, as evaluated in the run. Tokens and FLOPs are",
        "those of this stage alone; what it starts from cost its own.",
    ]
    return card(front, body)


def dataset_card(run: RunFolder, rows: Mapping[str, int], text: str, images: bool) -> str:
    """The card of a run's rows.

    Args:
        run: The run.
        rows: Name of each parquet file, without its ending, to its number of rows.
        text: The card that the data stage wrote.
        images: The rows are about pictures.
    """
    total = sum(rows.values())
    front = {
        "pretty_name": f"Rows of {run.state.recipe}, scale {run.state.scale}",
        "task_categories": ["image-text-to-text" if images else "text-generation"],
        "tags": [TAG, *filter(None, [run.state.recipe])],
        "size_categories": [next((size for most, size in _SIZES if total < most), "1M<n<10M")],
        "configs": [
            {
                "config_name": name,
                "data_files": [
                    {"split": "test" if name.startswith("eval-") else "train", "path": f"{name}.parquet"}
                ],
            }
            for name in rows
        ],
    }
    body = [
        "# Rows",
        "",
        markdown_line(run.state.title),
        "",
        "One configuration for each stage and for each evaluation split (`eval-..`). `train_turns` names the",
        "messages that carry loss: a trainer that trains on every assistant message learns the failed",
        "attempts of dialogues too. The facts in `extra_info` rebuild the episode, its pictures included.",
        "",
        text,
    ]
    return card(front, body)


def card(front: Mapping[str, Any], body: Sequence[str]) -> str:
    """A card: YAML between dashes, then Markdown."""
    matter = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n" + "\n".join(body) + "\n"


def readme(run: RunFolder, target: Path, models: Sequence[str], data: bool, notes: Sequence[str]) -> str:
    """The page of the folder: its parts, what is missing, and the commands that upload it.

    Args:
        run: The run.
        target: The published folder.
        models: Stages with checkpoints.
        data: There are rows.
        notes: One sentence for each thing that is not there.
    """
    name = f"{run.state.recipe}-{run.state.scale}"
    uploads = [f"hf upload <user>/{name}-{stage} {target}/models/{stage}" for stage in models]
    if data:
        uploads.append(f"hf upload <user>/{name}-data {target}/data --repo-type dataset")
    uploads.append(f"hf upload <user>/{name}-data {target}/results results --repo-type dataset")
    lines = [
        f"# {name}",
        "",
        markdown_line(run.state.title),
        "",
        f"Commit {run.state.commit or 'unknown'} of sftrl-ext, on {hardware_line(run.state.hardware)}.",
        "",
        "| folder | content |",
        "|---|---|",
        *(f"| `models/{stage}` | checkpoints of the stage, a model repository |" for stage in models),
        *(["| `data` | parquet files, a dataset repository |"] if data else []),
        "| `results` | numbers, episodes, recipe, report and figures |",
        "",
        *(["Not here:", "", *(f"- {note}" for note in notes), ""] if notes else []),
        "Nothing is uploaded by itself. Read `results/recipe.yaml` and `results/state.json` for paths of",
        "your machine, add a `license:` to the cards, then:",
        "",
        "```bash",
        *uploads,
        "```",
    ]
    return "\n".join(lines) + "\n"


def _facts(run: RunFolder, stage: StageState) -> list[str]:
    state = run.state
    facts = {
        "Arm": stage.arm,
        "Kind": stage.kind.upper(),
        "Seed": stage.seed,
        "Learning rate": stage.lr,
        "Starts from": stage.start,
        "Model": state.model.name,
        "Parameters": f"{state.model.parameters:,}" if state.model.parameters else None,
        "Wall time": duration(stage.wall_s),
        "Machine": hardware_line(state.hardware),
        "Commit": state.commit or None,
    }
    return [
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items() if value is not None),
    ]


def _numbers(
    run: RunFolder, stage: StageState, steps: Sequence[int], records: Mapping[tuple[int, str], EvalRecord]
) -> Table:
    """A row for each step: success on every split, tokens and FLOPs."""
    splits = list(dict.fromkeys(record.split for record in run.records))
    model, tokens = run.state.model, run.tokens.get(stage.name, {})
    rows = []
    for step in steps:
        count = tokens.get(step)
        cells = [_success(records.get((step, split))) for split in splits]
        if count is None:
            rows.append([str(step), *cells, "–", "–"])
            continue
        flops = flops_counted(model.parameters, count, model.critic_parameters) if model.parameters else None
        cost = "–" if flops is None else f"{flops / TERA:.3g}"
        rows.append([str(step), *cells, f"{count.total:,.0f}", cost])
    return Table(["Step", *splits, "Tokens", "TFLOP"], rows)


def _success(record: EvalRecord | None) -> str:
    if record is None:
        return "–"
    error = binomial_se(record.solved, record.episodes)
    return f"{100 * record.solved / record.episodes:.1f} ± {100 * error:.1f}"


def _result(record: EvalRecord, images: bool) -> dict[str, Any]:
    """One entry of ``model-index``, as the hub reads it."""
    return {
        "task": {"type": "image-text-to-text" if images else "text-generation"},
        "dataset": {"type": TAG, "name": record.data_source or record.split, "split": record.split},
        "metrics": [
            {
                "type": "success_rate",
                "name": f"success at step {record.step}, {record.episodes} episodes",
                "value": round(100 * record.solved / record.episodes, 2),
            }
        ],
    }
