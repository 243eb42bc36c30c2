"""Prompts that show images: the engine's numbers are those of a plain pass, and no image is encoded twice."""

import pytest
import torch

from sftrl_ext.backends.hf.engine import Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.errors import SftrlError
from tests.backends.tiny_families import BUILDERS
from tests.backends.tiny_vl import engine, hand, louder, plain_log_probs, plain_model, prompt


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return plain_model(kind)


@pytest.fixture
def ask(kind):
    def made(*images, text=" target 24", tokens=12, seed=0, **sampling):
        options = Sampling(max_tokens=tokens, seed=seed, ignore_eos=True, **sampling)
        return Request(prompt(images, text, kind), options, images)

    return made


def difference(model, request):
    found = torch.tensor(request.result.log_probs)
    # What may never be sampled takes no part in the engine's distribution.
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    banned = [getattr(model.config, name, None) for name in names]
    bias = torch.zeros(model.lm_head.out_features)
    bias[[token for token in banned if token is not None and token < len(bias)]] = -torch.inf
    handle = model.lm_head.register_forward_hook(lambda module, inputs, out: out + bias)
    try:
        return (plain_log_probs(model, request) - found).abs().max().item()
    finally:
        handle.remove()


def test_log_probs_are_those_of_a_plain_pass(model, kind, ask):
    requests = [
        ask(hand("KS 10C 7S AC")),
        ask(hand("KS 10C 7S AC"), text=" J=10", temperature=0.0, tokens=20),
        ask(hand("2S 3C 4S 5C", 168, 84), seed=1),
        ask(hand("2S 3C 4S 5C"), hand("KS KC 3S 4S"), seed=2),
        ask(seed=3),
    ]
    engine(kind).generate(requests)
    for request in requests:
        assert difference(model, request) < 1e-4


def test_rows_come_and_go(model, kind, ask):
    made = engine(kind, max_rows=2, prefill_tokens=40)
    shown = [hand("KS 10C 7S AC"), hand("2S 3C 4S 5C", 168, 84), hand("2S 3C 4S 5C")]
    requests = [ask(*shown[: n % 4], seed=n, tokens=3 + 5 * (n % 3), text=" 24" * (n + 1)) for n in range(7)]
    made.generate(requests)
    assert made.vision.encoded_count == 3
    for request in requests:
        assert difference(model, request) < 1e-4


def test_pixels_matter_and_prompts_that_differ_in_them_alone_share_nothing(kind, ask):
    first, second = ask(hand("KS 10C 7S AC")), ask(hand("2S 3C 4S 5C"))
    assert list(first.prompt_ids) == list(second.prompt_ids)
    made = engine(kind)
    made.generate([first])
    read = made.prefill_count
    made.generate([second])
    assert first.result.token_ids != second.result.token_ids
    # What stands before the image is shared, the image and what follows it is not. In Llama-3.2-Vision
    # even the first token sees the image.
    shared = 0 if kind == "mllama" else second.prompt_ids.index(made.model.config.image_token_id)
    assert made.prefill_count - read == len(second.prompt_ids) - shared


def test_a_group_and_later_turns_encode_an_image_once(model, kind, ask):
    made = engine(kind)
    group = [ask(hand("KS 10C 7S AC"), seed=seed) for seed in range(4)]
    made.generate(group)
    assert made.vision.encoded_count == 1
    turn = Request(
        [*group[0].prompt_ids, *group[0].result.token_ids, *prompt([], "wrong value", kind)],
        Sampling(max_tokens=8, seed=9, ignore_eos=True),
        group[0].images,
    )
    read = made.prefill_count
    made.generate([turn])
    assert made.vision.encoded_count == 1
    assert made.prefill_count - read == len(prompt([], "wrong value", kind)) + 1
    assert difference(model, turn) < 1e-4


def test_new_weights_see_anew(model, kind, ask):
    made = engine(kind)
    before, after = ask(hand("KS 10C 7S AC")), ask(hand("KS 10C 7S AC"))
    made.generate([before])
    changed = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    made.load_weights(changed.items())
    made.generate([after])
    assert made.vision.encoded_count == 2
    try:
        model.load_state_dict(changed)
        assert difference(model, after) < 1e-4
    finally:
        louder(model)


def test_placeholders_are_never_sampled(kind, ask):
    made = engine(kind)
    token, head = made.model.config.image_token_id, made.model.lm_head
    assert (token == head.out_features) == (kind == "mllama")
    if token < head.out_features:
        with torch.no_grad():
            head.weight[token] = 100 * head.weight.abs().max()
    requests = [ask(hand("KS 10C 7S AC"), seed=seed, tokens=30) for seed in range(4)]
    made.generate(requests)
    assert not any(token in request.result.token_ids for request in requests)


def test_images_must_fit_the_prompt(kind, ask):
    request = ask(hand("KS 10C 7S AC"))
    made = engine(kind)
    count = request.prompt_ids.count(made.model.config.image_token_id)
    for images, expected in (([], "0"), (2 * request.images, rf"{count} \+ {count}")):
        with pytest.raises(
            SftrlError, match=f"{len(images)} images has {count} placeholder tokens; expected {expected}"
        ):
            made.submit(Request(request.prompt_ids, request.sampling, images))
