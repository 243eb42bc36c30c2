from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("verl")

from PIL import Image
from tensordict import NonTensorData

from sftrl_ext.envs.general_points.cards import parse_cards
from sftrl_ext.envs.general_points.render import Look, draw_hand
from sftrl_ext.rollout.packed_pictures import PIXELS, pack, unpack
from tests.backends import tiny_vl


def pictures(width: int, height: int) -> list[Image.Image]:
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
    hand = draw_hand(parse_cards(["KS", "5H", "2D", "4C"]), Look(width=width, height=height))
    return [hand, Image.fromarray(noise)]


def processed(kind: str, images: list[Image.Image]) -> tuple[Any, dict[str, Any]]:
    images_of = tiny_vl.processor(kind).image_processor
    return images_of, dict(images_of(images, return_tensors="pt"))


def size(inputs: dict[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in inputs.values())


@pytest.mark.parametrize(("kind", "frames"), [("qwen2_5_vl", 1), ("qwen3_vl", 2)])
def test_the_engine_gets_the_same_floats_from_an_eighth_of_the_bytes(kind: str, frames: int) -> None:
    """An eighth with the two frames of the large models; the smallest test model has one."""
    processor, inputs = processed(kind, pictures(448, 224))
    assert processor.temporal_patch_size == frames
    packed = pack(inputs, processor)
    assert size(packed) < size(inputs) / (3.9 * frames)
    restored = unpack(packed)
    assert restored.keys() == inputs.keys()
    for name, value in inputs.items():
        assert torch.equal(restored[name], value), name
        assert restored[name].dtype == value.dtype


def test_what_is_not_256_levels_travels_as_it_is() -> None:
    processor, inputs = processed("qwen2_5_vl", pictures(112, 56))
    inputs[PIXELS] = inputs[PIXELS] + 1e-3 * torch.rand_like(inputs[PIXELS])
    assert pack(inputs, processor) is inputs
    processor_of_two, video = processed("qwen3_vl", pictures(112, 56))
    video[PIXELS][:, : video[PIXELS].shape[1] // 6] = 0.0  # the first frame differs from the second
    assert pack(video, processor_of_two) is video
    assert unpack(inputs) is inputs


def test_other_layouts_travel_as_they_are() -> None:
    """A Llama-3.2-Vision processor pads its tiles with zeros, which is no level of a picture."""
    processor, inputs = processed("mllama", [pictures(112, 56)[0]])
    assert pack(inputs, processor) is inputs


def test_verl_unpacks_before_the_model_reads() -> None:
    import verl  # noqa: F401  loads the plug-in
    from verl.utils.model import extract_multi_modal_inputs

    processor, inputs = processed("qwen2_5_vl", pictures(112, 56))
    rows: list[Any] = [NonTensorData(pack(inputs, processor)), None, pack(inputs, processor), inputs]
    joined = extract_multi_modal_inputs(rows)
    assert torch.equal(joined[PIXELS], torch.cat([inputs[PIXELS]] * 3))
    assert torch.equal(joined["image_grid_thw"], torch.cat([inputs["image_grid_thw"]] * 3))
    assert torch.equal(extract_multi_modal_inputs(rows, [1, 3])[PIXELS], inputs[PIXELS])


def test_verls_agent_loop_packs() -> None:
    import verl  # noqa: F401
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    class Worker(AgentLoopWorker):
        def __init__(self) -> None:
            self.processor = tiny_vl.processor()
            self.tokenizer = self.processor.tokenizer

    class Output:
        multi_modal_data = {"images": pictures(112, 56)[:1]}
        mm_processor_kwargs: Any = {}

    ids = torch.tensor(tiny_vl.prompt(Output.multi_modal_data["images"]))
    inputs = Worker()._compute_multi_modal_inputs(Output(), ids)
    _, expected = processed("qwen2_5_vl", Output.multi_modal_data["images"])
    assert PIXELS not in inputs
    assert torch.equal(unpack(inputs)[PIXELS], expected[PIXELS])
