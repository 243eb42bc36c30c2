"""Playing an episode: the tokens are the template's and the model's, the rewards are where the turns end."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.player import Limits, PlayedEpisode, play
from sftrl_ext.rollout.tokens import ChatTokens, Dialogue, chat_tokens
from tests.rollout.tiny import TEMPLATES, Guess, Script, Walk, builder_for, tiny_tokenizer

LIMITS = Limits(prompt=200, response=400, turn=32)


def run(episode, engine, limits=LIMITS, **kwargs) -> PlayedEpisode:
    chat = chat_tokens(builder_for(engine.tokenizer))
    return asyncio.run(play(episode, engine, chat, limits, **kwargs))


def encode(tokenizer, messages, generation_prompt=False) -> list[int]:
    out = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=generation_prompt)
    return list(out["input_ids"]) if hasattr(out, "keys") else list(out)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("system", [True, False])
def test_stream_equals_the_template_over_the_whole_dialogue(template, system):
    tokenizer = tiny_tokenizer(template)
    engine = Script(tokenizer, ["no", "maybe {1}", "yes"])
    episode = Guess(system=system)
    played = run(episode, engine)
    (segment,) = played.segments
    whole = encode(tokenizer, episode.messages())
    stream = segment.prompt_ids + segment.response_ids
    assert stream == whole[: len(stream)]
    # What is left is only what the template writes after the end token, which no model writes.
    assert tokenizer.decode(whole[len(stream) :]).strip() == ""
    # Each prompt the engine saw is the template's encoding of the dialogue up to there.
    messages = episode.messages()
    asked = [n for n, message in enumerate(messages) if message["role"] == "user"]
    for seen, n in zip(engine.prompts, asked, strict=True):
        assert seen == encode(tokenizer, messages[: n + 1], generation_prompt=True)


@pytest.mark.parametrize("template", TEMPLATES)
def test_masks_turns_rewards_and_logprobs(template):
    tokenizer = tiny_tokenizer(template)
    played = run(Guess(), Script(tokenizer, ["no", "yes"]))
    (segment,) = played.segments
    ours = [t for t, mask in zip(segment.response_ids, segment.response_mask, strict=True) if mask]
    assert tokenizer.decode(ours) == "no<end>yes<end>"
    assert [t > 0 for t in segment.turn_ids] == [m == 1 for m in segment.response_mask]
    assert [segment.turn_ids.count(k) for k in (1, 2, 3)] == [3, 4, 0]
    assert segment.logprobs == [-0.5 if mask else 0.0 for mask in segment.response_mask]
    rewards = segment.token_rewards()
    assert segment.turn_rewards == [-1.0, 5.0] == played.rewards
    assert [(n, r) for n, r in enumerate(rewards) if r] == [(2, -1.0), (len(rewards) - 1, 5.0)]
    assert segment.response_mask[2] == segment.response_mask[-1] == 1
    assert played.solved and not played.out_of_tokens and played.error is None
    assert played.generated_tokens == 7 == sum(segment.response_mask)
    assert played.feedback_tokens == len(segment.response_mask) - 7
    assert played.prompt_tokens == len(segment.prompt_ids)
    assert played.prefill_tokens == 2 * len(segment.prompt_ids) + 3 + played.feedback_tokens
    assert [extra["turn"] for extra in played.extra] == [1, 2]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_cut_turn_is_graded_and_closed_by_the_template(template):
    tokenizer = tiny_tokenizer(template)
    episode = Guess()
    engine = Script(tokenizer, ["yesterday", "yes"])
    played = run(episode, engine, Limits(prompt=200, response=300, turn=5))
    assert [attempt.response for attempt in episode.attempts] == ["yeste", "yes"]
    assert played.cut_turns == 1 and played.solved
    (segment,) = played.segments
    # The dialogue goes on as if the model had closed its turn, but it is not trained to.
    assert engine.prompts[1] == encode(tokenizer, episode.messages()[:-1], generation_prompt=True)
    assert segment.turn_ids[:6] == [1, 1, 1, 1, 1, 0]
    assert tokenizer.decode(segment.response_ids[5:6]) == "<end>"


def test_ends_when_the_next_turn_has_no_room():
    tokenizer = tiny_tokenizer()
    engine = Script(tokenizer, ["no", "yes"])
    asked = run(Guess(), engine).feedback_tokens
    room = 3 + asked + 8
    fits = run(Guess(), Script(tokenizer, ["no", "yes"]), Limits(200, room, 8))
    assert fits.solved and not fits.out_of_tokens
    short = run(Guess(), Script(tokenizer, ["no", "yes"]), Limits(200, room - 1, 8))
    assert short.out_of_tokens and not short.solved and len(short.steps) == 1
    (segment,) = short.segments
    assert segment.response_mask == [1, 1, 1] and segment.token_rewards() == [0.0, 0.0, -1.0]


def test_the_last_failed_attempt_ends_without_feedback():
    tokenizer = tiny_tokenizer()
    played = run(Guess(max_attempts=2), Script(tokenizer, ["no", "nope"]))
    assert played.rewards == [-1.0, -1.0] and played.segments[0].response_mask[-1] == 1
    assert played.steps[-1].truncated and not played.out_of_tokens


@pytest.mark.parametrize("says", [["crash"], ["no", "crash"], ["no"]])
def test_an_error_ends_the_episode_and_keeps_what_was_played(says, caplog):
    tokenizer = tiny_tokenizer()
    played = run(Guess(), Script(tokenizer, says))
    assert played.fault is not None
    assert played.error == f"{type(played.fault).__name__}: {played.fault}"
    assert len(played.segments) == 1 and len(played.rewards) == len(played.steps) == (
        len(says) - (says[-1] == "crash")
    )
    assert "Traceback" in caplog.text
    assert played.metrics["solved"] == 0.0


def test_an_engine_without_logprobs():
    played = run(Guess(), Script(tiny_tokenizer(), ["no", "yes"], logprob=None))
    assert played.segments[0].logprobs is None and played.solved


def test_a_task_with_a_new_prompt_per_point_gives_a_segment_per_prompt():
    tokenizer = tiny_tokenizer()
    played = run(Walk(), Script(tokenizer, ["a", "x", "b", "c"]))
    assert played.solved and len(played.segments) == 3
    # A prompt or feedback token is read once, a model token written once: nothing else is in the sequences.
    sequences = sum(len(s.prompt_ids) + len(s.response_ids) for s in played.segments)
    assert played.prompt_tokens + played.feedback_tokens + played.generated_tokens == sequences
    assert [segment.turn_rewards for segment in played.segments] == [[1.0], [-1.0, 1.0], [1.0]]
    assert [sorted(set(segment.turn_ids)) for segment in played.segments] == [[1], [0, 1, 2], [1]]
    assert tokenizer.decode(played.segments[1].prompt_ids) == "<|user|>point 1<end><|assistant|>"


def test_a_prompt_over_the_limit_is_an_error_that_names_the_key():
    played = run(Guess(), Script(tiny_tokenizer(), ["yes"]), Limits(prompt=10, response=50, turn=8))
    assert played.error is not None and "max_prompt_length" in played.error and not played.segments
    assert played.fault is None and not played.out_of_tokens


def test_rewards_of_ones_own_and_sampling_parameters():
    engine = Script(tiny_tokenizer(), ["no", "yes"])
    played = run(Guess(), engine, sampling_params={"top_p": 0.5}, turn_reward=lambda e, s: float(e.solved))
    assert played.rewards == [0.0, 1.0]
    assert engine.params[0] == {"top_p": 0.5, "max_tokens": 32}


def test_limits_must_hold_a_turn():
    with pytest.raises(SftrlError, match="fit"):
        Limits(prompt=10, response=5, turn=6)


def test_a_template_that_changes_inside_a_dialogue_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + ('again ' if loop.index > 1 and "
        "messages[loop.index0 - 1]['role'] == 'assistant' else '') + m['content'] + '<end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    with pytest.raises(SftrlError, match="multi-turn"):
        ChatTokens(builder_for(tokenizer))


def test_closing_tokens():
    for template, closing in {"plain": "<end>", "chatml": "<end>\n", "headed": "<end>"}.items():
        tokenizer = tiny_tokenizer(template)
        assert tokenizer.decode(chat_tokens(builder_for(tokenizer)).closing) == closing


def test_dialogue_does_not_reencode_odd_model_tokens():
    tokenizer = tiny_tokenizer()
    dialogue = Dialogue.start(chat_tokens(builder_for(tokenizer)), [{"role": "user", "content": "x"}])
    odd = [
        0xC3 + 6,
        7,
        8,
        tokenizer.eos_token_id,
    ]  # bytes that are no text, so decode and encode would not return
    dialogue.add_turn(odd, None)
    dialogue.add_feedback(dialogue.feedback_ids("again"))
    assert dialogue.response_ids[:4] == odd


def test_a_tokenizer_is_probed_once():
    tokenizer = tiny_tokenizer()
    first = chat_tokens(builder_for(tokenizer))
    assert chat_tokens(builder_for(tokenizer)) is first
    tokenizer.chat_template = TEMPLATES["chatml"]
    assert chat_tokens(builder_for(tokenizer)) is not first


@pytest.mark.parametrize(
    "limits",
    [Limits(200, 400, 32, prompts=2), Limits(prompt=30, response=400, turn=32)],
    ids=["prompts", "prompt"],
)
def test_the_budget_of_a_route_ends_it_and_keeps_what_was_played(limits):
    walk = Walk()
    if limits.prompts is None:  # the third prompt is longer than the limit
        first = walk.messages
        walk.messages = lambda: [{"role": "user", "content": "far"}] * 9 if walk.point == 2 else first()
    played = run(walk, Script(tiny_tokenizer(), ["a", "x", "b", "never asked"]), limits)
    assert played.error is None and played.out_of_tokens and not played.solved
    assert [segment.turn_rewards for segment in played.segments] == [[1.0], [-1.0, 1.0]]
    assert len(played.steps) == 3 and played.prompt_tokens == sum(len(s.prompt_ids) for s in played.segments)
    assert played.metrics == {"solved": 0.0}


def test_a_limit_of_prompts_that_is_none_is_refused():
    with pytest.raises(SftrlError, match="0 prompts"):
        Limits(prompt=10, response=5, turn=5, prompts=0)
    assert run(Walk(), Script(tiny_tokenizer(), ["a", "b", "c"]), Limits(200, 400, 32, prompts=3)).solved


def test_a_route_is_walked_to_its_end_with_its_numbers():
    from sftrl_ext.envs.task import make_episode
    from sftrl_ext.envs.virl.episode import PlaySettings, make_facts
    from sftrl_ext.envs.virl.routes import Milestone, Route
    from sftrl_ext.envs.virl.track import lay_track
    from sftrl_ext.rollout.metrics import episode_metrics

    milestones = (Milestone((40.71, -74.0), 0.0, "north"), Milestone((40.71, -73.99), 90.0, "east", "Cafe"))
    track = lay_track(Route(0, (40.7, -74.0), 350.0, milestones))
    facts = make_facts(track, PlaySettings(template="compact", drop_rate=0.0))
    expert = make_episode(facts)
    says = []
    while not expert.done:
        says.append(expert.expert_answer())
        expert.submit(says[-1])
    says.insert(2, '{"current observation": "x", "action": "stop()"}')
    played = run(make_episode(facts), Script(tiny_tokenizer(), says), Limits(4000, 2000, 400))
    points = len(says) - 1
    assert played.error is None and played.solved and len(played.segments) == points
    assert [len(s.turn_rewards) for s in played.segments] == [1, 1, 2] + [1] * (points - 3)
    numbers = episode_metrics(played)
    assert (numbers["correct_actions"], numbers["responses"]) == (points, points + 1)
    assert numbers["acc"] == numbers["solved"] == 1 and numbers["turns"] == points + 1
