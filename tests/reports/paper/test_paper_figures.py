"""The paper's figures in its form, from synthetic results of the shipped recipes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.curves import mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.figures.run_figures import draw_figures
from sftrl_ext.reports.figures.style import look
from sftrl_ext.reports.paper.figures import PAPER_FIGURES, figures_of_recipe, paper_figure, write_paper_figure
from sftrl_ext.reports.paper.panels import BOUND_COLOUR, FAINTEST
from sftrl_ext.reports.paper.runs import GigaScale, load_analysis, on_common_axis
from sftrl_ext.reports.results_file import write_results
from sftrl_ext.runs.stats import binomial_se
from tests.reports.paper.paper_runs import STORIES, paper_run

TASKS = ("fig6_gp_l", "fig6_virl_l", "fig6_gp_vl", "fig6_virl_vl")
POINTS = 10
"""Enough for the smoothing."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = paper_run(folder / name, name, points=POINTS)
        return made[name]

    return run


@pytest.fixture(scope="module")
def draw(runs):
    def drawn(figure: str, *names: str, axis: str | None = None) -> Figure:
        with look():
            made = paper_figure(figure).draw(on_common_axis([analyse(runs(name)) for name in names], axis))
            assert made is not None
            made.draw_without_rendering()
        return made

    return drawn


def curves(panel):
    """The lines of a panel: those of curves have a point per checkpoint."""
    return [line for line in panel.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]


def points(panel):
    """The points of a panel with error bars, as (x, y, half length of the bar)."""
    found = []
    for container in panel.containers:
        if not hasattr(container, "has_yerr"):
            continue
        data, _, bars = container.lines
        for (x, y), segment in zip(data.get_xydata(), bars[0].get_segments(), strict=True):
            found.append((x, y, (segment[1][1] - segment[0][1]) / 2))
    return found


def bars(panel):
    return [container for container in panel.containers if not hasattr(container, "has_yerr")]


def levels(panel, colour):
    """Heights of horizontal lines of a colour."""
    return [line.get_ydata()[0] for line in panel.lines if to_hex(line.get_color()).upper() == colour]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figure_5_has_a_column_per_task_and_a_row_per_distribution(draw):
    figure = draw("fig5", *TASKS)
    assert len(figure.axes) == 8
    assert [panel.get_title(loc="left") for panel in figure.axes[:4]] == [
        "GP-L\nsuccess",
        "V-IRL-L\nper-step accuracy",
        "GP-VL\nsuccess",
        "V-IRL-VL\nper-step accuracy",
    ]
    for panel in figure.axes:
        smooth = curves(panel)
        assert [to_hex(line.get_color()) for line in smooth] == ["#d55e00", "#0072b2"]
        assert {len(line.get_xdata()) for line in smooth} == {POINTS + 1}  # the start is the first point
        assert len(points(panel)) == 2 * (POINTS + 1) + 1
    assert all("GFLOPs" in panel.get_xlabel() for panel in figure.axes[4:])
    assert legend(figure)[:3] == ["SFT", "RL", "Init"] and "Savitzky-Golay, order 3" in legend(figure)[3]


def test_axes_are_in_gflops_and_bars_are_binomial_errors(draw, runs):
    found = analyse(runs("fig6_gp_l"))
    (panel, *_) = draw("fig5", "fig6_gp_l").axes
    record = next(r for r in found.run.records if r.arm == "sft" and r.split == "id")
    curve = next(c for c in found.curves.arms if c.arm == "sft")
    cost = next(g[0].cost.counted for g in curve.steps() if g[0].step == record.step)
    expected = (cost / 1e18, 100 * record.solved / record.episodes)
    error = 100 * binomial_se(record.solved, record.episodes)
    assert any(
        (x, y) == pytest.approx(expected) and half == pytest.approx(error) for x, y, half in points(panel)
    )
    assert GigaScale.of(17.4e18, "counted").unit == "$10^{9}$ GFLOPs"
    assert GigaScale.of(9e11, "counted") == GigaScale(1e9, "GFLOPs", 0)


def test_figure_6_has_three_bars_per_task_and_the_papers_numbers(draw, runs):
    figure = draw("fig6", *TASKS)
    assert len(figure.axes) == 4
    paper = {"fig6_gp_l": (3.4, 11.5, 15.0), "fig6_gp_vl": (5.6, 11.2, 14.2)}
    for panel, name in zip(figure.axes, TASKS, strict=True):
        labels = [tick.get_text() for tick in panel.get_yticklabels()]
        assert labels == (["SFT", "Init", "RL"] if panel is figure.axes[0] else [])
        found = analyse(runs(name))
        chosen = [
            found.equal.chosen[found.picked["sft"].key],
            found.curves.start,
            found.equal.chosen[found.picked["rl"].key],
        ]
        lengths = [100 * mean_over_seeds(group, "rule_ood").p for group in chosen]
        assert [bar[0].get_width() for bar in bars(panel)] == pytest.approx(lengths)
        assert [container.has_xerr for container in panel.containers if container not in bars(panel)] == [
            True
        ] * 3
        change = f"({lengths[2] - lengths[1]:+.1f})"
        assert f"{lengths[2]:.1f}\n{change}" in [text.get_text() for text in panel.texts]
        if name in paper:
            lines = [line for line in panel.lines if to_hex(line.get_color()) == "#000000"]
            assert tuple(line.get_xdata()[0] for line in lines) == paper[name]
        assert "GFLOPs" in panel.get_xlabel()


def test_figure_7_has_curves_bars_and_the_previous_best(draw):
    figure = draw("fig7", "fig6_gp_vl", "fig6_virl_vl")
    cards, card_bars, routes, route_bars = figure.axes
    assert cards.get_title(loc="left") == "GP-VL: success"
    assert routes.get_title(loc="left") == "V-IRL-VL: overall success"
    assert [len(curves(panel)) for panel in (cards, routes)] == [2, 2]
    assert [len(bars(panel)) for panel in (card_bars, route_bars)] == [3, 3]
    assert levels(card_bars, "#000000") == [13.7, 23.6, 41.2]
    best = "#E69F00"
    assert [levels(panel, best) for panel in figure.axes] == [[], [], [44.0], [44.0]]
    assert "previous best, 44.0 %" in legend(figure)


def test_figure_8_joins_the_two_distributions_of_a_checkpoint(draw, runs):
    figure = draw("fig8", "fig6_gp_vl")
    rule, visual, bar = figure.axes
    assert "other rule" in rule.get_title(loc="left") and "red suits" in visual.get_title(loc="left")
    assert rule.get_xlabel().startswith("Success") and rule.get_ylabel().startswith("Recognition")
    assert "GFLOPs" in bar.get_ylabel()
    found = analyse(runs("fig6_gp_vl"))
    for panel, split in ((rule, "rule_ood"), (visual, "visual_ood")):
        joins = [line for line in panel.lines if len(line.get_xdata()) == 2]
        assert len(joins) == 2 * POINTS + 1
        stars, circles = (
            [line for line in panel.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
            for marker in "*o"
        )
        assert len(stars) == len(circles) == 2 * POINTS + 1
        for line in (*stars, *circles):
            assert panel.viewLim.contains(*line.get_xydata()[0])
        curve = found.picked["rl"]
        last = curve.steps()[-1]
        ends = [
            (100 * mean_over_seeds(last, s).p, 100 * mean_over_seeds(last, s, "recognition").p)
            for s in ("id", split)
        ]
        assert any(line.get_xydata().tolist() == [pytest.approx(end) for end in ends] for line in joins)
        blue = [line.get_alpha() for line in stars if to_hex(line.get_color()) == "#0072b2"]
        assert blue == sorted(blue) and FAINTEST < blue[0] < 0.5 and blue[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("figure", "name", "rates", "bound"),
    [
        ("fig9", "fig9_rl_without_init", ["5e-7", "1e-6", "2e-6"], 0.4),
        ("fig17", "fig17_rl_rates", ["1e-6", "2e-6"], None),
        ("fig19", "fig19_overfit_init", ["1e-7", "2e-7"], 1.5),
    ],
)
def test_figures_9_17_and_19_have_a_curve_per_rate(draw, figure, name, rates, bound):
    drawn = draw(figure, name)
    (panel,) = drawn.axes
    assert len(curves(panel)) == len({line.get_color() for line in curves(panel)}) == len(rates)
    assert legend(drawn)[: len(rates)] == [f"lr {rate}" for rate in rates]
    assert levels(panel, BOUND_COLOUR.upper()) == ([] if bound is None else [bound])


def test_figure_19_begins_at_the_over_fitted_checkpoint(draw, runs):
    figure = draw("fig19", "fig19_overfit_init")
    (panel,) = figure.axes
    found = analyse(runs("fig19_overfit_init"))
    over_fitted = next(c for c in found.curves.arms if c.arm == "sft").steps()[-1]
    start = 100 * mean_over_seeds(over_fitted, "rule_ood").p
    assert all(line.get_xdata()[0] == over_fitted[0].cost.counted / 1e18 for line in curves(panel))
    assert start in [line.get_ydata()[0] for line in panel.lines if len(line.get_xdata()) == 2]
    init = 100 * mean_over_seeds(found.curves.start, "rule_ood").p
    assert f"Over-fitted start (init: {init:.1f} %)" in legend(figure)
    assert panel.get_ylabel().startswith("Per-step accuracy under the other rule")


def test_figure_10_is_growth_against_growth(draw, runs):
    figure = draw("fig10", "fig10_attempts")
    panel, _ = figure.axes
    found = analyse(runs("fig10_attempts"))
    spots = [line for line in panel.lines if line.get_marker() == "o"]
    assert len(spots) == 4 * POINTS
    curve = found.curves.arms[-1]
    last, start = curve.steps()[-1], curve.start
    growth = [100 * (mean_over_seeds(last, s).p - mean_over_seeds(start, s).p) for s in ("rule_ood", "id")]
    assert any(line.get_xydata().tolist() == [pytest.approx(growth)] for line in spots)
    assert sum(line.get_markersize() > 9 for line in spots) == len(panel.containers) == 4
    triangles = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "v"]
    assert triangles == [0.48, 2.15, 2.99, 5.99]
    assert legend(figure)[:4] == ["1 attempt", "3 attempts", "5 attempts", "10 attempts"]
    assert len({to_rgba(line.get_color()) for line in spots}) == 4


def test_figure_15_has_both_distributions_in_one_panel(draw, runs):
    figure = draw("fig15", "fig15_suboptimal_sft")
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["SFT on dialogues", "SFT"]
    assert legend(figure)[:2] == ["In distribution", "Out of distribution: other rule"]
    found = analyse(runs("fig15_suboptimal_sft"))
    for panel, arm in zip(figure.axes, ("sft_suboptimal", "sft"), strict=True):
        assert len(curves(panel)) == 2
        last = found.picked[arm].steps()[-1]
        for split in ("id", "rule_ood"):
            assert any(y == pytest.approx(100 * mean_over_seeds(last, split).p) for _, y, _ in points(panel))
        assert panel.get_ylim() == figure.axes[0].get_ylim()


def test_figure_16_has_5_and_2_and_3_runs(draw):
    figure = draw("fig16", "fig16_sft_ablation")
    assert [len(curves(panel)) for panel in figure.axes] == [5, 2, 3]
    assert [panel.get_title(loc="left").rpartition(": ")[2] for panel in figure.axes] == [
        "5 runs",
        "2 runs",
        "3 runs",
    ]
    assert legend(figure)[:5] == ["lr 1e-7", "lr 5e-7", "lr 1e-6", "lr 1e-5", "lr 1e-4"]
    ends = {tuple(panel.get_ylim()) for panel in figure.axes}
    assert len(ends) == 1
    low, high = ends.pop()
    assert all(low < y < high for panel in figure.axes for _, y, _ in points(panel))
    every, vision, adapter = ([line.get_color() for line in curves(panel)] for panel in figure.axes)
    assert vision == [every[0], every[2]] and adapter == every[:3]  # a rate has one colour in all panels
    assert all(levels(panel, BOUND_COLOUR.upper()) == [30.0] for panel in figure.axes)


def test_figure_1_is_of_whole_routes_in_words(draw):
    figure = draw("fig1", "fig6_virl_l")
    assert figure.axes[0].get_ylabel() == "V-IRL-L: overall success"
    assert [len(curves(panel)) for panel in figure.axes] == [2, 2]


def test_figure_18_is_of_whole_routes(draw, runs):
    figure = draw("fig18", "fig6_virl_vl")
    inside, outside = figure.axes
    found = analyse(runs("fig6_virl_vl"))
    start = 100 * mean_over_seeds(found.curves.start, "id", "success").p
    assert start != pytest.approx(100 * mean_over_seeds(found.curves.start, "id", "steps").p)
    assert any(y == pytest.approx(start) for _, y, _ in points(inside))
    assert [len(curves(panel)) for panel in figure.axes] == [2, 2]
    assert levels(outside, BOUND_COLOUR.upper()) == [1.0]
    assert inside.get_ylabel() == "V-IRL-VL: overall success"


def test_the_axis_can_be_the_papers_formula(draw):
    counted, paper = (draw("fig5", "fig6_gp_l", axis=axis) for axis in ("counted", "paper"))
    assert [figure.get_supxlabel() for figure in (counted, paper)] == [
        "Training compute, from counted tokens",
        "Training compute, the paper's formula, D_RL counted in every epoch",
    ]
    ends = [max(line.get_xdata()[-1] for line in curves(figure.axes[0])) for figure in (counted, paper)]
    assert ends[0] != pytest.approx(ends[1])


def test_the_axis_counts_tokens_of_rl_as_asked(runs, tmp_path):
    folder = runs("fig6_gp_l")
    ends = {}
    for reading in ("per_epoch", "once"):
        (run,) = on_common_axis([load_analysis(folder, reading)], "paper")
        with look():
            figure = paper_figure("fig5").draw([run])
        words = {"per_epoch": "in every epoch", "once": "once"}[reading]
        assert figure.get_supxlabel() == f"Training compute, the paper's formula, D_RL counted {words}"
        ends[reading] = max(line.get_xdata()[-1] for line in curves(figure.axes[0]))
    assert ends["once"] < ends["per_epoch"]
    path = write_results(folder, tmp_path)
    with pytest.raises(SftrlError, match="counts D_RL per_epoch; --rl-tokens once needs the run"):
        load_analysis(path, "once")


def test_synthetic_cities_are_marked_and_the_papers_numbers_left_out(tmp_path):
    recipe = "fig6_virl_vl"
    cities = ["task.routes.home.path=null", "task.routes.away=[{style: marble, seed: 1}]"]
    folder = paper_run(tmp_path / "run", recipe, points=3, overrides=cities)
    _, svg = write_paper_figure("fig7", [folder], tmp_path)
    text = svg.read_text()
    assert "V-IRL-VL: synthetic cities" in text and "previous best" not in text


def test_the_command_draws_several_runs_on_one_page(runs, tmp_path, capsys):
    folders = [str(runs(name)) for name in reversed(TASKS)]
    assert main(["report", *folders, "--figure", "fig6", "--out", str(tmp_path / "new")]) == 0
    png, svg = tmp_path / "new" / "fig6.png", tmp_path / "new" / "fig6.svg"
    assert str(png) in capsys.readouterr().out
    assert png.is_file()
    order = [svg.read_text().index(f"<!-- {title}") for title in ("GP-L", "V-IRL-L", "GP-VL", "V-IRL-VL")]
    assert order == sorted(order)


def test_errors_per_response_are_marked():
    stored = load_analysis(Path(__file__).parents[3] / "results" / "fig6_virl_l-laptop.json")
    for name in ("fig5", "fig6"):
        with look():
            figure = paper_figure(name).draw(on_common_axis([stored]))
        assert figure.axes[0].get_title(loc="left") == "V-IRL-L\nper-step accuracy †"
        assert legend(figure)[-1] == "† SE per response"


def test_a_results_file_is_drawn_like_its_run(runs, tmp_path, draw):
    path = write_results(runs("fig6_gp_l"), tmp_path)
    write_paper_figure("fig5", [path], tmp_path)
    assert (tmp_path / "fig5.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("figure", "names", "axis", "message"),
    [
        ("fig6", ["fig6_gp_l", "fig6_gp_l"], None, r"are of one task \(gp_l\); expected one run per task"),
        ("fig9", ["fig6_gp_l", "fig6_virl_l"], None, "found 2 runs, expected one"),
        ("fig8", ["fig6_gp_l"], None, "nothing to draw .* needs recognition"),
        ("fig18", ["fig6_gp_l"], None, "needs a run of routes"),
        ("fig19", ["fig6_gp_l"], None, "needs an RL arm that starts from an SFT arm's checkpoint"),
        ("fig61", ["fig6_gp_l"], None, "unknown figure 'fig61'. Did you mean 'fig16'|'fig6'"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, tmp_path, figure, names, axis, message):
    with pytest.raises(SftrlError, match=message):
        write_paper_figure(figure, [runs(name) for name in names], tmp_path, axis)
    assert not list(tmp_path.iterdir())


def test_an_axis_that_a_run_lacks_is_refused(runs, tmp_path):
    content = json.loads(write_results(runs("fig6_gp_l"), tmp_path).read_text())
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content | {"paper_formula_absent": "it makes 1 epoch"}))
    with pytest.raises(SftrlError, match=r"axis 'paper' is not known .* \(it makes 1 epoch\); .*: counted"):
        write_paper_figure("fig5", [path], tmp_path, "paper")


def test_the_report_of_a_run_has_the_figures_of_its_recipe(runs, tmp_path):
    found = analyse(runs("fig6_gp_vl"))
    assert [figure.name for figure in figures_of_recipe(found)] == ["fig7", "fig8"]
    (tmp_path / "fig16.png").write_bytes(b"of an earlier recipe")
    drawn = list(islice(draw_figures(found, tmp_path), 3))
    assert [figure.spec.name for figure in drawn] == ["fig7", "fig8", "bars"]
    assert drawn[1].spec.title == "Recognition against success (Figure 8 of the paper)"
    assert all(figure.png.is_file() for figure in drawn)
    assert not (tmp_path / "fig16.png").exists()


def test_every_figure_of_the_paper_has_a_recipe():
    named = {figure.name for figure in PAPER_FIGURES}
    assert named == {f"fig{n}" for n in (1, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18, 19)}
    assert {name.partition("_")[0] for name in STORIES} | {"fig1", "fig5", "fig7", "fig8", "fig18"} == named
