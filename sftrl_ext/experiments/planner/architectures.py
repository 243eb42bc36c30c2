"""Architecture of a model and its parameter counts, without its weights.

Models that ``configs/model`` names are listed here, since a plan is made before they are downloaded. Any
other is read from ``config.json`` of its folder, or of the hub's local cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import ModelConfig


class UnknownArchitecture(SftrlError):
    """The planner has no sizes of a model."""


@dataclass(frozen=True)
class Vision:
    """A vision encoder with its adapter to the language model.

    Attributes:
        hidden: Width of a block.
        layers: Blocks.
        intermediate: Width of a block's feed-forward layer.
        patch: Side of a patch in pixels.
        merge: Patches along each side of one token of the language model.
        parameters: All of them, the adapter's included.
        adapter: Those of the adapter.
        temporal: Frames that a patch spans.
        image_tokens: Tokens an image adds to the text, where the family has a fixed number.
    """

    hidden: int
    layers: int
    intermediate: int
    patch: int
    merge: int
    parameters: int
    adapter: int = 0
    temporal: int = 2
    image_tokens: int | None = None

    def patches(self, width: int, height: int) -> int:
        """Patches of an image, whose sides are rounded to whole tokens."""
        side = self.patch * self.merge
        return max(1, round(width / side)) * max(1, round(height / side)) * self.merge**2

    def tokens(self, width: int, height: int) -> int:
        """Tokens of the language model that an image takes."""
        return (
            self.patches(width, height) // self.merge**2 if self.image_tokens is None else self.image_tokens
        )


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama or Qwen families, with or without a vision encoder.

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers, those with cross-attention included.
        heads: Query heads.
        kv_heads: Key and value heads.
        intermediate: Width of the feed-forward layer.
        vocab: Rows of the output head.
        head_dim: Width of a head; None for ``hidden // heads``.
        tied: Input embeddings and output head are one tensor.
        qkv_bias: Queries, keys and values have biases.
        qk_norm: Queries and keys are normalized per head.
        cross_layers: Layers that attend to image features (Llama-3.2-Vision).
        extra_embeddings: Input embeddings beyond ``vocab``.
        vision: The vision encoder.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int | None = None
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    cross_layers: int = 0
    extra_embeddings: int = 0
    vision: Vision | None = None

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def kv_width(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * (self.head_dim or self.hidden // self.heads)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one self-attention layer."""
        biases = (self.query_width + 2 * self.kv_width) if self.qkv_bias else 0
        return self._layer_matrices + biases + self._norms(self.qk_norm)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head."""
        return self.vocab * self.hidden

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision encoder and its adapter."""
        return self.vision.parameters if self.vision else 0

    @property
    def decoder_parameters(self) -> int:
        """Parameters of the layers and the last norm, without embeddings and head."""
        cross = self._layer_matrices + self._norms(True) + 2  # two gates
        self_layers = self.layers - self.cross_layers
        return self_layers * self.layer_parameters + self.cross_layers * cross + self.hidden

    @property
    def critic_parameters(self) -> int:
        """Parameters of the value model: a backbone without output head, and one number per token."""
        embeddings = (self.vocab + self.extra_embeddings) * self.hidden
        return self.decoder_parameters + embeddings + self.vision_parameters + self.hidden + 1

    @property
    def parameters(self) -> int:
        """Parameters of the policy."""
        return self.critic_parameters - self.hidden - 1 + (0 if self.tied else self.head_parameters)

    def frozen_parameters(self, freeze: str | None) -> int:
        """Parameters that ``model.freeze`` leaves without gradients and optimizer states."""
        if self.vision is None or freeze is None:
            return 0
        return self.vision.parameters - (self.vision.adapter if freeze == "vision" else 0)

    def kv_bytes(self, dtype_bytes: int = 2) -> int:
        """Bytes of keys and values of one token."""
        return 2 * (self.layers - self.cross_layers) * self.kv_width * dtype_bytes

    @property
    def _layer_matrices(self) -> int:
        # Queries and output projection, keys and values; the gated feed-forward layer has gate, up and down.
        attention = 2 * self.hidden * (self.query_width + self.kv_width)
        return attention + 3 * self.hidden * self.intermediate

    def _norms(self, per_head: bool) -> int:
        # Two RMS norms of the layer, and one each for the queries and the keys of a head.
        return 2 * self.hidden + (2 * self.query_width // self.heads if per_head else 0)


_QWEN2_5_VISION = dict(hidden=1280, layers=32, intermediate=3420, patch=14, merge=2)
KNOWN: dict[str, Architecture] = {
    "Llama-3.1-8B-Instruct": Architecture(4096, 32, 32, 8, 14336, 128256),
    "SmolLM2-135M-Instruct": Architecture(576, 30, 9, 3, 1536, 49152, tied=True),
    "SmolLM2-360M-Instruct": Architecture(960, 32, 15, 5, 2560, 49152, tied=True),
    "Qwen2.5-VL-3B-Instruct": Architecture(
        2048, 36, 16, 2, 11008, 151936, tied=True, qkv_bias=True,
        vision=Vision(**_QWEN2_5_VISION, parameters=668_684_288, adapter=36_708_608),
    ),
    "Qwen2.5-VL-7B-Instruct": Architecture(
        3584, 28, 28, 4, 18944, 152064, qkv_bias=True,
        vision=Vision(**_QWEN2_5_VISION, parameters=676_550_144, adapter=44_574_464),
    ),
    "Qwen3-VL-8B-Instruct": Architecture(
        4096, 36, 32, 8, 12288, 151936, head_dim=128, qk_norm=True,
        vision=Vision(1152, 27, 4304, 16, 2, parameters=576_388_336, adapter=160_496_896),
    ),
    # An image is up to four tiles of 1,601 patches, read by cross-attention: it adds one token to the text.
    "Llama-3.2-11B-Vision-Instruct": Architecture(
        4096, 40, 32, 8, 14336, 128256, cross_layers=8, extra_embeddings=8,
        vision=Vision(
            1280, 40, 5120, 14, 1, parameters=895_028_755, adapter=31_461_376, temporal=1, image_tokens=1
        ),
    ),
}  # fmt: skip
"""Models that ``configs/model`` names, by the last part of their hub name."""


def architecture_of(model: ModelConfig) -> Architecture:
    """Architecture of a recipe's model.

    Raises:
        UnknownArchitecture: if it is neither listed nor readable from a ``config.json``.
    """
    if model.path is None and model.package is None:
        return _tiny(model)
    source = model.path or model.name
    if model.path is not None and (Path(model.path) / "config.json").is_file():
        return from_hf_config(read_json(Path(model.path) / "config.json"), source)
    if (name := Path(source).name) in KNOWN:
        return KNOWN[name]
    cached = _cached_config(source)
    if cached is None:
        raise UnknownArchitecture(
            f"model.path {source!r}: no architecture to plan with; expected a folder with a config.json, a "
            f"downloaded hub model, or one of {', '.join(KNOWN)}."
        )
    return from_hf_config(read_json(cached), source)


def from_hf_config(config: dict[str, Any], source: str = "config.json") -> Architecture:
    """Read the architecture from a Hugging Face config.

    Raises:
        UnknownArchitecture: if a size is missing, as in a model that is no decoder of these families.
    """
    text = config.get("text_config") or config
    kind = str(config.get("model_type", ""))
    try:
        hidden, heads = text["hidden_size"], text["num_attention_heads"]
        return Architecture(
            hidden=hidden,
            layers=text["num_hidden_layers"],
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            intermediate=text["intermediate_size"],
            vocab=text["vocab_size"],
            head_dim=text.get("head_dim"),
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            qkv_bias="qwen2" in kind or bool(text.get("attention_bias")),
            qk_norm="qwen3" in kind,
            cross_layers=len(text.get("cross_attention_layers") or ()),
            extra_embeddings=8 if kind == "mllama" else 0,
            vision=_vision(config["vision_config"], kind, hidden) if "vision_config" in config else None,
        )
    except KeyError as error:
        raise UnknownArchitecture(
            f"{source}: no key {error} in its config; the planner cannot size it."
        ) from None


def _vision(config: dict[str, Any], kind: str, out: int) -> Vision:
    """Encoder of a config: blocks of attention and a feed-forward layer, and a merger of two layers."""
    hidden = config.get("hidden_size") or config["embed_dim"]
    layers = config.get("depth") or config["num_hidden_layers"]
    wide = config.get("intermediate_size") or 4 * hidden
    merge, temporal = config.get("spatial_merge_size", 1), config.get("temporal_patch_size", 1)
    # Qwen2.5-VL: a gated feed-forward layer (three matrices) and RMS norms (one vector). Others: two matrices
    # and layer norms (weight and bias). The merger joins merge^2 patches and has two layers.
    gated = kind.startswith("qwen2_5")
    feed = (3 if gated else 2) * hidden * wide + (2 * wide if gated else wide) + hidden
    block = 4 * hidden * hidden + 4 * hidden + feed + (2 if gated else 4) * hidden
    merged = hidden * merge**2
    merger = merged * merged + merged + merged * out + out + hidden
    patches = 3 * temporal * config["patch_size"] ** 2 * hidden
    return Vision(
        hidden, layers, wide, config["patch_size"], merge,
        parameters=layers * block + merger + patches, adapter=merger, temporal=temporal,
        image_tokens=1 if kind == "mllama" else None,
    )  # fmt: skip


def _tiny(model: ModelConfig) -> Architecture:
    """The small model that a recipe builds; see `sftrl_ext.experiments.start_models.tiny_model`."""
    sizes = (model.hidden_size, model.layers, model.heads, model.kv_heads, 4 * model.hidden_size)
    if model.vision is None:
        return Architecture(*sizes, model.vocab_size)
    vision = {
        "hidden_size": model.vision.hidden_size, "depth": model.vision.layers, "spatial_merge_size": 2,
        "intermediate_size": 2 * model.vision.hidden_size, "patch_size": model.vision.patch_size,
        "temporal_patch_size": 1,
    }  # fmt: skip
    encoder = _vision(vision, "qwen2_5_vl", model.hidden_size)
    return Architecture(*sizes, model.vocab_size, qkv_bias=True, vision=encoder)


def _cached_config(name: str) -> Path | None:
    """``config.json`` of a hub model in the local cache."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path that is no folder here
        return None
    return Path(cached) if isinstance(cached, str) else None
