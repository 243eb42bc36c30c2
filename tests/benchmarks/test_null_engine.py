"""The stand-ins of the benchmark of the agent loop at scale."""

from __future__ import annotations

import asyncio
import random
import statistics
import time

import pytest

pytest.importorskip("verl")

import torch
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from benchmarks.null_engine import (
    Heartbeat,
    NullEngine,
    NullQueue,
    Sampler,
    beating,
    scripted_answers,
    turn_seed,
)
from tests.rollout.test_verifier_loop import guess_row, make_loop
from tests.rollout.tiny import Guess, Script, tiny_tokenizer


def test_latencies_are_lognormal_and_seeded():
    first, again, other = (NullEngine({}, 2.0, 0.5, seed) for seed in (0, 0, 1))
    drawn = [first.latency() for _ in range(2000)]
    assert statistics.median(drawn) == pytest.approx(2.0, rel=0.05)
    assert drawn[:9] == [again.latency() for _ in range(9)] != [other.latency() for _ in range(9)]


def test_the_engine_answers_a_turn_of_the_loop_by_its_seed():
    tokenizer = tiny_tokenizer()
    answers = {turn_seed(0, "u", 1, turn): tokenizer.encode(text) for turn, text in enumerate(("no", "yes"))}
    server = NullEngine(answers, 1e-4)
    server.engine = Script(tokenizer, ())  # where `make_loop` looks for the tokenizer

    async def go():
        loop = await make_loop(server, seeded=True)()
        return await loop.run({}, **guess_row(uid="u", session_id=1))

    (output,) = asyncio.run(go())
    assert output.num_turns == 2 and output.reward_score == 4.0
    assert server.turns == 2 and server.most_in_flight == 1


def test_an_answer_is_cut_at_the_limit_of_a_turn():
    engine = NullEngine({5: [1, 2, 3]}, 1e-4)
    output = asyncio.run(
        engine.generate("r", prompt_ids=[], sampling_params={"seed": 5, "max_tokens": 2}, image_data=None)
    )
    assert output.token_ids == [1, 2] and len(output.log_probs) == 2


def test_scripts_play_episodes_of_all_lengths():
    def scripts(seed):
        rng = random.Random(seed)
        return [
            scripted_answers(Guess(max_attempts=5), lambda episode: episode.word, ["no", ""], 5, rng)
            for _ in range(100)
        ]

    assert {len(script) for script in scripts(0)} == {1, 2, 3, 4, 5}
    assert {script[-1] for script in scripts(0)} == {"yes", "no", ""}
    assert scripts(0) == scripts(0) != scripts(1)


def put(rows):
    queue = NullQueue()
    for key, row in rows.items():
        fields = list_of_dict_to_tensordict([row])
        asyncio.run(queue.async_kv_batch_put([key], "train", fields, [{"status": "success"}]))
    return queue


def queue_row(ids, **fields):
    return {"responses": torch.tensor(ids), "metrics": {"s": time.time()}, "extra_fields": fields, "uid": "u"}


def test_a_digest_tells_rows_apart_and_not_their_order_or_times():
    rows = {"a": queue_row([1, 2]), "b": queue_row([3])}
    later = {"b": queue_row([3]), "a": queue_row([1, 2])}
    assert put(rows).digest() == put(later).digest() and put(rows).bytes > 24
    for changed in (queue_row([1, 3]), queue_row([1, 2], turn=1)):
        assert put({**rows, "a": changed}).digest() != put(rows).digest()
    assert put({"a": queue_row([1], error="no")}).errors() == ["no"] and put(rows).errors() == []


def test_a_heartbeat_sees_a_block():
    heart = Heartbeat()

    async def go():
        with beating(heart):
            await asyncio.sleep(0.01)
            time.sleep(0.1)
            await asyncio.sleep(0.01)

    asyncio.run(go())
    report = heart.report()
    assert report["longest_ms"] > 90 and report["over_50_ms"] >= 1
    assert report["longest_cpu_ms"] < report["longest_ms"]


def test_a_stack_counts_for_the_first_part_in_it():
    sampler = Sampler([("inner", "b.py", "f"), ("outer", "a.py", "")])
    assert sampler.part([("/x/b.py", "f"), ("/x/a.py", "g")]) == "inner"
    assert sampler.part([("/x/b.py", "g"), ("/x/a.py", "g")]) == "outer"
    assert sampler.part([("/x/c.py", "f")]) == "rest"


def test_samples_follow_processor_time():
    with Sampler([("work", "test_null_engine.py", "_work")]) as sampler:
        _work()
        time.sleep(0.05)
    assert sampler.shares()["work"] > 0.5 and any("_work" in line for line in sampler.lines)


def _work():
    until = time.process_time() + 0.1
    while time.process_time() < until:
        sum(range(1000))
