"""Rows of training files in tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def bare(messages: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Messages of a row without their masks of loss, as an episode has them."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]
