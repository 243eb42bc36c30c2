"""Answers that grow: several to a request, stop sequences, characters of several tokens, and streams."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("verl")
pytest.importorskip("fastapi")

from sftrl_ext.backends.answer_stream import StopSequences, TextStream
from sftrl_ext.backends.openai_server import make_app
from sftrl_ext.backends.sampled import SampledToken
from sftrl_ext.rollout.player import Generation
from tests.backends.asgi import send

END = 0


class Chat:
    """A token is a byte; token 0 ends an answer."""

    stops = frozenset({END})

    class builder:
        @staticmethod
        def supports_multimodal():
            return False

        @staticmethod
        def build_initial_tokens(messages, images=None):
            return list("".join(message["content"] for message in messages).encode())

    @property
    def tokenizer(self):
        return self

    def decode(self, ids):
        return bytes(token for token in ids if token != END).decode(errors="replace")


class Engine:
    """Repeats a text for ever, from a place that the seed names, one token at a time."""

    def __init__(self, text):
        self.data = text.encode()
        self.running = 0
        self.sampled = 0

    def chat_tokens(self):
        return Chat()

    async def generate(self, prompt_ids, sampling_params, images=(), on_tokens=None):
        if prompt_ids == list(b"long"):
            raise ValueError("a prompt too long")
        self.running += 1
        ids = []
        try:
            while len(ids) < sampling_params["max_tokens"] and END not in ids:
                ids.append(self.data[(sampling_params.get("seed", 0) + len(ids)) % len(self.data)])
                self.sampled += 1
                if on_tokens is not None:
                    on_tokens(
                        [SampledToken(ids[-1], -ids[-1] / 100, ((ids[-1], -ids[-1] / 100), (65, -3.0)))]
                    )
                await asyncio.sleep(0.0005)
        finally:
            self.running -= 1
        return Generation(ids)


def ask(engine, content="hello", **more):
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return asyncio.run(send(make_app(engine, "m"), body))


def events(reply):
    lines = reply.body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def texts(chunks, count):
    result, finishes = [""] * count, [None] * count
    for chunk in chunks:
        for choice in chunk["choices"]:
            result[choice["index"]] += choice["delta"].get("content", "")
            finishes[choice["index"]] = choice["finish_reason"] or finishes[choice["index"]]
    return result, finishes


@pytest.mark.parametrize("stop", [None, "never"])
def test_several_answers_have_seeds_of_their_own(stop):
    reply = ask(Engine("abcdef"), n=3, seed=1, max_tokens=4, stop=stop).json
    assert [choice["message"]["content"] for choice in reply["choices"]] == ["bcde", "cdef", "defa"]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"length"}
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"),
    [("de", "abc"), (["xx", "f", "ef"], "abcd"), (["cd", "bcd"], "a"), ("a", ""), ("fabc", "abcde")],
)
def test_an_answer_ends_before_a_stop_sequence(stop, text, stream):
    engine = Engine("abcdef")
    reply = ask(engine, stop=stop, stream=stream, max_tokens=100)
    if stream:
        assert texts(events(reply), 1) == ([text], ["stop"])
    else:
        [choice] = reply.json["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    # The generation ended with the answer.
    assert engine.running == 0 and engine.sampled < 20


def test_a_stream_is_the_answer_in_parts():
    for text, finish in (("snow \u2744 and \U0001f0a1\0", "stop"), ("endless", "length")):
        whole = ask(Engine(text), max_tokens=40).json
        reply = ask(Engine(text), max_tokens=40, stream=True, stream_options={"include_usage": True})
        assert reply.headers["content-type"].startswith("text/event-stream")
        chunks = events(reply)
        assert texts(chunks, 1) == ([whole["choices"][0]["message"]["content"]], [finish])
        assert chunks[-1]["usage"] == whole["usage"] and len(chunks) > 6
        assert not any("\ufffd" in json.dumps(chunk, ensure_ascii=False) for chunk in chunks)


def scored(entries):
    """Text of tokens with log-probabilities; those of a character come without one."""
    assert all(entry["logprob"] < 0 for entry in entries)
    return "".join(entry["token"] for entry in entries if entry["bytes"] is not None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "text"), [(None, "abcdefab"), ("de", "abc"), (["zz", "fa"], "abcde"), ("a", "")]
)
def test_tokens_come_with_the_text_that_they_are_of(stop, text, stream):
    reply = ask(Engine("abcdef"), stop=stop, stream=stream, max_tokens=8, logprobs=True, top_logprobs=2)
    if not stream:
        [choice] = reply.json["choices"]
        assert choice["message"]["content"] == scored(choice["logprobs"]["content"]) == text
        first = {"token": "a", "logprob": -0.97, "bytes": [97]}
        other = {"token": "A", "logprob": -3.0, "bytes": [65]}
        assert not text or choice["logprobs"]["content"][0] == {**first, "top_logprobs": [first, other]}
        return
    written = ""
    for chunk in events(reply):
        [choice] = chunk["choices"]
        content = choice["delta"].get("content", "")
        written += content
        assert scored((choice["logprobs"] or {"content": []})["content"]) == content
    assert written == text


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_one_character_come_together(stream):
    reply = ask(Engine("snow \u2744!\0"), stream=stream, max_tokens=40, logprobs=True)
    chunks = events(reply) if stream else [reply.json]
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    tokens = [entry for choice in choices for entry in choice["logprobs"]["content"]]
    # Nine bytes; the end of the turn is not among them.
    assert [entry["bytes"] for entry in tokens] == [*([byte] for byte in b"snow "), None, None, None, [33]]
    assert all(choice["logprobs"]["content"] for choice in choices)
    plain = ask(Engine("snow \u2744!\0"), max_tokens=40).json
    assert plain["choices"][0]["logprobs"] is None


def test_streams_of_several_answers_are_told_apart():
    chunks = events(ask(Engine("abcdef"), n=2, seed=0, stream=True, max_tokens=3))
    assert texts(chunks, 2) == (["abc", "bcd"], ["length", "length"])


def test_a_stream_that_cannot_begin_is_an_error():
    reply = ask(Engine("a"), content="long", stream=True)
    assert reply.status == 400 and "too long" in reply.error


@pytest.mark.parametrize("more", [{"stream": True}, {"n": 3}, {"stop": "never"}])
def test_a_client_that_leaves_ends_all_generations(more):
    async def scenario():
        engine, leave = Engine("abc"), asyncio.Event()
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10**9, **more}
        request = asyncio.create_task(send(make_app(engine, "m"), body, leave=leave))
        while engine.sampled < 30:
            await asyncio.sleep(0)
        leave.set()
        await asyncio.wait_for(request, 30)
        await asyncio.sleep(0.05)
        return engine.running

    assert asyncio.run(scenario()) == 0


def test_health_needs_no_key():
    reply = asyncio.run(send(make_app(Engine("a"), "m", "secret"), path="/health"))
    assert (reply.status, reply.body) == (200, b"")


def test_characters_wait_until_they_are_whole():
    text = TextStream(Chat())
    parts = [text.add([byte]) for byte in "a\u2744b".encode()]
    assert parts == ["a", "", "", "\u2744", "b"]
    assert text.add(list("\u2744".encode())[:2]) == "" and text.rest() == "\ufffd"


def test_what_may_begin_a_stop_sequence_is_held_back():
    stops = StopSequences(["END", "EX"])
    assert [stops.add(part) for part in ("aE", "N", "b", "E")] == ["a", "", "ENb", ""]
    assert stops.rest() == "E" and not stops.reached
