"""A cache of the hub that holds toy models under the names of the real ones.

A run finds them there by the name in its recipe, without a network, as it finds a model that was downloaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.experiments.rehearsal.families import FAMILIES, family_of

_REVISION = hashlib.sha1(b"toy", usedforsecurity=False).hexdigest()


def put_toy_model(home: Path, repository: str, texts: Sequence[str]) -> Path:
    """Put a toy model into a hub cache, once.

    Args:
        home: Value of ``HF_HOME``.
        repository: Hub name of the real model.
        texts: What its tokenizer is trained on.

    Returns:
        The snapshot: a folder of links to files that are named by their content, as a download leaves it.
    """
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / _REVISION
    if (folder / "refs" / "main").is_file():
        return snapshot
    shutil.rmtree(folder, ignore_errors=True)
    built = folder / "built"
    built.parent.mkdir(parents=True)
    FAMILIES[family_of(repository)](built, list(texts))
    (folder / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for file in sorted(built.iterdir()):
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    built.rmdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(_REVISION, encoding="utf-8")
    return snapshot


def sample_texts(rows: int = 60) -> list[str]:
    """Prompts, answers and feedback of both tasks, as pretrained models are given them."""
    from data_prep.general_points import sft_rows, suboptimal_rows
    from data_prep.sources import Source
    from sftrl_ext.envs.general_points.episode import PlaySettings

    texts = []
    for modality in ("text", "image"):
        source = Source("id", settings=PlaySettings(modality=modality), hands={"suits": "black"})
        for table in (*sft_rows(source, rows, "random"), *suboptimal_rows(source, rows, "random", (1, 4))):
            texts += [message["content"] for row in table.to_pylist() for message in row["messages"]]
    return [*texts, *_ROUTES * rows]


_ROUTES = [
    "No other text than one JSON object: current observation, current instruction, action. "
    "turn_direction(north) turn_direction(northeast) turn_direction(left) forward() stop() intersection",
    "First, turn left to face east. Move forward until you reach the next intersection where the cafe is "
    "on your right behind. Turn right to face south and move forward until the landmark is in front of you.",
]
"""Words of routes, whose rows are drawn from a city that a run makes first."""
