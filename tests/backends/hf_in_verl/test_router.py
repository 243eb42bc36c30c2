"""Episodes stay on their server, new ones go to the idlest, and the actor's process stays small."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sftrl_ext.backends.hf_in_verl.router import StickyRouter


def test_new_episodes_spread_and_old_ones_return():
    router = StickyRouter({"a": 1, "b": 2})
    homes = {episode: router.acquire_server(episode)[0] for episode in "wxyz"}
    assert sorted(homes.values()) == ["a", "a", "b", "b"]
    assert router.acquire_server("w") == (homes["w"], {"a": 1, "b": 2}[homes["w"]])
    assert (router.get_inflight_count(homes["w"]), router.get_total_inflight()) == (3, 5)
    router.release_server(homes["w"], request_id="w")
    assert router.get_total_inflight() == 4 and router.get_status()["active_servers"] == 2


def test_a_removed_server_gets_nothing():
    router = StickyRouter({"a": 1, "b": 2})
    home = router.acquire_server("w")[0]
    router.remove_servers([home])
    (other,) = router.get_all_servers()
    assert router.acquire_server("w")[0] == other
    router.release_server(home)
    router.remove_servers([other])
    with pytest.raises(RuntimeError, match="No available servers"):
        router.acquire_server("w")
    router.add_servers({"c": 3})
    assert router.acquire_server("w") == ("c", 3)


def test_only_the_last_episodes_are_remembered():
    router = StickyRouter({"a": 1}, {"remember": 3})
    for episode in "vwxyz":
        router.acquire_server(episode)
    assert router.clear_sticky_cache()["cleared_entries"] == 3
    assert router.require_acquire_fields() == router.require_release_fields() == []


def test_what_its_actor_and_the_holders_of_a_server_import_is_light():
    code = (
        "import sys, sftrl_ext.backends.hf_in_verl.router, sftrl_ext.backends.hf_in_verl.server\n"
        "heavy = {'torch', 'verl', 'ray', 'transformers', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
