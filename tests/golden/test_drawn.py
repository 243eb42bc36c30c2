"""A refactoring changes no drawn pixel and no invented name."""

from __future__ import annotations

import json

from tests.golden.drawn import STORED, drawn


def test_pictures_and_names_repeat() -> None:
    stored, made = json.loads(STORED.read_text(encoding="utf-8")), drawn()
    same_pillow = stored["pillow"] == made["pillow"]
    for name in stored.keys() | made.keys():
        if same_pillow or name.partition(" ")[0] in ("names", "style"):
            assert made.get(name) == stored.get(name), name
