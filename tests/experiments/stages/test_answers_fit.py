"""The token limits of a recipe hold the answers its arms are taught, on every split that is evaluated."""

from __future__ import annotations

import pytest

from data_prep.general_points import reasoned_rows
from data_prep.hand_rows import HandRows
from data_prep.writer import write_rows
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.runs.layout import RunLayout

HANDS = 250


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_reasoned_answers_fit(scale, tmp_path):
    pytest.importorskip("verl")
    from sftrl_ext.experiments.stages.kinds import _sample_texts
    from sftrl_ext.experiments.start_models.tiny_model import train_tokenizer

    recipe = load_recipe("beyond_prompts", scale)
    task, rl = recipe.task, recipe.budget.rl
    make, layout = HandRows(task, tmp_path), RunLayout(tmp_path)
    write_rows(layout.rows("base"), make.sft(task.pretrain_splits, 2_000, 1_000, pretraining=True))
    model = recipe.model
    tokenizer = train_tokenizer(_sample_texts(layout), model.vocab_size, model.max_positions)

    def tokens(messages, **how):
        return len(tokenizer.apply_chat_template(messages, return_dict=True, **how)["input_ids"])

    taught = [split for arm in recipe.arms.values() if arm.rows == "reasoned" for split in arm.splits]
    assert {"id", "ood_five_cards", "ood_large", "all_7"} <= {*task.eval_splits, *taught}
    longest = 0
    for split in {*task.eval_splits, *taught}:
        for table in reasoned_rows(make.source(split, 0, None, train=False), HANDS, task.solutions):
            for row in table.to_pylist():
                prompt = tokens(row["prompt"], add_generation_prompt=True)
                whole = tokens(row["messages"])
                assert prompt <= rl.max_prompt_length
                assert whole <= recipe.budget.sft.max_length
                answer = row["messages"][-1]["content"]
                assert tokenizer.decode(tokenizer(answer)["input_ids"]) == answer
                longest = max(longest, whole - prompt)
    assert load_recipe("fig6_gp_l", scale).budget.rl.max_turn_tokens < longest <= rl.max_turn_tokens
    template = make.settings.template
    reply = tokens([{"role": "user", "content": "illegal formula"}], add_generation_prompt=True)
    assert template == "compact" and reply < 12
    assert task.max_attempts * (rl.max_turn_tokens + reply) <= rl.max_response_length
    assert rl.max_prompt_length + rl.max_response_length <= model.max_positions
