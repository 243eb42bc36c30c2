"""What `sftrl eval` is asked for, and where a model that runs here is found."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.checkpoints import list_checkpoints, model_folder
from sftrl_ext.experiments.endpoint import EndpointOptions
from sftrl_ext.experiments.eval_tables import Prices

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate and how.

    Attributes:
        model: A Hugging Face folder, a checkpoint folder of verl, or a name of the hub (``owner/name``); with
            an endpoint the model's name there, or None if it serves only one.
        files: Parquet files, one split in each.
        engine: Engine of a local model: ``hf`` or ``vllm``.
        dtype: Type of a local model's weights.
        temperature: Sampling temperature.
        max_turn_tokens: Most tokens of one response.
        seed: Seed of all responses.
        endpoint: Where the model is served, if it is not here.
        prices: Of an endpoint's tokens.
        episodes: The file that keeps finished episodes. By default an endpoint has one named after the model
            and the settings; a local model has none.
    """

    model: str | None
    files: Sequence[Path]
    engine: str = "hf"
    dtype: str = "float32"
    temperature: float = 0.2
    max_turn_tokens: int = 512
    seed: int = 2501
    endpoint: EndpointOptions | None = None
    prices: Prices = field(default_factory=Prices)
    episodes: Path | None = None


def find_model(path: Path) -> Path:
    """The Hugging Face folder meant by a path: itself, or the newest checkpoint of a verl folder.

    Raises:
        SftrlError: if there is none.
    """
    if (path / "config.json").is_file():
        return path
    if model_folder(path).is_dir():
        return model_folder(path)
    checkpoints = list_checkpoints(path)
    if checkpoints:
        return checkpoints[-1].folder
    raise SftrlError(
        f"{path}: neither a Hugging Face folder (config.json) nor checkpoints of verl (global_step_<n>)."
    )


@contextmanager
def local_model(name: str, dtype: str) -> Iterator[Path]:
    """The folder of a model: that of a path, or a copy of a hub model that lasts as long as the context.

    Raises:
        SftrlError: if there is no such folder and no such model.
    """
    if not is_hub_name(name):
        yield find_model(Path(name))
        return
    from sftrl_ext.experiments.pretrained import fetch_model
    from sftrl_ext.experiments.recipe import ModelConfig

    with tempfile.TemporaryDirectory(prefix="sftrl-") as folder:
        out = Path(folder) / "model"
        try:
            fetch_model(ModelConfig(name=name, path=name, dtype=dtype), out)
        except SftrlError as error:
            raise SftrlError(f"{name}: no such folder here, and as a name of the hub: {error}") from None
        yield out


def is_hub_name(name: str) -> bool:
    """Whether a name is that of a hub model (``owner/name``) rather than of a folder that is here."""
    return not Path(name).exists() and _HUB_NAME.fullmatch(name) is not None
