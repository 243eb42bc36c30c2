"""Playing by messages: the engine is sent what the token player's engine reads, turn by turn."""

from __future__ import annotations

import asyncio

import pytest
from PIL import Image

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.messages import Completion, DialogueTooLong, play_messages
from sftrl_ext.rollout.player import Limits, play
from sftrl_ext.rollout.tokens import chat_tokens
from tests.rollout.tiny import Guess, Script, Walk, builder_for, tiny_tokenizer


class Says:
    """An engine that says what it is told and keeps what it was sent."""

    def __init__(self, *says):
        self.says, self.sent = says, []

    async def __call__(self, messages, turn):
        assert turn == len(self.sent)
        self.sent.append(messages)
        said = self.says[turn]
        if isinstance(said, Exception):
            raise said
        return Completion(said, cut=said == "cut", prompt_tokens=10 * (turn + 1), completion_tokens=2)


def run(episode, *says):
    engine = Says(*says)
    return asyncio.run(play_messages(episode, engine)), engine.sent


@pytest.mark.parametrize(
    ("make", "says"), [(Guess, ["no", "maybe", "yes"]), (Walk, ["a", "x", "b", "c"]), (Walk, ["x", "y"])]
)
def test_both_players_show_and_grade_the_same(make, says):
    tokenizer = tiny_tokenizer("chatml")
    engine = Script(tokenizer, says)
    limits = Limits(prompt=200, response=400, turn=32)
    by_tokens = asyncio.run(play(make(), engine, chat_tokens(builder_for(tokenizer)), limits))
    by_messages, sent = run(make(), *says)
    rendered = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in sent
    ]
    assert rendered == [tokenizer.decode(ids) for ids in engine.prompts]
    assert by_messages.steps == by_tokens.steps
    assert by_messages.messages == by_tokens.messages
    assert (by_messages.solved, by_messages.metrics) == (by_tokens.solved, by_tokens.metrics)


def test_tokens_are_counted_per_prompt_and_per_request():
    played, _ = run(Walk(), "x", "a", "b", "c")
    assert played.prompt_tokens == 10 + 30 + 40  # the second request goes on with the first prompt
    assert played.prefill_tokens == 10 + 20 + 30 + 40
    assert played.generated_tokens == 8
    assert run(Guess(), "cut", "yes")[0].cut_turns == 1


def test_a_dialogue_that_is_too_long_ends_the_episode_alone():
    played, _ = run(Guess(), "no", DialogueTooLong("too long"))
    assert played.out_of_tokens and played.error is None and not played.solved
    assert len(played.steps) == 1
    played, _ = run(Guess(), DialogueTooLong("too long"))
    assert not played.out_of_tokens and played.error == "too long"


def test_a_fault_is_no_result_of_an_episode():
    with pytest.raises(RuntimeError, match="the verifier crashed"):
        run(Guess(), "crash")
    for fault in (SftrlError("wrong key"), TypeError("'str' object")):
        with pytest.raises(type(fault)):
            run(Guess(), "no", fault)


def test_pictures_stand_where_their_markers_are():
    picture = Image.new("RGB", (4, 4))

    class Seeing(Guess):
        def messages(self):
            said = [m for m in super().messages() if m["role"] == "assistant"]
            return [{"role": "user", "content": "Look: <image> Well?"}, *said]

        def images(self):
            return (picture,)

    _, sent = run(Seeing(), "an <image>", "yes")
    assert sent[1][0]["content"] == [
        {"type": "text", "text": "Look: "},
        {"type": "image", "image": picture},
        {"type": "text", "text": " Well?"},
    ]
    assert sent[1][1] == {"role": "assistant", "content": "an <image>"}
