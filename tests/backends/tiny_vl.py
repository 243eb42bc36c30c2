"""A small vision-language model with large weights, its prompts, and what it should answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoProcessor
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.render import Look, draw_hand
from sftrl_ext.hf_folder import load_model, write_model
from tests.backends.tiny_families import BUILDERS

DEFAULT = "qwen2_5_vl"


@cache
def folder(kind: str = DEFAULT) -> Path:
    """The folder of a model of that type, made once per process."""
    path = Path(mkdtemp()) / kind
    BUILDERS[kind](path)
    return path


def louder(model: Any) -> Any:
    """Weights so large that neither tokens nor images are nearly the same to the model."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3 if parameter.shape[-1] < 100 else 0.1)
    return model.eval()


def engine(kind: str = DEFAULT, **options: Any) -> Engine:
    made = Engine.from_folder(folder(kind), **options)
    louder(made.model)
    return made


def plain_model(kind: str = DEFAULT) -> Any:
    return louder(load_model(folder(kind), torch.float32))


@cache
def processor(kind: str = DEFAULT) -> Any:
    return AutoProcessor.from_pretrained(folder(kind))


def hand(cards: str, width: int = 112, height: int = 56) -> Image:
    return draw_hand(parse_cards(cards.split()), Look(width=width, height=height))


def prompt(images: Sequence[Image], text: str = " target 24", kind: str = DEFAULT) -> list[int]:
    """A dialogue that opens with the images."""
    blocks = [{"type": "image"} for _ in images]
    message = {"role": "user", "content": [*blocks, {"type": "text", "text": text}]}
    seeing = processor(kind)
    rendered = seeing.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return seeing(text=[rendered], images=list(images) or None, add_special_tokens=False)["input_ids"][0]


def plain_inputs(model: Any, ids: torch.Tensor, images: Sequence[Image]) -> dict[str, Any]:
    """What the model takes beside the tokens (1, tokens), made as its processor makes it."""
    if not images:
        return {}
    seeing, token = processor(model.config.model_type), model.config.image_token_id
    made = dict(seeing.image_processor([list(images)], return_tensors="pt"))
    if model.config.model_type != "mllama":
        return {**made, "mm_token_type_ids": (ids == token).int()}
    tiles = made.pop("num_tiles")
    places = [get_cross_attention_token_mask(ids[0].tolist(), token)]
    most = seeing.image_processor.max_image_tiles
    mask = convert_sparse_cross_attention_mask_to_dense(places, tiles, most, ids.shape[1])
    return {**made, "cross_attention_mask": torch.from_numpy(mask)}


@torch.no_grad()
def plain_log_probs(model: Any, request: Request) -> torch.Tensor:
    """Log-probability of every generated token by one plain pass of the whole model. Shape (tokens,)."""
    ids = torch.tensor([[*request.prompt_ids, *request.result.token_ids]])
    logits = model(input_ids=ids, **plain_inputs(model, ids, request.images)).logits
    logits = logits[0, len(request.prompt_ids) - 1 : -1]
    scaled = (logits / (request.sampling.temperature or 1.0)).log_softmax(-1)
    return scaled.gather(-1, torch.tensor(request.result.token_ids)[:, None])[:, 0]


@cache
def sober_folder(kind: str = DEFAULT) -> Path:
    """The same model, but to it a placeholder is as improbable as training makes it.

    The engine never samples one, the trainer's softmax has them all: only so do both have one distribution.
    The first coordinate of every embedding is large, and the placeholders' logits go against it.
    """
    if kind == "mllama":  # which has no logit for its placeholder
        return folder(kind)
    path = Path(mkdtemp()) / kind
    model, seeing = load_model(folder(kind), torch.float32), processor(kind)
    names = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 4.0
        for token in seeing.tokenizer.convert_tokens_to_ids(names):
            model.lm_head.weight[token] = 0.0
            model.lm_head.weight[token, 0] = -20.0
    write_model(path, model, seeing)
    return path
