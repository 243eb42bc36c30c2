"""One picture, byte for byte, in supervised training, in RL's loop and trainer, and in evaluation."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker, DictConfigWrap
from verl.workers.rollout.replica import TokenOutput

from data_prep.images import png_bytes
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.rollout.packed_pictures import unpack
from sftrl_ext.rollout.player import Generation, Limits, play
from sftrl_ext.rollout.tokens import load_chat_tokens
from sftrl_ext.rollout.verifier_loop import VerifierLoop
from sftrl_ext.training.rl_dataset import EpisodeDataset
from sftrl_ext.training.sft_dataset import TurnSFTDataset
from tests.backends.tiny_vl import engine, folder
from tests.training.image_dataset import build, processor, sft_config, tokenizer

LOOKS = {
    "row": Look(224, 84),
    "rotated": Look(112, 112, arrangement="rotated"),
    "wood": Look(101, 75, table="wood"),
}


class Server:
    """An engine that keeps what it is shown, and says nothing."""

    def __init__(self, kind):
        self.shown, self.end = [], tokenizer(kind).eos_token_id

    async def generate(self, request_id, prompt_ids, sampling_params, image_data=None, **rest):
        self.shown.append((prompt_ids, image_data))
        return TokenOutput(token_ids=[self.end], log_probs=[0.0], extra_fields={})


def rollout(row, kind):
    """What the engine is shown in RL, and what the trainer is given."""
    rollout_config = {"prompt_length": 300, "response_length": 200}
    config = OmegaConf.create(
        {"actor_rollout_ref": {"rollout": rollout_config, "model": {}}, "data": {}, "sftrl": {}}
    )
    server = Server(kind)

    async def go():
        loop = VerifierLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=tokenizer(kind),
            processor=processor(kind),
            dataset_cls=EpisodeDataset,
            data_config=DictConfigWrap(config.data),
            hf_model_type=kind,
        )
        return await loop.run({}, **row)

    (output,) = asyncio.run(go())
    worker = SimpleNamespace(
        processor=processor(kind), tokenizer=tokenizer(kind), _get_mm_processor_kwargs=lambda audios: {}
    )
    ids = torch.tensor(output.prompt_ids + output.response_ids)
    inputs = unpack(AgentLoopWorker._compute_multi_modal_inputs(worker, output, ids))
    positions = AgentLoopWorker._compute_position_ids(worker, ids[None], torch.ones_like(ids)[None], inputs)
    return server.shown[0], output.prompt_ids, inputs, positions[0]


def evaluation(facts, kind):
    """What evaluation shows to its engine."""
    shown = []

    async def generate(prompt_ids, params, images):
        shown.append((prompt_ids, images))
        return Generation([tokenizer(kind).eos_token_id])

    limits = Limits(prompt=300, response=200, turn=20)
    asyncio.run(play(make_episode(facts), generate, load_chat_tokens(folder(kind)), limits))
    return shown[0]


@pytest.mark.parametrize(
    ("kind", "look"), [*(("qwen2_5_vl", look) for look in LOOKS), ("qwen3_vl", "wood"), ("mllama", "wood")]
)
def test_one_picture_everywhere(kind, look, tmp_path):
    taught = build(tmp_path / "sft.parquet", "sft", rows=2, images="embed", look=LOOKS[look])
    prompts = build(tmp_path / "rl.parquet", "rl", rows=2, look=LOOKS[look])
    limit = OmegaConf.create({"max_prompt_length": 300, "filter_overlong_prompts": False})
    sft = TurnSFTDataset(taught, tokenizer(kind), sft_config(), processor(kind))
    rl = EpisodeDataset(prompts, tokenizer(kind), limit, processor(kind))
    adapter = engine(kind).vision
    stored = pq.read_table(taught)["images"]
    for number in range(2):
        row = rl[number]
        facts = json.loads(row["extra_info"]["facts"])
        (rl_ids, rl_images), prompt_ids, trained, positions = rollout(row, kind)
        eval_ids, eval_images = evaluation(facts, kind)
        (picture,) = make_episode(facts).images()
        files = [png_bytes(image) for image in (picture, *rl_images, *eval_images)]
        assert set(files) == {stored[number].as_py()[0]["bytes"]} and len(files) == 3
        # The same tokens around it ..
        learned = sft[number]
        start = len(prompt_ids)
        assert prompt_ids == rl_ids == eval_ids == learned["input_ids"][:start].tolist()
        assert torch.equal(learned["position_ids"][..., :start], positions[..., :start])
        # .. and the same numbers for the model: the trainers', and the engine's.
        seen = adapter.prepare(eval_ids, eval_images)
        if kind != "mllama":
            assert torch.equal(seen.positions, positions[1:, :start])
        assert "pixel_values" in learned["multi_modal_inputs"]
        for name, tensor in learned["multi_modal_inputs"].items():
            assert torch.equal(tensor, trained[name]) and torch.equal(tensor, seen.images[0].inputs[name])
