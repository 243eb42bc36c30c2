import asyncio
import json

import pytest

pytest.importorskip("verl")


from sftrl_ext.envs.task import make_episode
from sftrl_ext.experiments.evaluation import evaluate
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.files import read_jsonl
from sftrl_ext.rollout.player import Generation
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.state import RunState, StageState

pytestmark = pytest.mark.slow

RIGHT = '{"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": "6*4*1*1=24"}'
FACTS = {"task": "general_points", "cards": ["6", "4", "A", "A"], "template": "compact", "max_attempts": 3}


class Canned:
    """Writes the right answer at the given turn of the given checkpoint, nonsense before."""

    name = "canned"

    def __init__(self, chat):
        self.chat = chat
        self.loaded = []
        self.seeds = []

    async def load_weights(self, folder):
        self.loaded.append(folder)

    async def generate(self, prompt_ids, sampling_params, images=()):
        self.seeds.append(sampling_params["seed"])
        await asyncio.sleep(0)
        turns = self.chat.decode(prompt_ids).count("wrong") + 1
        text = RIGHT if turns >= len(self.loaded) else '{"formula": "6*4*1+1=24"}'
        ids = self.chat.tokenizer.encode(text, add_special_tokens=False) + [self.chat.tokenizer.eos_token_id]
        return Generation(ids, [0.0] * len(ids))

    def chat_tokens(self):
        return self.chat


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
    from sftrl_ext.rollout.tokens import load_chat_tokens

    folder = tmp_path_factory.mktemp("model") / "tiny"
    texts = [m["content"] for m in make_episode(FACTS).messages()] + [RIGHT]
    build_tiny_llama(folder, texts * 50, ModelConfig(name="t", hidden_size=32, layers=1, heads=1), seed=0)
    return load_chat_tokens(folder)


def make_run(tmp_path):
    recipe = load_recipe("fig6_gp_l", "smoke", ["budget.rl.max_prompt_length=256"])
    layout = RunLayout(tmp_path)
    state = RunState(
        "r",
        "smoke",
        stages=[StageState("init", "sft", "init", 0, 1e-4), StageState("rl", "rl", "rl", 0, 1e-4)],
    )
    for stage, steps in (("init", (1, 2)), ("rl", (1, 2))):
        for step in steps:
            (layout.checkpoints(stage) / f"global_step_{step}").mkdir(parents=True)
        (layout.checkpoints(stage) / LATEST).write_text("2")
    return recipe, layout, state


def test_every_checkpoint_is_recorded_and_a_torn_record_is_done_again(tmp_path, chat):
    recipe, layout, state = make_run(tmp_path)
    sets = [evaluate.EvalSet("id", "gp_l/id", [FACTS, FACTS])]
    engine = Canned(chat)
    evaluate.evaluate_run(recipe, state, layout, sets, engine, ProgressFile())
    records = list(read_jsonl(layout.records))
    # Of the init only its last step; the canned engine needs one turn more for each checkpoint loaded.
    assert [(r["stage"], r["step"], r["solved"], r["attempts_mean"]) for r in records] == [
        ("init", 2, 2, 1.0),
        ("rl", 1, 2, 2.0),
        ("rl", 2, 2, 3.0),
    ]
    assert (
        records[2]["outcomes"] == {"correct": 2, "wrong_numbers": 4} or records[2]["outcomes"]["correct"] == 2
    )
    sample = list(read_jsonl(layout.episodes))[-1]
    assert sample["solved"]
    assert len(sample["attempts"]) == 3

    whole = layout.records.read_text()
    layout.records.write_text(whole[: whole.rindex('{"stage"') + 20])
    again = Canned(chat)
    evaluate.evaluate_run(recipe, state, layout, sets, again, ProgressFile())
    assert len(again.loaded) == 1
    assert len(list(read_jsonl(layout.records))) == 3


def test_a_base_model_that_came_trained_is_evaluated_if_arms_start_from_it(tmp_path):
    _, layout, state = make_run(tmp_path)
    assert [target.stage for target in evaluate.targets_of(state, layout)] == ["init", "rl", "rl"]
    first = evaluate.targets_of(state, layout, arms_from_base=True)[0]
    assert (first.stage, first.arm, first.step, first.folder) == ("model", "base", 0, layout.start_model)
    state.stages.insert(0, StageState("base", "sft", "base", 0, 1e-4))
    assert "model" not in [target.stage for target in evaluate.targets_of(state, layout, arms_from_base=True)]


def test_the_same_seed_asks_for_the_same_responses(tmp_path, chat):
    recipe, _, _ = make_run(tmp_path)
    chosen = evaluate.EvalSet("id", "gp_l/id", [FACTS] * 3)
    seeds = []
    for _ in range(2):
        engine = Canned(chat)
        engine.loaded = ["a", "b"]
        asyncio.run(evaluate.play_all(evaluate.EvalPlay.of(recipe), chosen, engine, lambda: None))
        seeds.append(sorted(engine.seeds))
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == len(seeds[0]) == 6


def test_samples_of_an_instance_have_seeds_of_their_own(tmp_path, chat):
    recipe, layout, state = make_run(tmp_path)
    recipe.budget.eval.samples, recipe.budget.eval.sample_episodes = 2, 6
    chosen = evaluate.EvalSet("id", "gp_l/id", [FACTS] * 3)
    engine = Canned(chat)
    evaluate.evaluate_run(recipe, state, layout, [chosen], engine, ProgressFile())
    first, *_ = list(read_jsonl(layout.records))
    assert (first["episodes"], first["successes"], first["instances"]) == (6, [2, 2, 2], chosen.digest)
    assert first["distinct"] == [1, 1, 1] and first["solutions"][0] >= 1
    seeds = engine.seeds[:6]
    assert len(set(seeds)) == 6
    assert [evaluate.turn_seed(recipe.budget.eval.seed, "id", index, 0) for index in range(3)] == seeds[::2]
    stored = [line for line in read_jsonl(layout.episodes) if line["stage"] == "init"]
    assert len(stored) == 3, "one episode of each instance is kept word for word"


def test_a_fault_of_the_engine_is_no_result(tmp_path, chat):
    recipe, _, _ = make_run(tmp_path)
    chosen = evaluate.EvalSet("id", "gp_l/id", [FACTS])

    class Broken(Canned):
        async def generate(self, prompt_ids, sampling_params, images=()):
            raise RuntimeError("out of memory")

    engine = Broken(chat)
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(evaluate.play_all(evaluate.EvalPlay.of(recipe), chosen, engine, lambda: None))


def test_facts_are_json_like():
    assert json.loads(json.dumps(FACTS)) == FACTS


def test_the_sampling_and_the_length_of_answers_are_those_of_the_evaluation(tmp_path, chat):
    recipe, layout, state = make_run(tmp_path)
    recipe.budget.eval.top_p, recipe.budget.eval.max_turn_tokens = 0.9, 30
    seen = []

    class Seeing(Canned):
        async def generate(self, prompt_ids, sampling_params, images=()):
            seen.append(dict(sampling_params))
            return await super().generate(prompt_ids, sampling_params, images)

    sets = [evaluate.EvalSet("id", "gp_l/id", [FACTS])]
    evaluate.evaluate_run(recipe, state, layout, sets, Seeing(chat), ProgressFile())
    assert {(params["top_p"], params["max_tokens"]) for params in seen} == {(0.9, 30)}
    assert "top_k" not in seen[0]
    assert all(record["top_p"] == 0.9 for record in read_jsonl(layout.records))
