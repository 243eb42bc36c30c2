"""The engine gives what plain forward passes of the same model give, whatever it was doing at the time."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.errors import SftrlError
from tests.backends.tiny import EOS, VOCAB, assert_agrees, save_folder, tiny_engine, tiny_llama


def prompt(seed: int, length: int) -> list[int]:
    return [random.Random(f"{seed}/{i}").randrange(2, VOCAB) for i in range(length)]


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_log_probs_are_those_of_a_plain_forward_pass(kv_heads):
    model = tiny_llama(kv_heads)
    requests = [
        Request(prompt(i, 1 + 7 * i), Sampling(temperature=t, max_tokens=30, ignore_eos=i % 2 == 0))
        for i, t in enumerate([0, 0.3, 1.0, 1.7, 0, 1.0])
    ]
    for result in tiny_engine(model).generate(requests):
        assert len(result.token_ids) == len(result.log_probs) >= 1
    for request in requests:
        assert_agrees(model, request)


def test_an_update_changes_the_responses_and_their_log_probs(model):
    engine, other = tiny_engine(tiny_llama()), tiny_llama(seed=1)
    first = Request(prompt(0, 9), Sampling(temperature=0, max_tokens=20, ignore_eos=True))
    engine.generate([first])
    assert_agrees(model, first)
    engine.load_weights(other.state_dict().items())
    second = Request(first.prompt_ids, first.sampling)
    engine.generate([second])
    # What the slots remembered came from the old weights: the prompt was read again.
    assert engine.prefill_count == 2 * len(first.prompt_ids)
    assert second.result.token_ids != first.result.token_ids
    assert_agrees(other, second)


def test_a_response_does_not_depend_on_its_neighbours(model):
    wanted = Request(prompt(3, 12), Sampling(max_tokens=25, seed=5, ignore_eos=True))
    alone = tiny_engine(model).generate([wanted])[0]
    others = [Request(prompt(i, 3 * i + 1), Sampling(max_tokens=5 + i)) for i in range(10, 20)]
    again = Request(wanted.prompt_ids, wanted.sampling)
    among = tiny_engine(model, seed=9, max_rows=4).generate([*others[:5], again, *others[5:]])[5]
    assert among.token_ids == alone.token_ids
    assert torch.allclose(torch.tensor(among.log_probs), torch.tensor(alone.log_probs), atol=2e-5)


def test_seeds(model):
    def respond(engine_seed, **sampling):
        request = Request(prompt(1, 8), Sampling(temperature=1.5, max_tokens=30, ignore_eos=True, **sampling))
        return tiny_engine(model, seed=engine_seed).generate([request])[0].token_ids

    assert respond(0, seed=1) == respond(7, seed=1) != respond(0, seed=2)
    assert respond(0) == respond(0) != respond(1)


def test_each_request_has_its_own_parameters(model):
    engine = tiny_engine(model)
    top_one, greedy, short, long = engine.generate(
        [
            Request(prompt(2, 10), Sampling(top_k=1, max_tokens=12, ignore_eos=True)),
            Request(prompt(2, 10), Sampling(temperature=0, max_tokens=12, ignore_eos=True)),
            Request(prompt(2, 10), Sampling(max_tokens=1, ignore_eos=True)),
            Request(prompt(2, 10), Sampling(max_tokens=40, ignore_eos=True)),
        ]
    )
    assert top_one.token_ids == greedy.token_ids
    assert top_one.log_probs == pytest.approx([0.0] * 12) and min(greedy.log_probs) < -1e-3
    assert (len(short.token_ids), len(long.token_ids)) == (1, 40)
    assert {top_one.finish_reason, short.finish_reason, long.finish_reason} == {"length"}


def test_stop_tokens_end_a_response_and_belong_to_it(model):
    free = tiny_engine(model).generate(
        [Request(prompt(4, 10), Sampling(temperature=0, max_tokens=30, ignore_eos=True))]
    )[0]
    stop = free.token_ids[5]
    cut = free.token_ids[: free.token_ids.index(stop) + 1]
    by_request = Request(prompt(4, 10), Sampling(temperature=0, max_tokens=30, stop_token_ids=(stop,)))
    assert tiny_engine(model, eos_token_ids=[]).generate([by_request])[0].token_ids == cut
    by_model = Request(prompt(4, 10), Sampling(temperature=0, max_tokens=30))
    result = tiny_engine(model, eos_token_ids=[stop]).generate([by_model])[0]
    assert (result.token_ids, result.finish_reason) == (cut, "stop")


def test_the_next_turn_reads_only_what_is_new(model):
    engine = tiny_engine(model)
    first = Request(prompt(5, 20), Sampling(max_tokens=10, ignore_eos=True))
    engine.generate([first, Request(prompt(6, 20), Sampling(max_tokens=15))])
    before = engine.prefill_count
    second = Request([*first.prompt_ids, *first.result.token_ids, *prompt(7, 6)], Sampling(max_tokens=10))
    engine.generate([second])
    # The feedback, and the last token of the response, which the model never saw.
    assert engine.prefill_count - before == 6 + 1
    assert_agrees(model, second)


def test_shared_beginnings_are_read_once(model):
    engine = tiny_engine(model)
    shared = prompt(8, 30)
    engine.generate([Request([*shared, 5], Sampling(max_tokens=3))])
    before = engine.prefill_count
    requests = [Request([*shared, 6 + i, 7], Sampling(max_tokens=3)) for i in range(4)]
    engine.generate(requests)
    assert engine.prefill_count - before == 4 * 2
    for request in requests:
        assert_agrees(model, request)


episodes = st.lists(
    st.tuples(
        st.integers(0, 3),  # which shared beginning
        st.integers(0, 25),  # how much of it
        st.integers(1, 12),  # own tokens
        st.integers(0, 6),  # step at which it arrives
        st.sampled_from([0.0, 0.8, 1.4]),
        st.lists(st.tuples(st.integers(1, 12), st.integers(1, 8)), min_size=1, max_size=3),  # its turns
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(episodes, st.integers(1, 6), st.integers(8, 64), st.sampled_from([1, 4]))
def test_any_coming_and_going_of_episodes(schedule, max_rows, prefill_tokens, kv_heads):
    model = MODELS[kv_heads]
    engine = tiny_engine(model, max_rows=max_rows, prefill_tokens=prefill_tokens)
    coming = [
        (
            arrives,
            Request([*prompt(which, much), *prompt(100 + n, own)], Sampling(t, max_tokens=turns[0][0])),
            turns,
        )
        for n, (which, much, own, arrives, t, turns) in enumerate(schedule)
    ]
    live, done = {}, []
    for clock in range(10_000):
        for arrives, request, turns in coming:
            if arrives == clock:
                engine.submit(request)
                live[id(request)] = (request, turns)
        for request in engine.step():
            _, turns = live.pop(id(request))
            done.append(request)
            if len(turns) > 1:
                feedback = prompt(clock, turns[0][1])
                sampling = Sampling(request.sampling.temperature, max_tokens=turns[1][0])
                following = Request([*request.prompt_ids, *request.result.token_ids, *feedback], sampling)
                engine.submit(following)
                live[id(following)] = (following, turns[1:])
        if clock > 6 and not engine.busy:
            break
    assert not live and len(done) == sum(len(turns) for *_, turns in schedule)
    for request in done:
        assert_agrees(model, request)


MODELS = {1: tiny_llama(1), 4: tiny_llama(4)}


def test_more_requests_than_rows(model):
    engine = tiny_engine(model, max_rows=3)
    requests = [Request(prompt(i, 5), Sampling(max_tokens=1 + i % 4)) for i in range(20)]
    assert all(result.finish_reason for result in engine.generate(requests))
    for request in requests:
        assert_agrees(model, request)


def test_the_context_limits_the_response(model):
    request = Request(prompt(9, 250), Sampling(max_tokens=100, ignore_eos=True))
    result = tiny_engine(model).generate([request])[0]
    assert (len(result.token_ids), result.finish_reason) == (6, "length")


def test_abort_returns_what_there_is(model):
    engine = tiny_engine(model, max_rows=1)
    flying, waiting = (Request(prompt(i, 5), Sampling(max_tokens=50, ignore_eos=True)) for i in range(2))
    engine.submit(flying)
    engine.submit(waiting)
    engine.step()
    assert engine.abort() == [flying, waiting] and not engine.busy
    assert len(flying.result.token_ids) == 2 and waiting.result.token_ids == []
    assert flying.result.finish_reason == waiting.result.finish_reason == "aborted"
    again = Request(flying.prompt_ids, flying.sampling)
    engine.generate([again])
    assert_agrees(model, again)


def test_tokens_beyond_the_tokenizer_are_never_sampled(model):
    engine = tiny_engine(model, vocab_size=10, banned_token_ids=[3], eos_token_ids=[])
    result = engine.generate([Request([2], Sampling(temperature=5.0, max_tokens=200))])[0]
    assert max(result.token_ids) < 10 and 3 not in result.token_ids


@pytest.mark.parametrize(
    ("ids", "message"), [([], "0 tokens"), ([2] * 256, "256 tokens"), ([2, VOCAB], str(VOCAB)), ([-1], "-1")]
)
def test_bad_prompts_are_refused(model, ids, message):
    with pytest.raises(SftrlError, match=message):
        tiny_engine(model).submit(Request(ids))


def test_weights_must_fit_and_be_complete():
    engine = tiny_engine(tiny_llama(tied=True))
    state = tiny_llama(seed=1, tied=True).state_dict()
    without_head = {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}
    engine.load_weights(without_head.items())
    with pytest.raises(SftrlError, match="not sent: model.norm.weight"):
        engine.load_weights((k, v) for k, v in state.items() if k != "model.norm.weight")
    with pytest.raises(SftrlError, match="no weight of that name"):
        engine.load_weights([("model.norm.bias", torch.zeros(32))])
    with pytest.raises(SftrlError, match="shape"):
        engine.load_weights([("model.norm.weight", torch.zeros(31))])
    engine.submit(Request([2]))
    with pytest.raises(SftrlError, match="in flight"):
        engine.load_weights(state.items())


def test_folders(tmp_path):
    folder, other = save_folder(tmp_path / "a"), save_folder(tmp_path / "b", seed=1)
    engine = Engine.from_folder(folder)
    assert engine.eos == {EOS}
    request = Request(prompt(0, 6), Sampling(max_tokens=10))
    engine.generate([request])
    assert_agrees(tiny_llama(), request)
    engine.load_weights(other)
    engine.generate([request])
    assert_agrees(tiny_llama(seed=1), request)
    with pytest.raises(SftrlError, match="config.json"):
        engine.load_weights(tmp_path / "none")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).unlink()
    with pytest.raises(SftrlError, match="tokenizer"):
        Engine.from_folder(other)
    with pytest.raises(SftrlError, match="41 tokens"):
        tiny_engine(vocab_size=VOCAB + 1)
