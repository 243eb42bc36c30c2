"""A chat template keeps the tokens of the texts that repeat, and of no text of any length."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from sftrl_ext.rollout.tokens import CACHED_CHARACTERS, _cache_renderings


class Builder:
    def __init__(self):
        self.rendered = 0

    def _render_tokens(self, messages, *, add_generation_prompt, tools=None):
        self.rendered += 1
        return [len(message["content"]) for message in messages]


@pytest.mark.parametrize(("length", "times"), [(CACHED_CHARACTERS, 1), (CACHED_CHARACTERS + 1, 2)])
def test_only_short_texts_are_kept(length, times):
    builder = Builder()
    _cache_renderings(builder)
    for _ in range(2):
        message = {"role": "user", "content": "a" * length}
        assert builder._render_tokens([message], add_generation_prompt=True) == [length]
    assert builder.rendered == times
