"""Options of `sftrl eval`, and the folder of a local model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.evaluate import sampling_of
from sftrl_ext.experiments.evaluation.one_model.console_tables import Prices
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions
from sftrl_ext.experiments.start_models.model_source import find_model, is_hub_name, source_folder
from sftrl_ext.files import read_json


@dataclass(frozen=True)
class EvalRequest:
    """Settings of one evaluation.

    Attributes:
        model: A Hugging Face folder, a checkpoint folder of verl, or a name of the hub (``owner/name``); with
            an endpoint the model's name there, or None if it serves only one.
        files: Parquet files, one split in each.
        limit: Rows of each file that are played, from the first on; None: all.
        engine: Engine of a local model: ``hf`` or ``vllm``.
        dtype: Type of a local model's weights.
        device: Of a local model: ``cpu``, ``cuda`` or ``cuda:<n>``; None: a GPU where torch sees one. vLLM
            takes the device it was built for.
        temperature: Sampling temperature.
        top_p: Tokens are drawn from the fewest whose probabilities sum to at least this.
        top_k: Tokens are drawn from so many of the most probable; -1: from all.
        generation_config: Take these three from the model's ``generation_config.json``.
        max_turn_tokens: Most tokens of one response.
        batch_size: Episodes that a local model plays at the same time.
        seed: Seed of all responses.
        endpoint: Where the model is served, if it is not here.
        prices: Of an endpoint's tokens.
        episodes: The file that keeps finished episodes. By default an endpoint has one named after the model
            and the settings; a local model has none.
        any_template: Also play rows of another prompt template than the one the model was trained with.
    """

    model: str | None
    files: Sequence[Path]
    limit: int | None = None
    engine: str = "hf"
    dtype: str = "float32"
    device: str | None = None
    temperature: float = 0.2
    top_p: float = 1.0
    top_k: int = -1
    generation_config: bool = False
    max_turn_tokens: int = 512
    batch_size: int = 256
    seed: int = 2501
    endpoint: EndpointOptions | None = None
    prices: Prices = field(default_factory=Prices)
    episodes: Path | None = None
    any_template: bool = False

    def __post_init__(self) -> None:
        check_sampling("--temperature", "--top-p", self.temperature, self.top_p)
        for option, value in (
            ("--max-turn-tokens", self.max_turn_tokens),
            ("--batch-size", self.batch_size),
            ("--limit", self.limit),
        ):
            if value is not None and value < 1:
                raise SftrlError(f"{option} {value}: expected 1 or more.")
        for option, price in (("--price-in", self.prices.prompt), ("--price-out", self.prices.completion)):
            if price is not None and not 0 <= price < math.inf:
                raise SftrlError(f"{option} {price:g}: expected 0 or more.")
        if self.generation_config and self.endpoint is not None:
            raise SftrlError("--generation-config reads a model's folder; expected none with --endpoint.")
        check_device(self.device, None if self.endpoint is not None else self.engine)

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling parameters by their names in engines; cuts that keep everything are left out."""
        return sampling_of(self.temperature, self.top_p, self.top_k)

    def with_own_sampling(self) -> EvalRequest:
        """With the sampling parameters of the model's folder, where they are asked for.

        Raises:
            SftrlError: if the folder has no ``generation_config.json``.
        """
        if not self.generation_config:
            return self
        temperature, top_p, top_k = own_sampling(source_folder(str(self.model)))
        return replace(self, temperature=temperature, top_p=top_p, top_k=top_k, generation_config=False)


GENERATE_TOP_K = 50
"""``top_k`` of transformers' ``generate`` where a generation configuration does not name it."""


def own_sampling(folder: Path) -> tuple[float, float, int]:
    """Temperature (0 without ``do_sample``), top-p and top-k of a folder's ``generation_config.json``.

    Raises:
        SftrlError: if there is none, or a value in it is no number.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        raise SftrlError(f"{path}: no such file; expected one with --generation-config.")
    config = read_json(path)
    if not config.get("do_sample", False):
        return 0.0, 1.0, -1
    values = {"temperature": 1.0, "top_p": 1.0, "top_k": GENERATE_TOP_K}
    values |= {name: config[name] for name in values if config.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SftrlError(f"{path}: {name}: expected a number; found {value!r}.")
    temperature, top_p, top_k = float(values["temperature"]), float(values["top_p"]), values["top_k"]
    check_sampling(f"{path}: temperature", f"{path}: top_p", temperature, top_p)
    if top_k < -1 or top_k != top_k // 1:
        raise SftrlError(f"{path}: top_k: expected a whole number of 0 or more, or -1; found {top_k!r}.")
    return temperature, top_p, int(top_k) or -1


def check_sampling(temperature_key: str, top_p_key: str, temperature: float, top_p: float) -> None:
    """Refuse a temperature or a nucleus threshold out of its range, by the key that it was given as."""
    if not 0 <= temperature < math.inf:
        raise SftrlError(f"{temperature_key} {temperature:g}: expected 0 (greedy) or more.")
    if not 0 < top_p <= 1:
        raise SftrlError(f"{top_p_key} {top_p:g}: expected above 0 and at most 1.")


def check_device(device: str | None, engine: str | None) -> None:
    """Refuse a device where the model is not loaded by the transformers engine.

    Args:
        device: As requested; None if it is not.
        engine: ``hf`` or ``vllm``; None for a served model.
    """
    if device is not None and engine != "hf":
        owner = "a served model" if engine is None else f"engine {engine!r}"
        raise SftrlError(f"--device {device}: {owner} chooses its own; expected engine 'hf'.")


def torch_device(name: str | None) -> str:
    """The torch device of a local model: as requested, or by default a GPU where torch sees one.

    Raises:
        SftrlError: if torch does not know the device or does not see it.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SftrlError(f"--device {name}: expected cpu, cuda or cuda:<n>.") from None
    if device.type not in ("cpu", "cuda"):
        raise SftrlError(f"--device {name}: expected cpu, cuda or cuda:<n>.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SftrlError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here.")
    return name


@contextmanager
def local_model(name: str, dtype: str) -> Iterator[Path]:
    """The folder of a model: that of a path, or one of a hub model that lasts as long as the context.

    Raises:
        SftrlError: if there is no such folder and no such model.
    """
    if not is_hub_name(name):
        yield find_model(Path(name))
        return
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.pretrained import fetch_model

    with tempfile.TemporaryDirectory(prefix="sftrl-") as folder:
        out = Path(folder) / "model"
        try:
            fetch_model(ModelConfig(name=name, path=name, dtype=dtype), out)
        except SftrlError as error:
            raise SftrlError(f"{name}: no such folder here, and as a name of the hub: {error}") from None
        yield out
