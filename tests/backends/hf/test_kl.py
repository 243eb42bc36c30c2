"""The divergence of two engines' models is that of plain forward passes, text and images, however batched."""

import asyncio
import random

import pytest
import torch

from sftrl_ext.backends.hf import kl as module
from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.backends.hf.kl import segment_kl
from sftrl_ext.backends.hf.local_engine import LocalEngine
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.hf_folder import load_model
from sftrl_ext.rollout.player import Segment
from tests.backends.tiny import VOCAB, save_folder, tiny_engine, tiny_llama
from tests.backends.tiny_families import BUILDERS
from tests.backends.tiny_vl import engine, folder, hand, plain_inputs, plain_model, processor, prompt


def segment(prompt_ids, response_ids, mask, images=()):
    return Segment(list(prompt_ids), list(response_ids), list(mask), [0] * len(mask), None, [], images)


def dialogue(seed, length, mask):
    draw = random.Random(seed)
    ids = [draw.randrange(2, VOCAB) for _ in range(length + len(mask))]
    return segment(ids[:length], ids[length:], mask)


def texts():
    """Several lengths; feedback between turns; one whose model wrote nothing."""
    masks = ([1] * 9, [1, 1, 0, 0, 0, 1, 1, 1], [1, 0] * 12, [0, 0, 0], [1], [1, 1, 1, 0, 0, 0, 0, 1] * 4)
    return [dialogue(n, 3 + 5 * n, mask) for n, mask in enumerate(masks)]


@torch.no_grad()
def plain_divergence(models, segment, temperature, banned=()):
    """KL(first || second) by one plain pass of each model over the dialogue, in double precision."""
    ids = torch.tensor([[*segment.prompt_ids, *segment.response_ids]])
    logs = []
    for model in models:
        logits = model(input_ids=ids, **plain_inputs(model, ids, segment.images)).logits[0].double()
        logits[:, list(banned)] = -torch.inf
        logs.append((logits / temperature).log_softmax(-1))
    total = 0.0
    for place, counted in enumerate(segment.response_mask, start=len(segment.prompt_ids) - 1):
        if counted:
            first, second = (log[place] for log in logs)
            said = first > -torch.inf
            total += (first[said].exp() * (first[said] - second[said])).sum().item()
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("tight", [False, True])
def test_divergence_is_that_of_plain_passes(monkeypatch, temperature, tight):
    if tight:  # several passes for one dialogue, and few positions at a time
        monkeypatch.setattr(module, "MAX_LOGITS", 5 * VOCAB)
        monkeypatch.setattr(module, "MAX_COMPARED", 2 * VOCAB)
    models = tiny_llama(seed=0), tiny_llama(seed=1)
    first, second = (tiny_engine(model) for model in models)
    found = segment_kl(first, second, texts(), temperature)
    expected = [plain_divergence(models, one, temperature) for one in texts()]
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found[:3]) > 0.5 and found[3] == 0.0
    # The other direction is another number.
    assert segment_kl(second, first, texts(), temperature)[0] != pytest.approx(found[0], rel=0.01)


def test_a_known_pair_of_distributions():
    """With a head of zeros a model says everything alike, so the other's entropy is what is missing."""
    flat, model = tiny_llama(seed=0), tiny_llama(seed=0)
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    one = dialogue(3, 4, [1, 1, 1])
    logits = model(input_ids=torch.tensor([[*one.prompt_ids, *one.response_ids]])).logits[0, 3:6]
    entropy = torch.distributions.Categorical(logits=logits).entropy().sum().item()
    (found,) = segment_kl(tiny_engine(model), tiny_engine(flat), [one], 1.0)
    assert found == pytest.approx(3 * torch.tensor(float(VOCAB)).log().item() - entropy, rel=1e-4)


def test_a_model_is_no_distance_from_itself_and_no_divergence_is_negative():
    model, near = tiny_llama(seed=0), tiny_llama(seed=0)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.mul_(1 + 1e-7)
    same = segment_kl(tiny_engine(model), tiny_engine(tiny_llama(seed=0)), texts(), 1.0)
    assert max(map(abs, same)) < 1e-6
    assert min(segment_kl(tiny_engine(model), tiny_engine(near), texts(), 1.0)) >= 0.0


def test_temperature_0_has_no_distribution_and_counts_as_1():
    pair = tiny_engine(tiny_llama(seed=0)), tiny_engine(tiny_llama(seed=1))
    assert segment_kl(*pair, texts(), 0.0) == segment_kl(*pair, texts(), 1.0)


def test_what_the_model_did_not_write_is_read_and_not_counted():
    first, second = (tiny_engine(tiny_llama(seed=seed)) for seed in (0, 1))
    ids = dialogue(7, 6, [1] * 10)

    def total(mask, response=ids.response_ids):
        return segment_kl(first, second, [segment(ids.prompt_ids, response, mask)], 1.0)[0]

    turns, feedback = [1, 1, 1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert total(turns) + total(feedback) == pytest.approx(total([1] * 10), rel=1e-5)
    other = [*ids.response_ids[:3], 2, 3, 4, 5, *ids.response_ids[7:]]
    assert total(turns, other) != pytest.approx(total(turns), rel=1e-3)
    # The last token is predicted and never read.
    assert total(turns, [*ids.response_ids[:-1], 2]) == total(turns)


def test_tokens_that_are_never_sampled_take_no_part():
    models, banned = (tiny_llama(seed=0), tiny_llama(seed=1)), [2, 9, 38, 39]
    pair = [tiny_engine(model, vocab_size=38, banned_token_ids=[2, 9]) for model in models]
    found = segment_kl(*pair, texts(), 1.0)
    assert found == pytest.approx([plain_divergence(models, one, 1.0, banned) for one in texts()], rel=1e-4)


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_images_are_seen_in_the_same_pass(kind):
    model, other = plain_model(kind), load_model(folder(kind), torch.float32)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # a model that reads and looks otherwise
        for mine, its in zip(other.parameters(), model.parameters(), strict=True):
            mine.copy_(its + 0.1 * its.abs().mean() * torch.randn(its.shape, generator=generator))
    pair = [engine(kind, prefill_tokens=160) for _ in range(2)]
    for made, weights in zip(pair, (model, other), strict=True):
        made.load_weights(weights.state_dict().items())
    cards = hand("KS 10C 7S AC"), hand("2S 3C 4S 5C", 168, 84)
    words = processor(kind).tokenizer(" J=10 target 24 Q=10", add_special_tokens=False)["input_ids"]
    mask = [1] * 3 + [0] * 2 + [1] * (len(words) - 5)
    shown = [
        segment(prompt(images, " target 24" * n, kind), words, mask, images)
        for n, images in enumerate([cards[:1], cards[1:], cards, (), cards[:1]], start=1)
    ]
    found = segment_kl(*pair, shown, 1.0)
    banned = pair[0].banned.nonzero()[:, 0].tolist()
    assert banned or kind == "mllama"
    expected = [plain_divergence((model, other), one, 1.0, banned) for one in shown]
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found) > 1e-3
    assert [made.vision.encoded_count for made in pair] == [2, 2]
    # Other pixels under the same tokens.
    swapped = segment(shown[0].prompt_ids, words, mask, (hand("2S 3C 4S 5C"),))
    assert segment_kl(*pair, [swapped], 1.0)[0] != pytest.approx(found[0], rel=1e-3)


def test_the_local_engine_compares_its_weights_with_those_of_another_folder(tmp_path):
    folders = [save_folder(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 2))]
    local = LocalEngine(folders[0])
    models = [tiny_llama(seed=seed) for seed in range(3)]

    def expected(first, second):
        return pytest.approx([plain_divergence((first, second), one, 1.0) for one in texts()], rel=1e-4)

    async def compare():
        for other in (1, 2, 1):
            for to_other in (True, False):
                found = await local.divergence(texts(), folders[other], 1.0, to_other=to_other)
                pair = (models[0], models[other]) if to_other else (models[other], models[0])
                assert found == expected(*pair)
        await local.load_weights(folders[2])
        found = await local.divergence(texts(), folders[1], 1.0, to_other=True)
        assert found == expected(models[2], models[1])
        response = await local.generate(texts()[0].prompt_ids, {"temperature": 0.0, "max_tokens": 8})
        return response.token_ids

    try:
        after = asyncio.run(compare())
    finally:
        local.close()
    (plain,) = Engine.from_folder(folders[2]).generate(
        [Request(texts()[0].prompt_ids, Sampling(temperature=0.0, max_tokens=8))]
    )
    assert after == plain.token_ids
