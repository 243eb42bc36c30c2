"""Rows sampled from the start of an arm: own correct answers, learnable prompts, compute of their arm."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from data_prep.general_points import sft_rows
from data_prep.sources import Source
from data_prep.validate import validate_file
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.arms import arm_runs
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.runner import Runner
from sftrl_ext.experiments.stage_order import dependents
from sftrl_ext.experiments.stages import sampled_rows
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.experiments.stages.sampled_rows import sample_rows
from sftrl_ext.experiments.start_models.tiny_model import build_tiny_llama
from sftrl_ext.files import write_text
from sftrl_ext.rollout.player import Generation
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import ModelState, RunState
from sftrl_ext.runs.token_files import read_token_counts
from tests.rows import bare

NAME, STAGE = "answers-sft_own-s0", "sft_own-lr0.0002-s0"
SMALL = ["budget.base.rows=64", "budget.dialogues.rows=32", "budget.init.rows=32", "budget.eval.hands=4"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run whose data are built and whose init has random weights."""
    layout = RunLayout(tmp_path_factory.mktemp("own") / "run")
    recipe = load_recipe("beyond_on_policy", "smoke", [*SMALL, "arms.sft_own.budget={rows: 200}"])
    build_data(recipe, layout)
    texts = [m["content"] for row in rows_of(layout, "base") for m in row["messages"]]
    build_tiny_llama(
        layout.checkpoints("init") / "global_step_4/huggingface", texts * 9, recipe.model, seed=1
    )
    return recipe, layout


def rows_of(layout, name):
    return pq.read_table(layout.rows(name)).to_pylist()


def solution(row):
    """The first solution of a row's hand, as an expert of its template writes it."""
    facts = json.loads(row["extra_info"]["facts"])
    settings = PlaySettings(template=facts["template"], max_attempts=facts["max_attempts"])
    seed, index = row["extra_info"]["seed"], row["extra_info"]["index"]
    table = next(sft_rows(Source("id", seed=seed, settings=settings), index + 1, "first"))
    expert = table.slice(index, 1).to_pylist()[0]
    assert expert["extra_info"]["facts"] == row["extra_info"]["facts"]
    return expert["messages"][-1]["content"]


class Scripted:
    """An engine with the tokens of a real model that gives each prompt its answer in a list."""

    name = "scripted"

    def __init__(self, real, answers):
        self.real, self.answers, self.requests = real, answers, []

    def chat_tokens(self):
        return self.real.chat_tokens()

    async def generate(self, prompt_ids, sampling_params, images=()):
        tokenizer = self.real.chat_tokens().tokenizer
        prompt = tokenizer.decode(prompt_ids, skip_special_tokens=True)
        self.requests.append((prompt, sampling_params))
        answer = next(text for opening, text in self.answers if opening in prompt)
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        return Generation([*ids, tokenizer.eos_token_id])


def test_correct_answers_become_rows_and_wrong_ones_do_not(begun, monkeypatch):
    recipe, layout = begun
    recipe.budget.own_answers = "correct"
    prompts = rows_of(layout, "sft_own-s0-prompts")
    right = {number: solution(row) for number, row in enumerate(prompts) if number % 3 == 0}
    answers = [
        (row["prompt"][-1]["content"], right.get(number, "no idea")) for number, row in enumerate(prompts)
    ]
    openings = [opening for opening, _ in answers]
    first = [openings.index(opening) for opening in openings]  # a hand can be drawn twice
    engines, real = [], sampled_rows.open_engine

    def scripted(*args, **options):
        engines.append(Scripted(real(*args, **options), answers))
        return engines[-1]

    monkeypatch.setattr(sampled_rows, "open_engine", scripted)
    sample_rows(recipe, layout, NAME)
    made = rows_of(layout, "sft_own-s0")
    kept = [number for number in range(len(prompts)) if first[number] in right]
    assert 0 < len(kept) < len(prompts) and len(made) == 90
    for number, row in enumerate(made):
        source = prompts[kept[number % len(kept)]]
        assert row["prompt"] == source["prompt"] and row["extra_info"] == source["extra_info"]
        assert bare(row["messages"][:-1]) == source["prompt"] and row["train_turns"] == [
            len(source["prompt"])
        ]
        episode = make_episode(json.loads(row["extra_info"]["facts"]))
        assert episode.submit(row["messages"][-1]["content"]).attempt.verdict.correct
    assert "90" in str(validate_file(layout.rows("sft_own-s0")))
    # One answer to each prompt, with a seed of its own, at the temperature of RL.
    requests = engines[0].requests
    assert len(requests) == len(prompts)
    assert {sampling["temperature"] for _, sampling in requests} == {recipe.budget.rl.temperature}
    assert len({sampling["seed"] for _, sampling in requests}) == len(prompts)


def test_a_model_that_solves_nothing_gives_no_rows(begun):
    recipe, layout = begun
    recipe.budget.own_answers = "correct"
    layout.rows("sft_own-s0").unlink(missing_ok=True)
    with pytest.raises(SftrlError, match=r"of 90 answers of .* none is correct.*arms\.sft_own"):
        sample_rows(recipe, layout, NAME)
    assert not layout.rows("sft_own-s0").exists()


def test_sampling_is_compute_of_the_arm(begun):
    recipe, layout = begun
    recipe.budget.own_answers = "all"
    sample_rows(recipe, layout, NAME)
    made, prompts = rows_of(layout, "sft_own-s0"), rows_of(layout, "sft_own-s0-prompts")
    assert [row["prompt"] for row in made] == [row["prompt"] for row in prompts]
    sampled = read_token_counts(layout.tokens(NAME))[0]
    assert sampled.generated >= 90 and sampled.prefill > 90 * 5 and sampled.trained == 0
    stage = next(stage for stage in make_plan(recipe, layout.root) if stage.name == STAGE)
    assert stage.sampled_by == NAME
    checkpoint = layout.checkpoints(STAGE) / "global_step_2/huggingface"
    shutil.copytree(layout.checkpoints("init") / "global_step_4/huggingface", checkpoint)
    (layout.checkpoints(STAGE) / LATEST).write_text("2")
    lines = [{"step": step, "data": {"train/global_tokens": 100}} for step in (1, 2)]
    write_text(layout.metrics(STAGE), "".join(json.dumps(line) + "\n" for line in lines))
    finish(layout, recipe, stage)
    count = read_token_counts(layout.tokens(STAGE))[2]
    assert (count.trained, count.generated, count.prefill) == (200, sampled.generated, sampled.prefill)


def finish(layout, recipe, stage):
    """Finish a stage as the runner does."""
    state = RunState("beyond_on_policy", "smoke")
    state.model = ModelState("tiny", 1000, 900)
    state.save(layout.state)
    runner = Runner(recipe, layout, Console(quiet=True))
    launched = layout.stage(STAGE) / "metrics-1.jsonl"
    launched.write_text(layout.metrics(STAGE).read_text())
    runner._finish(stage, runner.state.stage(STAGE))


LEARNABLE = "answers-rl-s0"


@pytest.fixture(scope="module")
def learning(begun, tmp_path_factory):
    """A run whose RL arm trains, with one attempt, on the learnable ones of 30 prompts."""
    _, first = begun
    layout = RunLayout(tmp_path_factory.mktemp("learnable") / "run")
    words = [*SMALL, "arms.rl={kind: rl, rows: learnable, max_attempts: 1}"]
    words += ["budget.rl.tried_prompts=30", "budget.rl.rows=64", "budget.own_answers=correct"]
    recipe = load_recipe("fig6_gp_l", "smoke", words)
    build_data(recipe, layout)
    model = "global_step_4/huggingface"
    shutil.copytree(first.checkpoints("init") / model, layout.checkpoints("init") / model)
    return recipe, layout


class Wavering(Scripted):
    """Fails at some prompts in every second episode."""

    def __init__(self, real, answers, sometimes):
        super().__init__(real, answers)
        self.episodes = dict.fromkeys(sometimes, 0)

    async def generate(self, prompt_ids, sampling_params, images=()):
        done = await super().generate(prompt_ids, sampling_params, images)
        opening = next((opening for opening in self.episodes if opening in self.requests[-1][0]), None)
        if opening is not None:
            self.episodes[opening] += 1
            if self.episodes[opening] % 2:
                return Generation(done.token_ids[-1:])  # it says nothing
        return done


def test_prompts_that_are_solved_sometimes_are_kept(learning, monkeypatch, capsys):
    recipe, layout = learning
    prompts = rows_of(layout, "rl-s0-prompts")
    openings = [row["prompt"][-1]["content"] for row in prompts]
    first = [openings.index(opening) for opening in openings]  # a hand can be drawn twice
    answers = [(openings[number], solution(prompts[number]) if number % 3 else "no idea") for number in first]
    kept = [number for number in range(30) if first[number] % 3 == 2]
    never = [number for number in range(30) if first[number] % 3 == 0]
    engines, real = [], sampled_rows.open_engine

    def scripted(*args, **options):
        engines.append(Wavering(real(*args, **options), answers, {openings[number] for number in kept}))
        return engines[-1]

    monkeypatch.setattr(sampled_rows, "open_engine", scripted)
    sample_rows(recipe, layout, LEARNABLE)
    made = rows_of(layout, "rl-s0")
    assert len(made) == 64 and made == [prompts[kept[number % len(kept)]] for number in range(64)]
    printed = capsys.readouterr().out
    always = 30 - len(kept) - len(never)
    assert (
        f"{len(kept)} of 30 prompts are solved sometimes in 4 episodes; {len(never)} never, {always} always"
        in printed
    )
    requests = engines[0].requests
    assert len(requests) == 4 * 30 and len({sampling["seed"] for _, sampling in requests}) == 4 * 30
    assert {sampling["temperature"] for _, sampling in requests} == {recipe.budget.rl.temperature}
    assert "64" in str(validate_file(layout.rows("rl-s0")))


def test_a_start_that_solves_nothing_has_no_learnable_prompts(learning):
    recipe, layout = learning
    layout.rows("rl-s0").unlink(missing_ok=True)
    with pytest.raises(SftrlError, match=r"of 30 prompts .* solves 30 never and 0 always.*tried_prompts"):
        sample_rows(recipe, layout, LEARNABLE)
    assert not layout.rows("rl-s0").exists()


def test_choosing_prompts_is_compute_of_the_arm(learning, monkeypatch):
    recipe, layout = learning
    monkeypatch.setattr(recipe.budget, "own_answers", "all")
    sample_rows(recipe, layout, LEARNABLE)
    made, tried = rows_of(layout, "rl-s0"), rows_of(layout, "rl-s0-prompts")
    assert made == [tried[number % 30] for number in range(64)]
    sampled = read_token_counts(layout.tokens(LEARNABLE))[0]
    assert sampled.generated >= 4 * 30 and sampled.prefill > 4 * 30 * 5 and sampled.trained == 0
    names = [stage.name for stage in make_plan(recipe, layout.root)]
    arm = next(stage for stage in make_plan(recipe, layout.root) if stage.kind == "rl")
    assert arm.sampled_by == LEARNABLE and names.index(LEARNABLE) == names.index(arm.name) - 1


def test_the_stage_stands_before_its_arm_and_arms_of_one_start_share_it(tmp_path):
    words = ["arms.again={kind: sft, rows: own, start: sft_own@last}", "arms.twin={kind: sft, rows: own}"]
    recipe = load_recipe("beyond_on_policy", "laptop", [*words, "arms.twin.times={rows: 0.45}"])
    names = [stage.name for stage in make_plan(recipe, tmp_path)]
    assert names.index(NAME) == names.index(STAGE) - 1
    assert names.count(NAME) == 1 and "answers-twin-s0" not in names
    assert names.index("answers-again-s0") == names.index("again-lr0.0002-s0") - 1 > names.index(STAGE)
    rows = {run.arm: run.rows for run in arm_runs(recipe)}
    assert rows["twin"] == rows["sft_own"] != rows["again"]


def test_arms_choose_solutions_and_replay(tmp_path):
    words = [*SMALL, "arms.mixed={kind: sft, replay: 0.25}", "task.pretrain_splits=[rule_ood]"]
    recipe = load_recipe("beyond_on_policy", "smoke", words)
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    first, last = rows_of(layout, "sft-s0"), rows_of(layout, "sft_last-s0")
    assert [row["prompt"] for row in first] == [row["prompt"] for row in last]
    changed = sum(a["messages"][-1] != b["messages"][-1] for a, b in zip(first, last, strict=True))
    assert changed > len(first) / 2
    splits = [row["extra_info"]["split"] for row in rows_of(layout, "mixed-s0")]
    assert splits.count("rule_ood") == round(0.25 * len(splits)) and "id" in splits


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("fig6_virl_l", ["++arms.sft.rows=own"], r"arms\.sft\.rows: 'own' is not for task kind 'virl'"),
        ("fig6_gp_l", ["++arms.sft.solutions=frist"], r"arms\.sft\.solutions.*Did you mean 'first'"),
        ("fig6_gp_l", ["++arms.rl.rows=own"], r"arms\.rl\.rows: unknown rows of RL 'own'"),
        ("fig6_gp_l", ["++arms.sft.rows=learnable"], r"arms\.sft\.rows: unknown rows of SFT 'learnable'"),
        ("fig6_gp_l", ["budget.rl.prompt_samples=1"], r"budget\.rl\.prompt_samples: 1; expected 2 or more"),
        ("fig6_gp_l", ["++arms.rl.replay=0.1"], r"arms\.rl\.replay: has no effect"),
        ("fig6_virl_l", ["++arms.sft.solutions=first"], r"arms\.sft\.solutions: has no effect"),
        ("fig6_gp_l", ["++arms.sft.replay=1.5"], r"replay.*1\.5"),
        ("fig6_gp_l", ["++arms.sft.replay=0.1", "scale=gpu"], r"arms\.sft\.replay.*no pre-training"),
        ("fig6_gp_l", ["budget.own_answers=wrong"], r"budget\.own_answers: unknown choice of answers"),
    ],
)
def test_what_cannot_be_sampled_is_refused(recipe, words, message):
    scale = "gpu" if "scale=gpu" in words else "smoke"
    with pytest.raises(SftrlError, match=message):
        load_recipe(recipe, scale, [word for word in words if word != "scale=gpu"])


def test_changing_the_start_does_sampling_and_its_arm_again(tmp_path):
    recipe, layout = load_recipe("beyond_on_policy", "smoke"), RunLayout(tmp_path)
    again = dependents(recipe, layout, "init")
    assert {NAME, STAGE, "rl-lr0.0002-s0", "eval"} <= again and "base" not in again
    assert dependents(recipe, layout, NAME) == {NAME, STAGE, "eval", "report"}
