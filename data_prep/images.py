"""Pictures inside the rows: PNG bytes in the column ``images``, for readers that cannot draw.

Rows of image hands hold what is drawn, not the pixels; our rollout and evaluation draw. A file for other
readers, verl's own data sets among them, can hold the pictures as well.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from data_prep.schema import IMAGE_SCHEMA
from sftrl_ext.envs import make_episode, parse_facts
from sftrl_ext.errors import SftrlError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

Images = Literal["draw", "embed"]
"""Source of a row's pictures: drawn by the reader from the facts, or stored in the row."""

IMAGE_ROW_GROUP = 128
"""Rows whose pictures are in memory together."""

AS_IMAGES = {
    "huggingface": json.dumps(
        {"info": {"features": {"images": {"_type": "Sequence", "feature": {"_type": "Image"}}}}}
    )
}
"""Metadata of a parquet file by which `datasets` and the viewer of the hub show ``images`` as pictures."""


def check_images(images: str, modality: str) -> None:
    """Refuse an unknown choice, and pictures in rows that have none.

    Raises:
        SftrlError: in those cases.
    """
    if images not in get_args(Images):
        raise unknown_name("choice of images", images, get_args(Images))
    if images == "embed" and modality != "image":
        raise SftrlError(f"images are embedded only with modality 'image'; found {modality!r}.")


def embed_images(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Add the column ``images`` to tables of rows, `IMAGE_ROW_GROUP` rows at a time.

    Args:
        tables: Tables of `SCHEMA`.

    Returns:
        Tables of `IMAGE_SCHEMA`, with the pictures that each row's episode draws.
    """
    field = IMAGE_SCHEMA.field("images")
    for table in tables:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **AS_IMAGES})
        for start in range(0, table.num_rows, IMAGE_ROW_GROUP):
            part = table.slice(start, IMAGE_ROW_GROUP)
            pictures = [_pictures(extra["facts"]) for extra in part["extra_info"].to_pylist()]
            yield part.append_column(field, pa.array(pictures, field.type))


def png_bytes(image: Image) -> bytes:
    """A picture as a PNG file: nothing is lost."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _pictures(facts: str) -> list[dict[str, Any]]:
    episode = make_episode(parse_facts(facts, "extra_info.facts"))
    return [{"bytes": png_bytes(image), "path": None} for image in episode.images()]
