"""Rows of images through verl's own steps to the trainer's model: its log-probs are those of the engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import torch
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, AgentLoopWorker
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import tensordict_utils
from verl.utils.tokenizer import hf_processor
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from sftrl_ext.backends.hf.engine import Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.rollout.trained_images import processor_arguments
from tests.backends.tiny_families import BUILDERS
from tests.backends.tiny_vl import engine, folder, hand, louder, prompt


@pytest.fixture(params=sorted(BUILDERS))
def kind(request):
    return request.param


@pytest.fixture
def trained(kind, monkeypatch):
    """The model as verl's FSDP engine builds it, before it is sharded."""
    from transformers import AutoConfig
    from verl.utils.model import get_hf_auto_model_class

    config = AutoConfig.from_pretrained(folder(kind), attn_implementation="sdpa")
    auto = get_hf_auto_model_class(config)
    model, loaded = auto.from_pretrained(folder(kind), config=config, output_loading_info=True)
    assert not any(loaded[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    louder(model)
    # verl changes whole classes: they are put back afterwards.
    for part in {type(module) for module in model.modules()}:
        if part.__module__.startswith("transformers.models."):
            monkeypatch.setattr(part, "forward", part.forward)
    apply_monkey_patch(model, use_remove_padding=False)
    return model


def rows(kind, requests):
    """What the agent loop's worker hands to the trainer, as one micro-batch."""
    processor = hf_processor(str(folder(kind)))
    worker = SimpleNamespace(
        processor=processor, tokenizer=processor.tokenizer, _get_mm_processor_kwargs=lambda audios: {}
    )
    fields = []
    for request in requests:
        output = AgentLoopOutput(
            prompt_ids=list(request.prompt_ids),
            response_ids=request.result.token_ids,
            response_mask=[1] * len(request.result.token_ids),
            mm_processor_kwargs=processor_arguments(processor, request.images),
            multi_modal_data={"images": list(request.images)} if request.images else None,
            num_turns=1,
            metrics={},
        )
        ids = torch.tensor(output.prompt_ids + output.response_ids)
        inputs = AgentLoopWorker._compute_multi_modal_inputs(worker, output, ids)
        ones = torch.ones_like(ids)
        positions = AgentLoopWorker._compute_position_ids(worker, ids[None], ones[None], inputs)[0]
        fields.append((ids, positions, inputs))
    ids, positions, inputs = zip(*fields, strict=True)
    nested = {
        "input_ids": torch.nested.as_nested_tensor(list(ids), layout=torch.jagged),
        "position_ids": torch.nested.as_nested_tensor(
            [p.transpose(0, -1) for p in positions], layout=torch.jagged
        ).transpose(1, 2)
        if positions[0].dim() == 2
        else torch.nested.as_nested_tensor(list(positions), layout=torch.jagged),
    }
    batch = TensorDict(nested, batch_size=[len(requests)])
    tensordict_utils.assign_non_tensor(batch, use_remove_padding=False, temperature=1.0, pad_token_id=0)
    batch["multi_modal_inputs"] = tensordict_utils.NonTensorStack(*inputs)
    return batch


@torch.no_grad()
def test_log_probs_agree(kind, trained):
    made = engine(kind)
    card, wide = hand("KS 10C 7S AC"), hand("2S 3C 4S 5C", 168, 84)
    requests = []
    for n, images in enumerate([[card], [wide], [card, wide], [], [card]]):
        sampling = Sampling(max_tokens=4 + 5 * n, seed=n, ignore_eos=True)
        requests.append(Request(prompt(images, " target 24" * (n + 1), kind), sampling, images))
    made.generate(requests)
    batch = rows(kind, requests)
    trainer = SimpleNamespace(use_ulysses_sp=False, pad_to_length=0)
    inputs, args = FSDPEngineWithLMHead.prepare_model_inputs(trainer, batch)
    output = trained(**inputs, use_cache=False)
    found = FSDPEngineWithLMHead.prepare_model_outputs(trainer, output, args, batch, None)["log_probs"]
    banned = made.vision.banned
    for request, row, logits in zip(requests, found.unbind(), output.logits, strict=True):
        start, end = len(request.prompt_ids) - 1, len(row) - 1
        # The engine's distribution is without the tokens that it never samples.
        gone = logits[start:end].softmax(-1)[:, banned].sum(-1)
        expected = torch.tensor(request.result.log_probs) + torch.log1p(-gone)
        assert (row[start:end] - expected).abs().max() < 1e-4
