"""What a user sees of wrong input: one clear line, exit status 2, and nothing written."""

import importlib.util
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftrl_ext.cli import main


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_unknown_split_rule_and_kind_get_the_nearest_name(capsys, tmp_path):
    out = tmp_path / "x.parquet"
    assert "Did you mean 'rule_ood'" in refused(capsys, "data", "rl", "--split", "rule_od", "--out", out)
    assert "Did you mean 'sft'" in refused(capsys, "data", "stf", "--out", out)
    assert "'black'" in refused(capsys, "data", "rl", "--suits", "blak", "--out", out)
    assert list(tmp_path.iterdir()) == []


def test_unknown_scale_recipe_and_key(capsys, tmp_path):
    assert "Did you mean 'smoke'" in refused(capsys, "plan", "fig6_gp_l", "--scale", "smok")
    assert "Did you mean 'fig6_gp_l'" in refused(capsys, "plan", "fig6_gp")
    assert "'lrr'" in refused(capsys, "run", "fig6_gp_l", "budget.rl.lrr=1", "--run-dir", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_parquet_without_a_column_is_named(capsys, tmp_path):
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    assert main(["data", "sft", "--rows", "3", "--out", str(good)]) == 0
    assert main(["validate", str(good)]) == 0
    pq.write_table(pq.read_table(good).drop_columns(["prompt"]), bad)
    message = refused(capsys, "validate", bad)
    assert "bad.parquet" in message
    assert "'prompt'" in message


def test_answers_that_show_their_working_are_built_and_valid(capsys, tmp_path):
    out = tmp_path / "reasoned.parquet"
    assert main(["data", "reasoned", "--split", "id,all_5", "--rows", "20", "--out", str(out)]) == 0
    assert main(["validate", str(out)]) == 0
    assert "20 dialogues with 20 trained answers" in " ".join(capsys.readouterr().out.split())
    words = ("data", "reasoned", "--task", "virl", "--out", tmp_path / "routes.parquet")
    assert "kind 'reasoned' is not for task 'virl'" in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_is_no_parquet_is_named(capsys, tmp_path):
    bad = tmp_path / "bad.parquet"
    bad.write_text("not parquet")
    assert "bad.parquet" in refused(capsys, "validate", bad)


def test_resuming_where_no_run_is(capsys, tmp_path):
    assert "no run there" in refused(capsys, "resume", tmp_path)


HEAVY = {
    "torch",
    "ray",
    "verl",
    "transformers",
    "matplotlib",
    "numpy",
    "gymnasium",
    "pandas",
    "pyarrow",
    "PIL",
}


@pytest.mark.parametrize("verb", ["--help", "plan fig6_gp_l --scale node", "plan fig6_virl_vl --scale smoke"])
def test_help_and_plans_import_nothing_heavy(verb):
    code = (
        "import sys; from sftrl_ext.cli import main\n"
        f"try: main({verb.split()!r})\n"
        "finally: print('IMPORTED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(done.stdout.rpartition("IMPORTED ")[2].split())
    assert "sftrl_ext.cli" in imported
    assert sorted(HEAVY & imported) == []


def test_a_base_install_asked_to_train_says_what_to_install(capsys, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    message = refused(capsys, "run", "fig6_gp_l", "--scale", "smoke", "--run-dir", tmp_path / "run")
    assert "torch" in message
    assert "[cpu]'`" in message and "[gpu]'`" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_folder_without_a_tokenizer_is_named(capsys, tmp_path):
    pytest.importorskip("verl")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "bare")
    rows = tmp_path / "rows.parquet"
    assert main(["data", "rl", "--eval", "--rows", "2", "--out", str(rows)]) == 0
    message = refused(capsys, "eval", tmp_path / "bare", "--data", rows)
    assert "bare" in message
    assert "tokenizer" in message


def test_rows_of_two_splits_cannot_be_evaluated_as_one(tmp_path):
    pytest.importorskip("verl")
    from sftrl_ext.errors import SftrlError
    from sftrl_ext.experiments.evaluation.targets import load_eval_set

    for split in ("id", "rule_ood"):
        path = str(tmp_path / f"{split}.parquet")
        main(["data", "rl", "--eval", "--split", split, "--rows", "2", "--out", path])
    both = pa.concat_tables([pq.read_table(tmp_path / f"{s}.parquet") for s in ("id", "rule_ood")])
    pq.write_table(both, tmp_path / "both.parquet")
    with pytest.raises(SftrlError, match=r"both\.parquet.*2 data sources"):
        load_eval_set(tmp_path / "both.parquet")


def test_overrides_may_stand_before_or_after_the_options(capsys):
    for words in (["budget.rl.lr=7e-5", "--scale", "smoke"], ["--scale", "smoke", "budget.rl.lr=7e-5"]):
        assert main(["plan", "fig6_gp_l", *words]) == 0
        assert "actor_rollout_ref.actor.optim.lr=7e-05" in capsys.readouterr().out
    assert main(["plan", "fig6_gp_l", "--scale", "smoke", "~arms.sft"]) == 0
    assert "sft-lr" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plan", "fig6_gp_l", "--scale", "smoke", "--sede", "1", "a=b"])
    assert "unrecognized arguments: --sede 1 a=b" in capsys.readouterr().err
