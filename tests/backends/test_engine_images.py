"""Prompts that show images: the engine's numbers are those of a plain pass, and no image is encoded twice."""

import pytest
import torch

from sftrl_ext.backends.engine import Request
from sftrl_ext.backends.sampling import Sampling
from sftrl_ext.errors import SftrlError
from tests.backends.tiny_vl import engine, hand, louder, plain_log_probs, plain_model, prompt


@pytest.fixture(scope="module")
def model():
    return plain_model()


def ask(*images, text=" target 24", tokens=12, seed=0):
    return Request(prompt(images, text), Sampling(max_tokens=tokens, seed=seed, ignore_eos=True), images)


def difference(model, request):
    found = torch.tensor(request.result.log_probs)
    # What may never be sampled takes no part in the engine's distribution.
    config = model.config
    banned = [config.image_token_id, config.video_token_id, config.vision_start_token_id]
    banned.append(config.vision_end_token_id)
    bias = torch.zeros(model.config.text_config.vocab_size)
    bias[banned] = -torch.inf
    handle = model.lm_head.register_forward_hook(lambda module, inputs, out: out + bias)
    try:
        return (plain_log_probs(model, request) - found).abs().max().item()
    finally:
        handle.remove()


def test_log_probs_are_those_of_a_plain_pass(model):
    requests = [
        ask(hand("KS 10C 7S AC")),
        ask(hand("2S 3C 4S 5C", 168, 84), seed=1),
        ask(hand("2S 3C 4S 5C"), hand("KS KC 3S 4S"), seed=2),
        ask(seed=3),
    ]
    engine().generate(requests)
    for request in requests:
        assert difference(model, request) < 1e-4


def test_pixels_matter_and_prompts_that_differ_in_them_alone_share_nothing():
    first, second = ask(hand("KS 10C 7S AC")), ask(hand("2S 3C 4S 5C"))
    assert list(first.prompt_ids) == list(second.prompt_ids)
    made = engine()
    made.generate([first])
    read = made.prefill_count
    made.generate([second])
    assert first.result.token_ids != second.result.token_ids
    # What stands before the image is shared, the image and what follows it is not.
    assert made.prefill_count - read == len(second.prompt_ids) - second.prompt_ids.index(
        made.model.config.image_token_id
    )


def test_a_group_and_later_turns_encode_an_image_once(model):
    made = engine()
    group = [ask(hand("KS 10C 7S AC"), seed=seed) for seed in range(4)]
    made.generate(group)
    assert made.eyes.encoded == 1
    turn = Request(
        [*group[0].prompt_ids, *group[0].result.token_ids, *prompt([], "wrong value")],
        Sampling(max_tokens=8, seed=9, ignore_eos=True),
        group[0].images,
    )
    read = made.prefill_count
    made.generate([turn])
    assert made.eyes.encoded == 1
    assert made.prefill_count - read == len(prompt([], "wrong value")) + 1
    assert difference(model, turn) < 1e-4


def test_new_weights_see_anew(model):
    made = engine()
    before, after = ask(hand("KS 10C 7S AC")), ask(hand("KS 10C 7S AC"))
    made.generate([before])
    changed = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    made.load_weights(changed.items())
    made.generate([after])
    assert made.eyes.encoded == 2
    try:
        model.load_state_dict(changed)
        assert difference(model, after) < 1e-4
    finally:
        louder(model)


def test_placeholders_are_never_sampled():
    made = engine()
    token = made.model.config.image_token_id
    with torch.no_grad():
        made.model.lm_head.weight[token] = 100 * made.model.lm_head.weight.abs().max()
    requests = [ask(hand("KS 10C 7S AC"), seed=seed, tokens=30) for seed in range(4)]
    made.generate(requests)
    assert not any(token in request.result.token_ids for request in requests)


def test_images_must_fit_the_prompt():
    request = ask(hand("KS 10C 7S AC"))
    made = engine()
    with pytest.raises(SftrlError, match="1 images has 8 placeholder tokens; expected 18"):
        made.submit(Request(request.prompt_ids, request.sampling, [hand("KS 10C 7S AC", 168, 84)]))
    with pytest.raises(SftrlError, match="0 images has 8 placeholder tokens; expected 0"):
        made.submit(Request(request.prompt_ids, request.sampling))
