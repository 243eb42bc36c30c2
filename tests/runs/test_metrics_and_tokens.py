import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_jsonl, write_json
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.metrics import Follower, merge_launches
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.token_files import write_tokens


def lines(*steps):
    return "".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in steps)


def test_a_step_run_twice_counts_as_run_last(tmp_path):
    (tmp_path / "metrics-1.jsonl").write_text(lines((1, {"a": 1}), (2, {"a": 2})) + '{"step": 3, "da')
    (tmp_path / "metrics-2.jsonl").write_text(lines((2, {"a": 20}), (2, {"b": 5}), (3, {"a": 30})))
    (tmp_path / "metrics-10.jsonl").write_text(lines((3, {"a": 300})))
    merge_launches(tmp_path)
    merged = {e["step"]: e["data"] for e in read_jsonl(tmp_path / "metrics.jsonl")}
    assert merged == {1: {"a": 1}, 2: {"a": 20, "b": 5}, 3: {"a": 300}}


def test_what_every_rank_logged_becomes_their_mean(tmp_path):
    (tmp_path / "metrics-1.jsonl").write_text(lines((1, {"a": [1.0, 3.0], "b": 7, "c": [], "d": "x"})))
    merge_launches(tmp_path)
    (merged,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert merged["data"] == {"a": 2.0, "b": 7, "c": [], "d": "x"}


def test_the_follower_reads_only_whole_lines(tmp_path):
    path = tmp_path / "m.jsonl"
    follower = Follower(path)
    assert follower.look() == (0, "")
    path.write_text(lines((1, {"train/loss": 0.5})) + '{"step": 2')
    assert follower.look() == (1, "loss 0.5")
    with path.open("a") as file:
        file.write(', "data": {"turns/mean": 2, "episode/solved": 0.714, "other": 1}}\n')
    assert follower.look() == (2, "solved 71 %, turns 2")


def stage(tmp_path, metrics, saved):
    layout = RunLayout(tmp_path)
    for step in saved:
        (layout.checkpoints("x") / f"global_step_{step}").mkdir(parents=True)
    (layout.checkpoints("x") / LATEST).write_text(str(max(saved)))
    layout.metrics("x").write_text(lines(*metrics))
    return layout


def test_tokens_add_up_to_each_saved_step(tmp_path):
    layout = stage(tmp_path, [(s, {"train/global_tokens": 100}) for s in (1, 2, 3, 4)], saved=(2, 4))
    write_tokens(layout, "x", "sft", parameters=10)
    found = list(read_jsonl(layout.tokens("x")))
    assert [(f["step"], f["trained_tokens"], f["generated_tokens"]) for f in found] == [
        (2, 200, 0),
        (4, 400, 0),
    ]
    assert found[1]["flops_paper"] == found[1]["flops_counted"] == 6 * 10 * 400


def test_the_start_model_of_an_anchored_loss_is_counted(tmp_path):
    anchored = {"train/global_tokens": 100, "train/kl_start": 0.01}
    layout = stage(tmp_path, [(1, anchored), (2, anchored)], saved=(2,))
    write_tokens(layout, "x", "sft", parameters=10)
    (found,) = read_jsonl(layout.tokens("x"))
    assert found["forward_tokens"] == 200
    assert found["flops_counted"] == (6 + 2) * 10 * 200
    assert found["flops_paper"] == 6 * 10 * 200


def rl_step(trained=50, **counts):
    named = {"sequence": 25, "generated": 7, "prefill": 18, "forward": 50, "forward_critic": 0}
    named |= {"trained_critic": 0, "trained": trained, **counts}
    return {f"tokens/step_{name}": count for name, count in named.items()}


def test_rl_compute_has_every_pass_in_it(tmp_path):
    step = rl_step(100, trained_critic=100, forward_critic=25)
    layout = stage(tmp_path, [(0, {"val-core/x": 1}), (1, step), (2, step)], saved=(2,))
    write_tokens(layout, "x", "rl", parameters=10, critic_parameters=9)
    (found,) = read_jsonl(layout.tokens("x"))
    assert found["flops_counted"] == 10 * (6 * 200 + 2 * (14 + 36 + 100)) + 9 * (6 * 200 + 2 * 50)
    assert found["flops_paper"] == 10 * (6 * 200 + 2 * 6 * 200)
    assert (found["trained_critic_tokens"], found["sequence_tokens"]) == (200, 50)


def test_without_four_epochs_the_papers_formula_is_left_out(tmp_path):
    layout = stage(tmp_path, [(1, rl_step(50))], saved=(1,))
    write_tokens(layout, "x", "rl", parameters=1)
    (found,) = read_jsonl(layout.tokens("x"))
    assert found["flops_paper"] is None
    assert found["flops_counted"] == 6 * 50 + 2 * (7 + 18 + 50)


def test_a_step_that_did_not_count_a_pass_is_an_error(tmp_path):
    step = {k: v for k, v in rl_step().items() if not k.endswith("_forward")}
    layout = stage(tmp_path, [(1, step)], saved=(1,))
    with pytest.raises(SftrlError, match="step 1 has no 'tokens/step_forward'"):
        write_tokens(layout, "x", "rl", parameters=1)


def test_a_step_saved_but_not_logged_is_counted_by_its_checkpoint(tmp_path):
    """As a run leaves it that was killed between saving a step and logging it, and went on from there."""
    step = rl_step(prefill=3)
    layout = stage(tmp_path, [(1, step), (3, step)], saved=(1, 2, 3, 4))
    for number, trained in ((2, 90), (4, 200)):
        totals = {"trained": trained, "generated": 14, "prefill": 6, "prefill_uncached": 8, "forward": 1}
        totals |= {"trained_critic": 0, "forward_critic": 0, "sequence": 20}
        write_json(layout.checkpoints("x") / f"global_step_{number}" / "sftrl_tokens.json", totals)
    write_tokens(layout, "x", "rl", parameters=1)
    found = {line["step"]: line for line in read_jsonl(layout.tokens("x"))}
    assert [found[s]["trained_tokens"] for s in (1, 2, 3, 4)] == [50, 90, 140, 200]
    assert [found[s]["generated_tokens"] for s in (1, 2, 3, 4)] == [7, 14, 21, 14]
    assert found[3]["prefill_tokens"] == 9
    # Sampling its rows is no step of the trainer, so that its totals do not hold it.
    write_tokens(layout, "x", "rl", parameters=1, sampled=TokenCount(generated=100, prefill=1000))
    sampled = {line["step"]: line for line in read_jsonl(layout.tokens("x"))}
    for number, line in found.items():
        assert sampled[number]["generated_tokens"] == line["generated_tokens"] + 100
        assert sampled[number]["prefill_tokens"] == line["prefill_tokens"] + 1000


def test_a_step_without_counts_is_an_error(tmp_path):
    layout = stage(tmp_path, [(1, {"train/global_tokens": 1})], saved=(2,))
    with pytest.raises(SftrlError, match=r"metrics\.jsonl.*saved step 2"):
        write_tokens(layout, "x", "sft", parameters=1)
