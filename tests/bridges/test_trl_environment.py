"""Environment of TRL: a training step of its own trainer plays our episodes."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.bridges.trl_environment import EpisodeEnvironment, prompts
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points import solve
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.errors import SftrlError

ROWS = {"task": "general_points", "rows": 1, "seed": 2, "max_attempts": 2}


def right_answer(record):
    episode = make_episode(json.loads(record["facts"]))
    formula = solve(episode.numbers, episode.target)[0]
    return json.dumps({"number": list(episode.numbers), "formula": f"{formula}=24"})


def test_the_tool_gives_the_verifiers_feedback():
    (record,) = prompts(**ROWS)
    episode = make_episode(json.loads(record["facts"]))
    assert record["prompt"] == episode.messages()
    env = EpisodeEnvironment()
    env.reset(**record)
    assert env.answer("no") == episode.submit("no").reply
    right = right_answer(record)
    assert env.answer(right) == episode.submit(right).attempt.verdict.feedback
    assert env.answer("more") == "The episode is over."
    assert env.get_reward() == -3.0 + 5.0
    env.reset(**record)
    assert env.get_reward() == -3.0  # graded as an empty response


def test_a_new_prompt_is_the_result_of_the_tool(tmp_path):
    routes = build_city(tmp_path / "city", style="brick", routes=2, width=64)
    (record,) = prompts(task="virl", rows=1, routes=str(routes))
    episode = make_episode(json.loads(record["facts"]))
    action = json.dumps({"action": episode.point.action})
    env = EpisodeEnvironment()
    env.reset(**record)
    episode.submit(action)
    assert env.answer(action) == episode.messages()[-1]["content"]


def test_pictures_are_refused():
    with pytest.raises(SftrlError, match="text rows"):
        prompts(**ROWS, modality="image", image_size="64x48")


@pytest.mark.bridges
def test_one_training_step_plays_episodes(tmp_path):
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_chat_template

    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
    from sftrl_ext.hf_folder import load_model, load_tokenizer

    folder = tmp_path / "model"
    sizes = ModelConfig(name="t", hidden_size=32, layers=2, heads=2, vocab_size=300, max_positions=16384)
    build_tiny_llama(folder, ["a"], sizes, seed=0)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = qwen3_chat_template
    records = prompts(**ROWS)

    def call(response):
        arguments = json.dumps({"name": "answer", "arguments": {"response": response}})
        return f"<tool_call>\n{arguments}\n</tool_call>"

    right = right_answer(records[0])
    turns = [[call("no"), call(right)], [call("no"), "It is done."], ["It is over."]]

    class Scripted(GRPOTrainer):
        """Two dialogues whose responses are given."""

        def _generate_single_turn(self, prompt_ids, *args, **options):
            texts = turns.pop(0)
            assert len(texts) == len(prompt_ids)
            # The end of a turn in the chat template: what TRL parses calls by.
            turns_of_model = [f"{text}<|im_end|>" for text in texts]
            return tokenizer(turns_of_model, add_special_tokens=False)["input_ids"], None

    model = load_model(folder, torch.float32)
    before = model.get_input_embeddings().weight.detach().clone()
    config = GRPOConfig(
        output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=2, num_generations=2, max_completion_length=8192, max_steps=1,
        learning_rate=1e-3, beta=0.0, logging_steps=1, save_strategy="no", report_to="none",
    )  # fmt: skip
    trainer = Scripted(
        model=model,
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(records),
        environment_factory=EpisodeEnvironment,
    )
    trainer.train()
    assert turns == []
    (logged,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    # One dialogue fails twice, with the penalty of the last attempt; the other is right at once.
    assert logged["reward"] == pytest.approx((-3.0 - 4.0 + 5.0) / 2)
    assert not torch.equal(before, model.get_input_embeddings().weight)
