from sftrl_ext.runs.checkpoints import LATEST, latest_step, list_checkpoints


def test_only_whole_checkpoints_are_listed_in_order(tmp_path):
    for step in (2, 10, 12):
        (tmp_path / f"global_step_{step}" / "huggingface").mkdir(parents=True)
    assert list_checkpoints(tmp_path) == []
    (tmp_path / LATEST).write_text("10")
    found = list_checkpoints(tmp_path)
    assert [c.step for c in found] == [2, 10]
    assert found[0].folder == tmp_path / "global_step_2" / "huggingface"


def test_an_rl_checkpoint_is_its_actor(tmp_path):
    (tmp_path / "global_step_3" / "actor").mkdir(parents=True)
    (tmp_path / LATEST).write_text("3")
    assert list_checkpoints(tmp_path)[0].folder == tmp_path / "global_step_3" / "actor" / "huggingface"


def test_a_torn_tracker_counts_as_none(tmp_path):
    (tmp_path / LATEST).write_text("")
    assert latest_step(tmp_path) == 0
