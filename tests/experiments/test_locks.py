"""A lock is held by one at a time; the next one waits for it, or is told that it cannot have it."""

import threading

import pytest

from sftrl_ext.experiments.locks import held


def test_without_waiting_a_held_lock_is_refused(tmp_path):
    with held(tmp_path / "deep" / "lock"), pytest.raises(BlockingIOError), held(tmp_path / "deep" / "lock"):
        pass
    with held(tmp_path / "deep" / "lock"):
        pass


def test_the_next_one_waits_and_says_so(tmp_path):
    waits, order = threading.Event(), []

    def second():
        with held(tmp_path / "lock", on_wait=waits.set):
            order.append("second")

    with held(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]


def test_a_free_lock_is_had_without_waiting(tmp_path):
    with held(tmp_path / "lock", on_wait=lambda: pytest.fail("it waited")):
        pass


def test_those_who_share_a_lock_hold_it_together(tmp_path):
    path = tmp_path / "lock"
    with held(path, shared=True), held(path, shared=True), pytest.raises(BlockingIOError), held(path):
        pass
    with held(path), pytest.raises(BlockingIOError), held(path, shared=True):
        pass
