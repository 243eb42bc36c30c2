"""Share of a training step that is spent on images, for a finished run of cards shown as images.

    python benchmarks/image_share.py runs/fig7_gp_vl-laptop

Measured here on one core, with the run's own model and rows: drawing a picture, cutting it into patches, and
the vision encoder forwards and backwards. How often each happens in a step is the recipe's; how long a step
took is in the run's metrics. The floor is a step whose pictures cost nothing (share 0). Times are of the
process, the best of several rounds; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from step_times import median, timed_steps
from timing import best_seconds
from transformers import AutoModelForImageTextToText

from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.hf_folder import load_processor
from sftrl_ext.runs.checkpoints import list_checkpoints
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.training.dataset_rows import read_facts
from sftrl_ext.training.row_images import draw_images
from sftrl_ext.training.sft_images import ImageRows

IMAGES = 64


def costs(layout: RunLayout) -> dict[str, float]:
    """Seconds for one image: drawn, cut into patches, encoded, and encoded with its gradients."""
    folder = list_checkpoints(layout.checkpoints("init"))[-1].folder
    facts = read_facts(str(layout.rows("init"))).to_pylist()[:IMAGES]
    pictures = [draw_images(text, "row") for text in facts]
    rows = ImageRows(load_processor(folder))
    inputs = [rows.inputs(images) for images in pictures]
    pixels = torch.cat([one["pixel_values"] for one in inputs])
    grids = torch.cat([one["image_grid_thw"] for one in inputs])
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa")

    def encode() -> torch.Tensor:
        return torch.cat(list(model.model.get_image_features(pixels, grids).pooler_output))

    def learn() -> None:
        encode().sum().backward()

    def look() -> None:
        with torch.no_grad():
            encode()

    calls = {
        "draw": lambda: [draw_images(text, "row") for text in facts],
        "patches": lambda: [rows.inputs(images) for images in pictures],
        "encode": look,
        "encode_and_backward": learn,
    }
    return {name: best_seconds(call, rounds=5) / len(facts) for name, call in calls.items()}


def sft_step_seconds(layout: RunLayout, stage: str) -> float:
    """Wall seconds of a supervised step: those of the stage's command over its steps, start-up included."""
    state = json.loads(layout.state.read_text())
    found = next(entry for entry in state["stages"] if entry["name"] == stage)
    return found["wall_s"] / len(layout.metrics(stage).read_text().splitlines())


def main() -> None:
    """Print the costs, and the shares of both kinds of step."""
    torch.set_num_threads(1)
    layout = RunLayout(Path(sys.argv[1]))
    recipe = from_yaml(layout.recipe)
    each = costs(layout)
    ranks = recipe.scale.n_gpus_per_node * recipe.scale.nnodes
    stages = [folder.name for folder in sorted((layout.root / "stages").iterdir())]
    sft, rl = (next(name for name in stages if name.startswith(f"{arm}-")) for arm in ("sft", "rl"))
    rows, episodes = recipe.budget.sft.batch_size, recipe.budget.rl.episodes
    prompts = episodes // recipe.budget.rl.group
    # Supervised: once a row. Reinforcement: the data set draws each prompt to count its tokens, the agent
    # loop each episode; patches are cut by the loop and by each engine; engines encode a prompt once; the
    # trainer encodes each episode in the pass before the update, and with gradients in each epoch of it.
    parts = {
        "sft": {
            "draw": rows * each["draw"],
            "patches": rows * each["patches"],
            "encoder": rows * each["encode_and_backward"],
        },
        "rl": {
            "draw": (prompts + episodes) * each["draw"],
            "patches": (episodes + ranks * prompts) * each["patches"],
            "encoder in engines": ranks * prompts * each["encode"],
            "encoder in the trainer": episodes
            * (each["encode"] + recipe.budget.rl.epochs * each["encode_and_backward"]),
        },
    }
    steps = {
        "sft": sft_step_seconds(layout, sft),
        "rl": median(timed_steps(layout.metrics(rl)), "timing_s/step"),
    }
    report = {
        "microseconds of an image": {name: round(value * 1e6) for name, value in each.items()},
        "cores": ranks,
        "step_s": {arm: round(seconds, 3) for arm, seconds in steps.items()},
        "core_seconds": {arm: {k: round(v, 3) for k, v in found.items()} for arm, found in parts.items()},
        "share_on_images": {
            arm: round(sum(found.values()) / (ranks * steps[arm]), 3) for arm, found in parts.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
