"""What `sftrl eval` is asked for, and where a model that runs here is found."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.endpoint import EndpointOptions
from sftrl_ext.experiments.eval_tables import Prices
from sftrl_ext.experiments.model_source import find_model, is_hub_name


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


@contextmanager
def local_model(name: str, dtype: str) -> Iterator[Path]:
    """The folder of a model: that of a path, or one of a hub model that lasts as long as the context.

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
