"""Where the divergence is measured and from what, its estimate, and that nothing is measured twice."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("verl")


from sftrl_ext.experiments.evaluation import evaluate
from sftrl_ext.experiments.evaluation.divergence import measured_split, per_token
from sftrl_ext.experiments.evaluation.targets import EvalSet, Target, start_of
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.files import read_jsonl
from sftrl_ext.rollout.player import Generation
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile
from sftrl_ext.runs.records import KLEstimate
from sftrl_ext.runs.state import RunState, StageState

FACTS = {"task": "general_points", "cards": ["6", "4", "A", "A"], "template": "compact", "max_attempts": 2}
SETS = [EvalSet("id", "gp_l/id", [FACTS] * 3), EvalSet("rule_ood", "gp_l/rule_ood", [FACTS] * 2)]


def recipe_with(*overrides):
    return load_recipe("fig6_gp_l", "smoke", ["budget.rl.max_prompt_length=256", *overrides])


def save(layout, stage, *steps):
    for step in steps:
        (layout.checkpoints(stage) / f"global_step_{step}" / "huggingface").mkdir(parents=True)
    (layout.checkpoints(stage) / LATEST).write_text(str(steps[-1]))


@pytest.fixture
def run(tmp_path):
    """(layout, state): base, init, SFT from the init, RL from the init, and RL from SFT."""
    layout = RunLayout(tmp_path)
    layout.start_model.mkdir()
    stages = [
        StageState("model", "model"),
        StageState("base", "sft", "base", 0, 1e-3),
        StageState("init", "sft", "init", 0, 1e-4),
        StageState("sft", "sft", "sft", 0, 1e-4, start="init@2"),
        StageState("rl", "rl", "rl", 0, 1e-4, start="init@2"),
        StageState("rl_late", "rl", "rl_late", 0, 1e-4, start="sft@1"),
    ]
    for stage in stages[1:]:
        save(layout, stage.name, 1, 2)
    return layout, RunState("r", "smoke", stages=stages)


class Comparing:
    """Answers with nonsense; a divergence is told by the names of the two checkpoints and the tokens."""

    name = "comparing"

    def __init__(self, chat, fails_at=None):
        self.chat, self.fails_at = chat, fails_at
        self.loaded, self.asked, self.turns = [], [], 0

    async def load_weights(self, folder):
        self.loaded.append(place(folder))

    async def generate(self, prompt_ids, sampling_params, images=()):
        # Every checkpoint writes another number of tokens.
        self.turns += 1
        ids = [5] * (2 + int(self.loaded[-1][-1])) + [self.chat.tokenizer.eos_token_id]
        return Generation(ids, [0.0] * len(ids))

    async def divergence(self, segments, other, temperature, *, to_other):
        if len(self.asked) == self.fails_at:
            raise ConnectionError("killed")
        self.asked.append((self.loaded[-1], place(other), to_other, temperature, len(segments)))
        return [0.5 * sum(segment.response_mask) * (2 if to_other else 1) for segment in segments]

    def chat_tokens(self):
        return self.chat


class Plain(Comparing):
    """An engine that cannot compare."""

    name = "plain"
    divergence = None


def place(folder):
    names = folder.parts
    return folder.name if "stages" not in names else f"{names[-4]}@{names[-2].removeprefix('global_step_')}"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    from sftrl_ext.envs.task import make_episode
    from sftrl_ext.experiments.recipe.schema import ModelConfig
    from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
    from sftrl_ext.rollout.tokens import load_chat_tokens

    folder = tmp_path_factory.mktemp("model") / "tiny"
    texts = [message["content"] for message in make_episode(FACTS).messages()]
    build_tiny_llama(folder, texts * 50, ModelConfig(name="t", hidden_size=32, layers=1, heads=1), seed=0)
    return load_chat_tokens(folder)


def go(run, engine, sets=SETS, **how):
    layout, state = run
    recipe = recipe_with("budget.eval.kl_episodes=2", "task.eval_splits=[id,rule_ood]")
    recipe.budget.eval = replace(recipe.budget.eval, **how)
    evaluate.evaluate_run(recipe, state, layout, sets, engine, ProgressFile())
    return list(read_jsonl(layout.records))


def test_the_split_trained_on_is_measured_or_the_first():
    assert measured_split(recipe_with("budget.eval.kl_episodes=3")) == "id"
    assert measured_split(recipe_with("task.eval_splits=[rule_ood,id_unseen]")) == "rule_ood"
    assert measured_split(recipe_with("budget.eval.kl_episodes=0")) is None
    assert recipe_with().budget.eval.kl_episodes == 32


def test_every_checkpoint_is_measured_from_what_its_stage_started_from(run):
    layout, state = run

    def start(stage, arm, step=2):
        found = start_of(Target(stage, arm, 0, 0.0, step, layout.root), state, layout)
        return found and (found[0], found[1] and place(found[1]))

    assert start("sft", "sft") == start("rl", "rl") == ("init@2", "init@2")
    assert start("rl_late", "rl_late") == ("sft@1", "sft@1")
    assert start("init", "init") == ("base@2", "base@2")
    assert start("base", "base") is None and start("model", "base", 0) is None
    state.stage("rl").start = "model@0"
    assert start("rl", "rl") == ("model@0", "start_model")
    # Run folders that are older than the key; a recipe without pre-training.
    state.stage("rl").start = None
    assert start("rl", "rl") == ("init@2", "init@2")
    state.stages = [stage for stage in state.stages if stage.arm != "base"]
    assert start("init", "init") == ("model@0", "start_model")
    state.stage("rl_late").start = "sft@7"
    assert start("rl_late", "rl_late") == ("sft@7", None)


def test_nats_per_token_and_their_error():
    nats, tokens = [3.0, 0.0, 8.0, 1.0], [10, 0, 20, 5]
    made = per_token(nats, tokens)
    assert (made.nats, made.episodes, made.tokens) == (12 / 35, 3, 35)
    rest = np.array([3 - 120 / 35, 8 - 240 / 35, 1 - 60 / 35])
    assert made.se == pytest.approx(rest.std(ddof=1) * math.sqrt(3) / 35)
    assert per_token([2.0], [4]) == KLEstimate(0.5, None, 1, 4)


def test_the_error_is_that_of_many_draws():
    draw = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        tokens = draw.integers(10, 200, 32)
        nats = tokens * draw.gamma(2.0, 0.05, 32) + draw.gamma(1.0, 0.3, 32)
        made = per_token(nats.tolist(), tokens.tolist())
        means.append(made.nats)
        errors.append(made.se)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_records_of_the_split_trained_on_hold_the_divergence(run, chat):
    engine = Comparing(chat)
    records = go(run, engine, temperature=0.7)
    assert all("divergence" not in r for r in records if r["split"] == "rule_ood" or r["arm"] == "base")
    found = {(r["stage"], r["step"]): r["divergence"] for r in records if "divergence" in r}
    assert set(found) == {("init", 2), *((arm, step) for arm in ("sft", "rl", "rl_late") for step in (1, 2))}
    assert found["rl_late", 2]["start"] == "sft@1"
    # Two episodes of two turns; step 1 writes four tokens a turn, step 2 five.
    forward, reverse = found["rl_late", 2]["forward"], found["rl_late", 2]["reverse"]
    assert forward == {"nats": 0.5, "se": 0.0, "episodes": 2, "tokens": 2 * 2 * 4}
    assert reverse == {"nats": 1.0, "se": 0.0, "episodes": 2, "tokens": 2 * 2 * 5}
    # The checkpoint is loaded again after its start has played; each start plays once in a row.
    assert ("rl_late@2", "sft@1", False, 0.7, 2) in engine.asked
    assert all(loaded != other for loaded, other, *_ in engine.asked)
    assert engine.loaded == [
        "base@2", "init@2", "base@2", "init@2", "sft@1", "init@2", "sft@1", "sft@2", "rl@1", "rl@2",
        "rl_late@1", "sft@1", "rl_late@1", "rl_late@2",
    ]  # fmt: skip


def test_turned_off_nothing_is_measured(run, chat):
    engine = Comparing(chat)
    assert all("divergence" not in record for record in go(run, engine, kl_episodes=0))
    assert engine.asked == [] and engine.loaded.count("init@2") == 1


def test_an_engine_that_cannot_compare_says_so_and_measures_nothing(run, chat):
    engine = Plain(chat)
    records = go(run, engine)
    told = [r["divergence"] for r in records if r["split"] == "id" and r["arm"] != "base"]
    assert len(told) == 7
    assert {frozenset(one) for one in told} == {frozenset({"start", "absent"})}
    assert told[0]["absent"] == "engine 'plain' does not give whole distributions"
    assert engine.loaded.count("init@2") == 1


def test_a_start_that_is_gone_is_said(run, chat):
    run[1].stage("rl_late").start = "sft@7"
    records = go(run, Comparing(chat))
    (told, _) = [r["divergence"] for r in records if r["arm"] == "rl_late" and r["split"] == "id"]
    assert told == {"start": "sft@7", "absent": "the weights of the start are no longer there"}


def test_a_killed_evaluation_goes_on_and_measures_nothing_twice(run, chat):
    whole = go((RunLayout(run[0].root), run[1]), Comparing(chat))
    expected = {key_of(r): {**r["divergence"], "wall_s": 0} for r in whole if "divergence" in r}
    run[0].records.unlink()
    killed = Comparing(chat, fails_at=7)  # within the third checkpoint after the init: forward, not reverse
    with pytest.raises(ConnectionError, match="killed"):
        go(run, killed)
    before = [key_of(r) for r in read_jsonl(run[0].records) if "divergence" in r]
    assert len(before) == 3
    again = Comparing(chat)
    records = go(run, again)
    found = {key_of(r): {**r["divergence"], "wall_s": 0} for r in records if "divergence" in r}
    assert found == expected and len(records) == len(whole)
    assert len(again.asked) == 2 * (len(expected) - len(before))
    done = Comparing(chat)
    go(run, done)
    assert done.loaded == done.asked == []


def key_of(record):
    return record["stage"], record["step"], record["split"]


def test_the_start_plays_the_same_instances_as_the_checkpoint(run, chat):
    """The seeds of a response are those of its instance and turn, whoever plays it."""
    asked = []

    class Noting(Comparing):
        async def generate(self, prompt_ids, sampling_params, images=()):
            asked.append((self.loaded[-1], sampling_params["seed"]))
            return await super().generate(prompt_ids, sampling_params, images)

    go(run, Noting(chat))
    measured = {evaluate.turn_seed(2501, "id", index, turn) for index in range(2) for turn in range(2)}
    times = Counter(asked)
    # The init plays them in its own evaluation and as the start; SFT's end in its own only.
    assert {seed for (who, seed), count in times.items() if who == "init@2" and count == 2} == measured
    assert all(times["sft@2", seed] == 1 for seed in measured)
