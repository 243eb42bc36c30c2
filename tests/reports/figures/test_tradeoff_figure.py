"""OOD against ID: every arm at every learning rate, and single seeds where there are several."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.figures.style import look
from sftrl_ext.reports.figures.tradeoff_figure import ood_against_id
from tests.reports.synthetic_run import make_run

THIN = 0.6


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_each_rate_has_a_marker_and_each_of_several_seeds_a_thin_line(tmp_path, seeds):
    rates = (1e-5, 5e-5, 2e-4)
    run_dir = make_run(
        tmp_path, points=2, rates=rates, seeds=seeds, splits=("id", "rule_ood"), training=False
    )
    analysis = analyse(run_dir)
    with look():
        (panel,) = ood_against_id(analysis).axes
    ends = [container.lines[0] for container in panel.containers]
    for arm in ("sft", "rl"):
        colour = analysis.arms.colour(arm)
        assert {line.get_marker() for line in ends if line.get_color() == colour} == {"o", "s", "^"}
        thin = [line for line in panel.lines if line.get_color() == colour and line.get_linewidth() == THIN]
        assert len(thin) == (0 if len(seeds) == 1 else len(rates) * len(seeds))
    for curve in analysis.curves.arms if len(seeds) > 1 else ():
        last = curve.seeds[1][-1].results
        point = [100 * last[split].solved / last[split].episodes for split in ("id", "rule_ood")]
        drawn = [line.get_xydata()[-1].tolist() for line in panel.lines if line.get_linewidth() == THIN]
        assert pytest.approx(point) in drawn
