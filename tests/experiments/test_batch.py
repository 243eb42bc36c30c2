"""Several recipes in one command."""

from functools import partial

import pytest
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments import batch
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe, recipe_files, to_yaml
from sftrl_ext.files import read_json, write_text
from sftrl_ext.runs.state import RunState, StageState


def test_all_names_every_recipe_once_and_figures_first():
    names = batch.recipes_named("all")
    assert len(names) == len(set(names)) == len({path.resolve() for path in recipe_files().values()})
    assert names == [path.stem for path in distinct_recipes()]
    assert names[0] == "fig6_gp_l" and names[-1].startswith("beyond_")
    assert batch.recipes_named("fig6_gp_l,fig10_attempts") == ["fig6_gp_l", "fig10_attempts"]


def variations(name, scale, *words):
    load = partial(load_recipe, name, scale)
    return batch.with_variations(name, words, load)


def test_a_recipe_with_values_is_a_run_for_each():
    few, many = variations("beyond_exposure", "smoke"), variations("beyond_exposure", "laptop")
    assert [each.recipe.name for each in few] == ["beyond_exposure-0", "beyond_exposure-0.1"]
    assert [each.recipe.task.exposure["rule_ood"] for each in many] == [0, 0.001, 0.01, 0.1, 0.5]
    for each in few:
        assert (each.name, each.varied) == ("beyond_exposure", "task.exposure.rule_ood")
        again = variations("beyond_exposure", "smoke", *each.overrides)
        assert [one.recipe for one in again] == [each.recipe], "what a launcher passes on is one run"
    key = "budget.sft.lr"
    given = [f"sweep.runs.key={key}", "sweep.runs.values=[1e-4,2e-4]", "budget.sft.steps=3"]
    found = variations("fig6_gp_l", "smoke", *given)
    assert [(each.recipe.budget.sft.lr, each.recipe.budget.sft.steps) for each in found] == [
        (1e-4, 3),
        (2e-4, 3),
    ]


def test_the_key_itself_asks_for_one_run():
    (only,) = variations("beyond_exposure", "smoke", "task.exposure.rule_ood=0.3")
    assert (only.recipe.name, only.varied) == ("beyond_exposure", None)
    (only,) = variations("beyond_exposure", "gpu")
    assert only.recipe.name == "beyond_exposure", "nothing is pre-trained there"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.runs.values=[1,2]"], "sweep.runs.key: null"),
        (
            ["sweep.runs.key=task.target", "sweep.runs.values=[24,24]"],
            "names the run 'fig6_gp_l-24' a second",
        ),
        (["sweep.runs.key=task.tarGet", "sweep.runs.values=[24]"], "tarGet.*target"),
    ],
)
def test_values_that_make_no_runs_are_refused(words, message):
    with pytest.raises(SftrlError, match=message):
        variations("fig6_gp_l", "smoke", *words)


def test_one_failure_does_not_keep_the_others_from_running(tmp_path, monkeypatch):
    ran = []

    def start(recipe, run_dir, console, share):
        ran.append((recipe.name, run_dir, share))
        stages = [
            StageState("base", "sft", status="done", wall_s=30.0, shared_from="fig6_gp_l-smoke"),
            StageState("sft", "sft", status="done", wall_s=12.0),
            StageState("eval", "eval", status="failed", wall_s=5.0),
        ]
        if recipe.name != "fig10_attempts":
            RunState(recipe.name, "smoke", stages=stages).save(run_dir / "state.json")
        if recipe.name == "fig10_attempts":
            raise SftrlError("[out] of memory")

    monkeypatch.setattr(batch, "start_or_resume", start)
    recipes = [load_recipe(name, "smoke") for name in ("fig6_gp_l", "fig10_attempts", "fig17_rl_rates")]
    console = Console(record=True, width=120)
    with pytest.raises(SftrlError, match="1 of 3 recipes failed: fig10_attempts"):
        batch.run_many(recipes, tmp_path, console)
    assert ran == [(recipe.name, tmp_path / f"{recipe.name}-smoke", tmp_path) for recipe in recipes]
    told = read_json(tmp_path / "recipes.json")
    assert {name: one["done"] for name, one in told["recipes"].items()} == {
        "fig6_gp_l": True, "fig10_attempts": False, "fig17_rl_rates": True,
    }  # fmt: skip
    assert (told["scale"], told["wall_s"]) == ("smoke", 24.0)
    assert told["recipes"]["fig17_rl_rates"] == {"done": True, "stages": 2, "shared": 1, "wall_s": 12.0}
    said = console.export_text()
    assert "[out] of memory" in said and "3 of 3: fig17_rl_rates" in said


def finished(recipe, run_dir):
    """The folder of a run that has nothing left to do."""
    stages = [
        StageState(s.name, s.kind, s.arm, s.seed, s.lr, s.start, status="done", wall_s=1.0)
        for s in make_plan(recipe, run_dir)
    ]
    RunState(recipe.name, "smoke", stages=stages).save(run_dir / "state.json")


def test_side_by_side_each_is_a_process_and_a_failure_stays_its_own(tmp_path):
    pytest.importorskip("verl")
    names = ("fig6_gp_l", "fig10_attempts", "fig17_rl_rates")
    recipes = [load_recipe(name, "smoke") for name in names]
    for recipe in recipes:
        run_dir = tmp_path / f"{recipe.name}-smoke"
        finished(recipe, run_dir)
        write_text(run_dir / "recipe.yaml", to_yaml(recipe))
    other = load_recipe("fig10_attempts", "smoke", ["budget.rl.lr=1"])
    write_text(tmp_path / "fig10_attempts-smoke" / "recipe.yaml", to_yaml(other))
    console = Console(record=True, width=200)
    with pytest.raises(SftrlError, match="1 of 3 recipes failed: fig10_attempts"):
        batch.run_many(recipes, tmp_path, console, jobs=2)
    told = read_json(tmp_path / "recipes.json")
    assert {name: one["done"] for name, one in told["recipes"].items()} == {
        "fig6_gp_l": True, "fig10_attempts": False, "fig17_rl_rates": True,
    }  # fmt: skip
    assert told["jobs"] == 2 and told["elapsed_s"] > 0
    assert "fig10_attempts: " in console.export_text(clear=False)
    assert "a run of another recipe is there" in console.export_text()


def test_the_plan_of_several_has_a_folder_for_each(tmp_path, capsys):
    assert main(["plan", "fig6_gp_l,fig10_attempts", "--scale", "smoke", "--run-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}/fig6_gp_l-smoke/" in said and f"{tmp_path}/fig10_attempts-smoke/" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "fig6_gp_l,fig10_attempts", "--share", "x"], "share stages anyway"),
        (["plan", "fig6_gp_l", "--launcher", "slurm", "--share", "x"], "with launcher 'slurm'"),
        (["plan", "fig6_gp_l,fig99"], "fig99"),
    ],
)
def test_what_makes_no_sense_is_said(words, said, capsys):
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_says_that_the_command_goes_on(tmp_path, monkeypatch, jobs):
    def interrupted(*_):
        raise KeyboardInterrupt("of one run")

    monkeypatch.setattr(batch, "_one", interrupted)
    monkeypatch.setattr(batch, "_side_by_side", interrupted)
    with pytest.raises(KeyboardInterrupt, match="The same command goes on"):
        batch.run_many([load_recipe("fig6_gp_l", "smoke")], tmp_path, Console(quiet=True), jobs)
