"""Rows per second of the supervised data set: ``python benchmarks/bench_dataset.py [rows]``.

Dialogues with failed attempts in them, read in batches of 32 as a data loader does: text, and pictures of two
sizes for patches of 14 pixels. Prints one JSON object with rows per second of processor time, the shares of
drawing a picture, of cutting it into patches and of the rest (tokens, positions), and for pictures the floor:
the image processor alone. Exits with 1 if a bound is missed. Times are of the process, the best of several
rounds.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import best_seconds

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoProcessor

from data_prep.general_points import suboptimal_rows
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.experiments.recipe.schema import ModelConfig, VisionConfig
from sftrl_ext.experiments.start_models.tiny_vision import build_tiny_qwen_vl
from sftrl_ext.training.dataset_rows import read_facts
from sftrl_ext.training.row_images import draw_images
from sftrl_ext.training.sft_dataset import TurnSFTDataset

BATCH = 32
SIZES = {"text": None, "224x84": Look(224, 84), "336x336": Look(336, 336)}
AT_LEAST_ROWS_PER_S = {"text": 5000.0, "224x84": 900.0, "336x336": 300.0}
"""Several times what a model of a million parameters learns from on the same core."""


def best_us(call: Callable[[], object], rows: int) -> float:
    """Microseconds per row of a call that handles so many."""
    return best_seconds(call, rounds=5) / rows * 1e6


def processor_of(folder: Path) -> Any:
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2}
    config = ModelConfig(
        name="b", vocab_size=512, max_positions=2048, vision=VisionConfig(**sizes, patch_size=14), **sizes
    )
    build_tiny_qwen_vl(folder, ["cards: J=10 Q=10 K=10, target 24, formula 10+5*2+4=24"] * 50, config, seed=0)
    return AutoProcessor.from_pretrained(folder)


def measure(folder: Path, name: str, processor: Any, rows: int) -> dict[str, float]:
    look = SIZES[name]
    play = PlaySettings(template="compact", modality="image" if look else "text", look=look)
    file = folder / f"{name}.parquet"
    write_rows(file, suboptimal_rows(Source("id", settings=play), rows))
    data = TurnSFTDataset(
        str(file), processor.tokenizer, {"max_length": 2048, "pad_mode": "no_padding"}, look and processor
    )

    def read() -> None:
        for start in range(0, rows, BATCH):
            data.__getitems__(range(start, min(rows, start + BATCH)))

    read()
    whole = best_us(read, rows)
    if data.images is None:
        return {"rows_per_s": round(1e6 / whole), "row_us": round(whole, 1)}
    facts = read_facts(str(file)).to_pylist()
    pictures = [draw_images(text, "row") for text in facts]

    def draw() -> None:
        for text in facts:
            draw_images(text, "row")

    def cut() -> None:
        # A batch's patches are in memory together, as in a data loader.
        for start in range(0, rows, BATCH):
            _ = [data.images.inputs(images) for images in pictures[start : start + BATCH]]

    drawing, patches = best_us(draw, rows), best_us(cut, rows)
    return {
        "rows_per_s": round(1e6 / whole),
        "row_us": round(whole, 1),
        "drawing_share": round(drawing / whole, 3),
        "patches_share": round(patches / whole, 3),
        "rest_share": round(1 - (drawing + patches) / whole, 3),
        "floor_rows_per_s": round(1e6 / patches),
        "over_floor": round(whole / patches, 2),
    }


def main() -> int:
    """Measure, print, and compare with the bounds."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    with tempfile.TemporaryDirectory() as folder:
        processor = processor_of(Path(folder) / "model")
        found = {name: measure(Path(folder), name, processor, rows) for name in SIZES}
    print(json.dumps({**found, "at_least_rows_per_s": AT_LEAST_ROWS_PER_S}, indent=2))
    return int(any(found[name]["rows_per_s"] < least for name, least in AT_LEAST_ROWS_PER_S.items()))


if __name__ == "__main__":
    sys.exit(main())
