"""The draw of a file's hands, kept in the metadata of its parquet, and its exact shares for the dataset card.

Facts of a row hold the hand and not how it was drawn, so the file holds one `HandSpec` for each split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import pyarrow as pa

from data_prep.splits import Split
from sftrl_ext.envs.general_points.hands import Draw, HandSpec
from sftrl_ext.envs.general_points.shares import draw_shares
from sftrl_ext.errors import SftrlError

KEY = b"sftrl.hands"
"""Key of the parquet metadata: JSON of split name to the fields of `HandSpec`."""

MOST_CARDS = 4
"""Shares of hands of more cards are not enumerated: their solver takes minutes over all multisets. Those of
families are not either."""

DRAWS: dict[str, str] = {
    "iid": "every rank is drawn independently, and hands without a J, Q or K are redrawn",
    "authors": "one card is drawn among J, Q and K, the others independently, in a shuffled order, as in the "
    "published code",
    "deck": "cards are dealt without replacement from one deck, and hands without a J, Q or K redrawn",
}
"""Draw to its description, for splits whose hands need a J, Q or K."""


def with_draws(table: pa.Table, splits: Iterable[Split]) -> pa.Table:
    """A table with the hands of its splits in the schema's metadata."""
    hands = {
        split.name: {key: value for key, value in asdict(split.hands).items() if value is not None}
        for split in splits
    }
    return table.replace_schema_metadata({KEY: json.dumps(hands)})


def read_draws(schema: pa.Schema, where: str | Path) -> dict[str, HandSpec]:
    """Split name to the hands that were drawn for it; empty for a file that does not say.

    Raises:
        SftrlError: if the metadata has another form.
    """
    text = (schema.metadata or {}).get(KEY)
    if text is None:
        return {}
    try:
        return {str(name): HandSpec(**fields) for name, fields in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise SftrlError(
            f"{where}: metadata {KEY.decode()!r}: expected split names with fields of hands ({error})."
        ) from None


def draw_lines(hands: Mapping[str, Sequence[HandSpec]]) -> list[str]:
    """Lines of the card: for each split whose hands need a J, Q or K its draw, beside the other draws.

    Args:
        hands: Split name to the different hands that files hold of it.
    """
    body = []
    for split, specs in hands.items():
        for spec in specs:
            if not spec.need_face:
                continue
            for draw in sorted(get_args(Draw), key=lambda name: name != spec.draw):
                name = f"**{draw}**" if draw == spec.draw else draw
                body.append(f"| {split} | {name} | {_shares(replace(spec, draw=draw))} |")
    if not body:
        return []
    return [
        "",
        "## Draw of the hands",
        "",
        "Splits whose hands hold a J, Q or K; the draw of the files in bold, the others for comparison.",
        "Shares are exact, of the solvable hands of a split; the last column is the share of its hands that",
        "have a solution under `face_10` too.",
        "",
        *(f"- `{name}`: {text}." for name, text in DRAWS.items()),
        "",
        "| split | draw | exactly one J, Q, K | solvable under `face_10` |",
        "|---|---|---:|---:|",
        *body,
    ]


def _shares(spec: HandSpec) -> str:
    if spec.num_cards > MOST_CARDS or spec.family is not None:
        return "– | –"
    shares = draw_shares(spec)
    return f"{100 * float(shares.one_face):.1f} % | {100 * float(shares.other_rule):.1f} %"
