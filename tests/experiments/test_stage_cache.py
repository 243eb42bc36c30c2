"""Which stages of two runs are the same, and what taking one over leaves behind."""

import json
import os
import shutil
import threading
import time

import pytest
from PIL import Image
from rich.console import Console

from sftrl_ext.envs.general_points.cards import RANKS, SUITS
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import runner, stage_cache
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe, to_yaml
from sftrl_ext.experiments.stage_cache import code_digest, rows_digest, stage_key
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.files import read_jsonl, write_json, write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState, StageState

SMALL = ["budget.base.rows=64", "budget.dialogues.rows=32", "budget.init.rows=32", "budget.eval.hands=4"]


def made(name, root, *words, scale="smoke"):
    """A run whose data is there: its layout and the key of every stage."""
    recipe = load_recipe(name, scale, [*SMALL, *words])
    layout = RunLayout(root)
    build_data(recipe, layout)
    write_text(layout.recipe, to_yaml(recipe))
    keys = {}
    for stage in make_plan(recipe, root):
        keys[stage.name] = stage_key(recipe, stage, layout, {k: v for k, v in keys.items() if v})
    return recipe, layout, keys


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return made("fig6_gp_l", tmp_path_factory.mktemp("first") / "run")


def test_recipes_of_one_task_share_what_they_have_in_common(first, tmp_path):
    _, _, one = first
    _, _, two = made("beyond_checkpoint_sweep", tmp_path / "two")  # with other splits to be evaluated on
    shared = {name for name in one if one[name] and one[name] == two.get(name)}
    assert shared == {"model", "base", "dialogues", "init", "sft-lr0.0002-s0", "rl-lr0.0002-s0"}
    assert all(two[name] for name in ("rl_early-lr0.0002-s0", "rl_half-lr0.0002-s0", "rl_late-lr0.0002-s0"))
    assert two["rl_half-lr0.0002-s0"] != two["rl_late-lr0.0002-s0"]
    assert two["data"] is two["eval"] is two["report"] is None


def test_the_same_arm_has_one_key_under_any_name(first, tmp_path):
    _, _, one = first
    _, _, two = made("fig10_attempts", tmp_path / "two")
    assert two["attempts_5-lr0.0002-s0"] == one["rl-lr0.0002-s0"]
    assert two["attempts_3-lr0.0002-s0"] != one["rl-lr0.0002-s0"]  # its prompts allow other attempts


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("budget.base.lr=1e-4", {"base", "dialogues", "init", "sft", "rl"}),
        ("budget.init.steps=3", {"init", "sft", "rl"}),
        ("budget.rl.temperature=0.9", {"rl"}),
        ("budget.sft.rows=64", {"sft"}),
        ("task.reward=binary", {"rl"}),
        ("model.layers=3", {"model", "base", "dialogues", "init", "sft", "rl"}),
        ("scale.threads=2", {"base", "dialogues", "init", "sft", "rl"}),
        ("budget.eval.hands=5", set()),
    ],
)
def test_a_key_follows_what_goes_into_a_stage(word, changed, first, tmp_path):
    _, _, one = first
    _, _, two = made("fig6_gp_l", tmp_path / "two", word)
    assert {name.partition("-")[0] for name in one if one[name] != two[name]} == changed


def test_another_seed_is_another_stage(first, tmp_path):
    _, _, one = first
    _, _, two = made("fig6_gp_l", tmp_path / "two", "sweep.seeds=[1]")
    assert one["init"] == two["init"]
    assert one["sft-lr0.0002-s0"] != two["sft-lr0.0002-s1"]


def test_other_code_is_another_stage(first, monkeypatch):
    recipe, layout, one = first
    monkeypatch.setattr(stage_cache, "code_digest", lambda: "other")
    [model, *_] = [s for s in make_plan(recipe, layout.root) if s.name == "model"]
    assert stage_key(recipe, model, layout, {}) != one["model"]


def test_a_plugin_counts_by_its_content(tmp_path):
    rewards = tmp_path / "mine.py"
    keys = []
    for number, text in enumerate(["a = 1\n", "a = 2\n", "a = 1\n"]):
        rewards.write_text(text)
        keys.append(made("fig6_gp_l", tmp_path / str(number), f"plugins=[{rewards}]")[2])
    assert keys[0] == keys[2]
    assert keys[0]["rl-lr0.0002-s0"] != keys[1]["rl-lr0.0002-s0"]


def test_a_deck_of_pictures_counts_by_its_pictures(tmp_path):
    deck = tmp_path / "deck"
    deck.mkdir()
    for suit in SUITS:
        for rank in RANKS:
            Image.new("RGB", (10, 14), (len(rank), ord(suit), ord(rank[0]))).save(deck / f"{rank}{suit}.png")
    words = [f"task.look.deck={deck}"]
    one = made("fig6_gp_vl", tmp_path / "one", *words)[2]
    assert made("fig6_gp_vl", tmp_path / "two", *words)[2] == one
    Image.new("RGB", (10, 14), (0, 0, 0)).save(deck / "KS.png")
    other = made("fig6_gp_vl", tmp_path / "three", *words)[2]
    trained = {name for name in one if one[name] is not None and name != "model"}
    assert trained and all(one[name] != other[name] for name in trained)
    (deck / "KS.png").unlink()
    with pytest.raises(SftrlError, match="no picture of the cards KS; found 51"):
        made("fig6_gp_vl", tmp_path / "four", *words)


def test_a_start_model_counts_by_what_is_in_its_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    words = [f"model.path={folder}", "budget.base=null", "budget.dialogues=null"]
    keys = [made("fig6_gp_l", tmp_path / name, *words)[2] for name in ("one", "two")]
    assert keys[0]["model"] == keys[1]["model"]
    (folder / "model.safetensors").write_bytes(b"22")
    keys.append(made("fig6_gp_l", tmp_path / "three", *words)[2])
    assert keys[2]["model"] != keys[0]["model"] and keys[2]["init"] != keys[0]["init"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_linked_start_model_is_taken_over_as_links(link, tmp_path):
    recipe, donor, _ = made("fig6_gp_l", tmp_path / "donor")
    taker = RunLayout(tmp_path / "taker")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    donor.start_model.mkdir()
    link(weights, donor.start_model / weights.name)
    [stage] = [stage for stage in make_plan(recipe, taker.root) if stage.kind == "model"]
    stage_cache.reuse_stage(stage_cache.CachedStage(donor, StageState("model", "model")), taker, stage)
    assert (taker.start_model / weights.name).stat().st_ino == weights.stat().st_ino


def test_no_key_without_those_of_its_inputs(first):
    recipe, layout, one = first
    [sft] = [s for s in make_plan(recipe, layout.root) if s.arm == "sft"]
    assert stage_key(recipe, sft, layout, {"model": one["model"], "init": one["init"]}) is not None
    assert stage_key(recipe, sft, layout, {"model": one["model"]}) is None


def test_rows_that_name_their_run_are_the_same_in_another(tmp_path):
    words = ["task.routes.home={routes: 6, width: 64}", "task.routes.holdout=0", "task.routes.away=[]"]
    words.append("task.eval_splits=[id]")
    runs = [made("fig6_virl_vl", tmp_path / name, *words)[1] for name in ("one", "another")]
    rows = [layout.rows("init") for layout in runs]
    assert rows[0].read_bytes() != rows[1].read_bytes()
    assert rows_digest(rows[0], runs[0].root) == rows_digest(rows[1], runs[1].root)
    assert rows_digest(rows[0], tmp_path / "elsewhere") != rows_digest(rows[1], tmp_path / "elsewhere")


def test_the_code_has_one_digest_in_a_process():
    assert len(code_digest()) == 64 and code_digest() == code_digest()


class FakeStages:
    """Stands for the processes of a run: notes what would run, and leaves a file for each."""

    def __init__(self, fail=""):
        self.ran, self.fail = [], fail

    def run_stage(self, runner, stage, entry):
        run, layout = runner.state, runner.layout
        self.ran.append(stage.name)
        if self.fail and stage.name.startswith(self.fail):
            raise SftrlError("it failed")
        if stage.kind == "data":
            build_data(runner.recipe, layout)
        elif stage.kind == "model":
            write_json(layout.start_model / "size.json", {"parameters": 7})
        else:
            write_text(layout.stage(stage.name) / "deep" / "work.txt", stage.name)
        if stage.kind == "eval":
            for other in run.stages:
                if other.arm:
                    of = {"stage": other.name, "arm": other.arm, "seed": other.seed, "step": 1, "split": "id"}
                    with layout.records.open("a") if layout.records.exists() else _new(layout.records) as out:
                        out.write(json.dumps({**of, "lr": other.lr, "episodes": 9, "solved": 3}) + "\n")
        entry.status, entry.wall_s, entry.launches = "done", 5.0, 1
        run.save(layout.state)


def _new(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


@pytest.fixture
def stages(monkeypatch):
    fake = FakeStages()
    monkeypatch.setattr(runner.Runner, "_run_stage", lambda *args: fake.run_stage(*args))
    return fake


def run(name, folder, *words, share=None):
    recipe = load_recipe(name, "smoke", [*SMALL, *words])
    runner.start_run(recipe, folder, Console(quiet=True), share)
    return RunState.load(folder / "state.json")


def test_a_run_takes_over_what_is_done_and_says_from_where(stages, tmp_path):
    run("fig6_gp_l", tmp_path / "a")
    before = list(stages.ran)
    state = run("fig10_attempts", tmp_path / "b", share=tmp_path)
    fresh = stages.ran[len(before) :]
    assert fresh == ["data", *(f"attempts_{n}-lr0.0002-s0" for n in (1, 3, 10)), "eval", "report"]
    five = state.stage("attempts_5-lr0.0002-s0")
    assert (five.status, five.shared_from, five.wall_s, five.launches) == ("done", "a", 5.0, 0)
    assert state.model.parameters == 7
    taken = RunLayout(tmp_path / "b").stage(five.name) / "deep" / "work.txt"
    assert taken.read_text() == "rl-lr0.0002-s0"
    assert os.stat(taken).st_nlink == 2  # no second copy on the disk
    shutil.rmtree(tmp_path / "a")
    assert taken.read_text() == "rl-lr0.0002-s0"


def test_a_stage_that_another_run_is_at_is_waited_for(stages, tmp_path):
    """Two runs of one recipe at once: every stage that they share is run once."""
    told = Console(record=True, width=200)

    def other():
        recipe = load_recipe("fig6_gp_l", "smoke", SMALL)
        runner.start_run(recipe, tmp_path / "b", told, tmp_path)

    first_of_all = threading.Event()

    def slow(self, stage, entry):
        if stage.kind == "model" and self.layout.root.name == "a":
            first_of_all.set()
            deadline = time.monotonic() + 60
            while "waits for" not in told.export_text(clear=False) and time.monotonic() < deadline:
                time.sleep(0.05)
        stages.run_stage(self, stage, entry)

    runner.Runner._run_stage = slow  # put back by the fixture
    thread = threading.Thread(target=lambda: (first_of_all.wait(60), other()))
    thread.start()
    run("fig6_gp_l", tmp_path / "a", share=tmp_path)
    thread.join(120)
    assert "waits for put the start model into the run folder" in told.export_text()
    trained = [name for name in stages.ran if name not in ("data", "eval", "report")]
    assert len(trained) == len(set(trained)) == 6


def test_twins_in_one_run_are_run_once(stages, tmp_path):
    """Of four steps of SFT two are saved, so 20 % and 60 % of the way are one checkpoint."""
    state = run("beyond_checkpoint_sweep", tmp_path / "b", share=tmp_path)
    assert state.stage("rl_half-lr0.0002-s0").shared_from == "b"
    assert state.stage("rl_early-lr0.0002-s0").shared_from is None


def test_results_of_shared_checkpoints_come_along_under_their_new_name(stages, tmp_path):
    run("fig6_gp_l", tmp_path / "a")
    run("fig10_attempts", tmp_path / "b", share=tmp_path)
    lines = list(read_jsonl(RunLayout(tmp_path / "b").records))
    taken = [line for line in lines if line["stage"] == "attempts_5-lr0.0002-s0"]
    expected = {
        "stage": "attempts_5-lr0.0002-s0", "arm": "attempts_5", "seed": 0, "step": 1, "split": "id",
        "lr": 0.0002, "episodes": 9, "solved": 3,
    }  # fmt: skip
    assert taken[0].items() >= expected.items()


def test_results_of_another_evaluation_do_not_come_along(stages, tmp_path):
    run("fig6_gp_l", tmp_path / "a")
    recipe = load_recipe("fig10_attempts", "smoke", [*SMALL, "budget.eval.temperature=0.5"])
    runner.start_run(recipe, tmp_path / "b", Console(quiet=True), tmp_path)
    state = RunState.load(tmp_path / "b" / "state.json")
    shutil.rmtree(tmp_path / "b" / "eval")
    assert state.stage("attempts_5-lr0.0002-s0").shared_from == "a"
    assert stage_cache.reuse_records(recipe, state, RunLayout(tmp_path / "b"), tmp_path) == 0


def test_without_being_asked_nothing_is_taken_over(stages, tmp_path):
    run("fig6_gp_l", tmp_path / "a")
    state = run("fig6_gp_l", tmp_path / "b")
    assert all(stage.shared_from is None for stage in state.stages)
    assert len(stages.ran) == 2 * len(state.stages)


def test_an_unfinished_or_unreadable_run_has_nothing_to_share(stages, tmp_path):
    state = run("fig6_gp_l", tmp_path / "a")
    for stage in state.stages:
        stage.status = "running"
    state.save(tmp_path / "a" / "state.json")
    write_text(tmp_path / "old" / "state.json", "{}")
    state = run("fig6_gp_l", tmp_path / "b", share=tmp_path)
    assert all(stage.shared_from is None for stage in state.stages)


def test_a_stage_that_goes_on_with_other_code_is_no_others_like(first, tmp_path, monkeypatch):
    recipe, layout, one = first
    plan = {stage.name: stage for stage in make_plan(recipe, layout.root)}
    state = RunState("fig6_gp_l", "smoke", stages=[StageState("model", "model", launches=1, key="old")])
    state.save(layout.state)
    run = runner.Runner(recipe, layout, Console(quiet=True))
    entry = run.state.stage("model")
    run._note_key(plan["model"], entry)
    assert entry.key is None
    entry.launches = 0
    run._note_key(plan["model"], entry)
    assert entry.key == one["model"]
