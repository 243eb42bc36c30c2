"""Files of image rows, and a small model's processor as verl loads it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from data_prep.general_points import rl_rows, sft_rows, suboptimal_rows
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.render import Look
from tests.backends.tiny_vl import DEFAULT, folder

BUILDERS = {"rl": rl_rows, "sft": sft_rows, "suboptimal": suboptimal_rows}
LOOK = Look(width=112, height=56)


@cache
def processor(kind: str = DEFAULT) -> Any:
    """The processor with what verl binds to it."""
    from verl.utils.tokenizer import hf_processor

    return hf_processor(str(folder(kind)))


def tokenizer(kind: str = DEFAULT) -> Any:
    return processor(kind).tokenizer


def build(
    path: Path, kind: str = "sft", rows: int = 6, images: str = "draw", look: Look | None = LOOK
) -> str:
    """A file of the builders: of image rows, or of text rows if there is no look."""
    play = {"look": look, "modality": "image"} if look else {}
    settings = PlaySettings(template="compact", max_attempts=4, **play)
    write_rows(path, BUILDERS[kind](Source("id", settings=settings), rows, images=images))
    return str(path)


def changed(path: str, column: str, change: Any) -> str:
    """The file with one column changed, row by row."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    values = [change(row, value) for row, value in enumerate(table[column].to_pylist())]
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
    return path


def without(path: str, column: str) -> str:
    """The file without a column."""
    pq.write_table(pq.read_table(path).drop_columns(column), path)
    return path


def sft_config(**changes: Any) -> Any:
    return OmegaConf.create({"pad_mode": "no_padding", "max_length": 1024, "truncation": "error", **changes})


def marker_twice(row, messages):
    """A second marker, in the last row."""
    return messages if row < 5 else [{**messages[0], "content": "<image><image>"}, *messages[1:]]


def edited(**changes):
    """Other facts, in the last row."""

    def edit(row, extra):
        return extra if row < 5 else {**extra, "facts": json.dumps({**json.loads(extra["facts"]), **changes})}

    return edit
