"""Seeded damage to the content of files and requests."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    2**31,
    2**63,
    10**400,
    -0.5,
    1e-300,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    "0",
    "nan",
    "\x00",
    "\ud800",
    "\x1b[2J",
    "../../../evil",
    "/etc/passwd",
    "{{ 7 * 7 }}",
    "${oc.env:HOME}",
    "a" * 5000,
    "[" * 2000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [1, "x", None],
)
"""Values that take the place of any part of a JSON value."""


def damaged_bytes(source: random.Random, data: bytes) -> bytes:
    """The bytes with one to eight changes, half of them near the end, where parquet has its footer."""
    damaged = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        first = 0 if source.random() < 0.5 else max(0, len(damaged) - 2000)
        start = source.randrange(first, len(damaged) + 1)
        end = min(len(damaged), start + source.choice((1, 1, 4, 100)))
        kind = source.randrange(5)
        if kind == 0:
            del damaged[start:]
        elif kind == 1:
            del damaged[start:end]
        elif kind == 2:
            damaged[start:start] = damaged[start:end]
        elif kind == 3:
            damaged[start:start] = source.choice((b"\x00", b"\xff", b"{", b"]", b'"', b",", b"-", b"9" * 400))
        else:
            damaged[start:end] = source.randbytes(end - start)
    return bytes(damaged)


def damaged_value(source: random.Random, value: Any, hostile: Sequence[Any] = HOSTILE) -> Any:
    """A copy of a JSON value with one to three of its parts replaced, removed, doubled or exchanged."""
    damaged = json.loads(json.dumps(value))
    for _ in range(source.choice((1, 1, 2, 3))):
        parts = list(_parts(damaged))
        if not parts:
            return source.choice(hostile)
        container, key = source.choice(parts)
        _change(source, container, key, parts, hostile)
    return damaged


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every part of a JSON value, at any depth."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    parts = [(value, key) for key in keys]
    for key in keys:
        parts += _parts(value[key])
    return parts


def _change(
    source: random.Random, container: Any, key: Any, parts: list[tuple[Any, Any]], hostile: Sequence[Any]
) -> None:
    kind = source.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container.insert(key, container[key])
    elif kind == 1:
        container[source.choice((f"{key}s", key.upper(), "", "x"))] = container.pop(key)
    elif kind == 2 and isinstance(container[key], str):
        text = container[key]
        cut = source.randrange(len(text) + 1)
        new = source.choice(("", "\x00", "\n", '"', "}", "\ud83d", "9"))
        container[key] = text[:cut] + new + text[cut + 1 :]
    elif kind == 3:
        other, place = source.choice(parts)
        if place in other if isinstance(other, dict) else place < len(other):
            container[key] = json.loads(json.dumps(other[place]))
    else:
        container[key] = copy.deepcopy(source.choice(hostile))  # a later change may be one of its parts
