"""Trackers of plug-ins inside verl's own tracking."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from verl.utils import tracking

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.trackers import check_names, require_packages
from sftrl_ext.training.plugin_trackers import PLUGIN_TRACKERS, verl_utils_tracking_tracking
from tests.plugin_state import forgotten_plugins


class Kept:
    def __init__(self, *made):
        self.made, self.logged, self.finished = made, [], 0

    def log(self, data, step):
        self.logged.append((step, data))

    def finish(self):
        self.finished += 1


@pytest.fixture
def kept():
    trackers = []
    with forgotten_plugins(PLUGIN_TRACKERS):
        PLUGIN_TRACKERS.add("plug_kept", lambda *made: trackers.append(Kept(*made)) or trackers[-1])
        yield trackers


def test_it_gets_every_metric_beside_verls_own(kept, capsys):
    module = SimpleNamespace(Tracking=tracking.Tracking)
    for _ in range(2):  # the second time changes nothing
        verl_utils_tracking_tracking(module)
    logger = module.Tracking("sftrl", "rl", ["console", "plug_kept"], {"a": 1})
    logger.log({"loss": 2.0}, step=3)
    logger.finish()
    logger.finish()
    [tracker] = kept
    assert tracker.made == ("sftrl", "rl", {"a": 1}) and tracker.finished == 1
    assert tracker.logged == [(3, {"loss": 2.0})] and "loss" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="nothing_such is not supported"):
        module.Tracking("sftrl", "rl", ["nothing_such"])


def test_a_recipe_may_name_it(kept):
    check_names(["wandb", "plug_kept"])
    require_packages(["plug_kept"])
    with pytest.raises(SftrlError, match="Did you mean 'plug_kept'"):
        check_names(["plug_kpt"])
