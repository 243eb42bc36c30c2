"""Llama-3.2-Vision in verl's trainers: which token sees which image, its folders, its critic, its errors."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForTokenClassification
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)
from verl.utils import model as verl_model  # noqa: F401  our models are filed when verl imports this

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.mllama_rows import visible_images
from sftrl_ext.training.sft_dataset import TurnSFTDataset
from sftrl_ext.training.sft_images import image_rows
from tests.backends.tiny_vl import folder, hand, processor, prompt
from tests.training.image_dataset import build, sft_config

KIND = "mllama"


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=12).filter(any))
def test_who_sees_what_is_what_the_processor_says(ids):
    count = sum(ids)
    places = [get_cross_attention_token_mask(ids, 1)]
    expected = convert_sparse_cross_attention_mask_to_dense(places, [[1] * count], 1, len(ids))
    assert visible_images(torch.tensor(ids), 1).long().tolist() == expected[0, :, :, 0].tolist()


def test_a_saved_model_loads_anywhere(tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(folder(KIND))
    assert type(model).__module__ == "sftrl_ext.training.mllama_rows"
    model.save_pretrained(tmp_path)
    from transformers import MllamaForConditionalGeneration

    plain, loaded = MllamaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"]
    assert plain.config.architectures == ["MllamaForConditionalGeneration"]
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in plain.state_dict().items())


def rows(*texts):
    """Prompts of one batch as the supervised data set and verl make a batch of them."""
    ids = [torch.tensor(prompt(images, text, KIND)) for images, text in texts]
    seen = [image_rows(processor(KIND)).inputs(images) for images, _ in texts if images]
    inputs = {name: torch.cat([row[name] for row in seen]) for name in (seen[0] if seen else ())}
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": padded, "attention_mask": mask, **inputs}


@torch.no_grad()
def test_a_row_does_not_depend_on_the_rows_beside_it():
    card, other = hand("KS 10C 7S AC"), hand("2S 3C 4S 5C", 168, 84)
    texts = [([card], " 24"), ([], " target"), ([other, card], " target 24 24")]
    config = AutoConfig.from_pretrained(folder(KIND), num_labels=1)
    critic, loaded = AutoModelForTokenClassification.from_pretrained(
        folder(KIND), config=config, output_loading_info=True
    )
    assert set(loaded["missing_keys"]) == {"score.weight", "score.bias"}
    actor = AutoModelForImageTextToText.from_pretrained(folder(KIND))
    for model in (actor, critic):
        together = model(**rows(*texts)).logits
        for row, text in enumerate(texts):
            alone = model(**rows(text)).logits[0]
            assert (together[row, : len(alone)] - alone).abs().max() < 1e-5
    assert actor(**rows(*texts)).logits.shape[-1] == actor.get_input_embeddings().num_embeddings


def test_gradients_reach_every_part():
    model = AutoModelForImageTextToText.from_pretrained(folder(KIND)).train()
    model(**rows(([hand("KS 10C 7S AC")], " 24"), ([], " 24"))).logits[..., :100].square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_what_cannot_be_trained_is_named():
    model = AutoModelForImageTextToText.from_pretrained(folder(KIND))
    batch = rows(([hand("KS 10C 7S AC")], " 24"))
    with pytest.raises(SftrlError, match=r"1 placeholders of images \(1\) have 2 images"):
        model(**{name: torch.cat([value] * (1 + (value.dim() > 2))) for name, value in batch.items()})
    with pytest.raises(SftrlError, match=r"set model.use_remove_padding=false"):
        model(**{**batch, "attention_mask": None})
    model.set_attn_implementation("eager")
    with pytest.raises(SftrlError, match="found 'eager'"):
        model(**batch)


def test_supervised_rows(tmp_path):
    seeing = processor(KIND)
    made = TurnSFTDataset(build(tmp_path / "sft.parquet", rows=2), seeing.tokenizer, sft_config(), seeing)[1]
    ids, inputs = made["input_ids"], made["multi_modal_inputs"]
    assert (ids == seeing.image_token_id).sum() == (ids == seeing.tokenizer.bos_token_id).sum() == 1
    assert made["position_ids"].tolist() == list(range(len(ids)))
    assert inputs["pixel_values"].shape[:3] == (1, 1, 4) and inputs["aspect_ratio_mask"].shape == (1, 1, 4)
