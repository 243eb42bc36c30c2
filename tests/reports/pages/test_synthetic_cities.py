"""Reports of routes: the mark of synthetic cities, and results by city."""

from __future__ import annotations

import json
import re

import pytest
import yaml

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports import build_report, results_table
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.analysis.splits import SYNTHETIC, is_synthetic
from sftrl_ext.reports.figures.style import save
from sftrl_ext.reports.pages.cities import city_table
from sftrl_ext.reports.pages.tables import compared_rows, success_table
from sftrl_ext.reports.results_file import results_json, results_of
from sftrl_ext.reports.stored_results import analyse_results
from sftrl_ext.runs.recipe import StoredRecipe
from tests.reports.pages.page_content import markup, page_data
from tests.reports.synthetic_run import make_run, rewrite

EXPECTED = [
    {"source": "Figure 6", "metric": "per_step", "split": "rule_ood", "sft": 2.5, "init": 91.3, "rl": 97.7},
    {"source": "Figure 7", "metric": "success", "split": "visual_ood", "sft": 11.1, "init": 93.9, "rl": 99.3},
]
OF_THE_PAPER = ("91.3", "97.7", "93.9", "99.3")
CITIES = ("Lagos", "Milan", "New Delhi")


def walked(record):
    responses = 10 * record["episodes"]
    right = round(responses * record["solved"] / record["episodes"])
    record = record | {"responses": responses, "correct_actions": right, "solved": record["solved"] // 5}
    if record["split"] != "visual_ood":
        return record
    rest = {"episodes": record["episodes"] - 4, "solved": record["solved"], "correct_actions": right - 7}
    two = {"episodes": 2, "solved": 0, "correct_actions": 3, "responses": 6}
    counts = [two, {**two, "correct_actions": 4}, {**rest, "responses": responses - 12}]
    return record | {"by_city": dict(zip(CITIES, counts, strict=True))}


def run(folder, home=None, away=None):
    """A run with routes of files, or of synthetic cities where there is no path."""
    make_run(folder, splits=("id", "rule_ood", "visual_ood"))
    rewrite(folder, walked)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    routes = {"home": {"style": "brick", "path": home}, "away": [{"style": "night", "path": away}]}
    recipe["task"] = {"name": "virl_vl", "kind": "virl", "routes": routes}
    recipe["expected"] = EXPECTED
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def tables(text):
    """The first lines of all tables of a page with numbers of splits."""
    return [line for line in text.splitlines() if line.startswith("| Arm")]


DRAWN: dict[str, Figure] = {}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    def keep(figure, folder, name):
        DRAWN[name] = figure
        return save(figure, folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftrl_ext.reports.figures.run_figures.save", keep)
        return build_report(run(tmp_path_factory.mktemp("synthetic") / "run"))


def test_every_table_and_figure_of_synthetic_cities_says_so(synthetic):
    page, html = synthetic.markdown.read_text(), synthetic.html.read_text()
    headers = tables(page)
    assert len(headers) > 4
    assert all(SYNTHETIC in header for header in headers)
    heads = [head for head in re.findall(r"(?s)<thead>.*?</thead>", html) if ">Arm" in head]
    assert len(heads) == len(headers) and all(SYNTHETIC in head for head in heads)
    assert (
        page.count(f"Routes of {SYNTHETIC}.")
        == len(synthetic.figures)
        == html.count(f"Routes of {SYNTHETIC}.")
    )
    assert "Hatched" not in page + html
    assert SYNTHETIC in page.splitlines()[0]
    assert any(note.startswith("Synthetic cities: the routes are made up") for note in synthetic.notes)
    table = results_table([synthetic.folder.parent])
    assert all(SYNTHETIC in line for line in table.splitlines()[2:])


def test_the_mark_is_drawn_into_every_figure(synthetic):
    assert set(DRAWN) == set(synthetic.figures)
    assert {"bars", "ood_vs_id", "success_vs_compute", "outcomes", "training", "route_bars"} <= set(DRAWN)
    for name, figure in DRAWN.items():
        marks = [legend for legend in figure.legends if legend.get_title().get_text() == SYNTHETIC]
        assert len(marks) == 1, name
        box, whole = marks[0].get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0, name
        for axes in figure.get_axes():
            assert not axes.get_tightbbox().overlaps(box), name


def test_the_papers_numbers_are_not_beside_those_of_synthetic_cities(synthetic):
    for page in (synthetic.markdown, synthetic.html):
        text = re.sub(r"data:image[^\"]*", "", markup(page.read_text()))
        assert not [number for number in OF_THE_PAPER if re.search(rf"\b{re.escape(number)}\b(?! ±)", text)]
        assert "paper, Llama" not in text
    assert page_data(synthetic.html.read_text())["chart"]["paper"] == []
    summary = json.loads(synthetic.summary.read_text())
    assert summary["paper"] == [] and summary["synthetic_cities"] is True


def paper_table(found, metric):
    return success_table(found, compared_rows(found), paper=True, metric=metric).to_markdown()


def test_routes_of_files_have_the_papers_numbers_and_no_mark(tmp_path):
    found = analyse(run(tmp_path / "run", home="nyc_1k_routes", away="VLN_mini"))
    assert not found.synthetic and SYNTHETIC not in found.title + " ".join(found.notes)
    text = paper_table(found, "steps") + paper_table(found, "success")
    assert SYNTHETIC not in text and all(number in text for number in OF_THE_PAPER)


def test_splits_are_marked_one_by_one(tmp_path):
    found = analyse(run(tmp_path / "run", home="nyc_1k_routes"))
    text = paper_table(found, "steps") + paper_table(found, "success")
    assert "| rule_ood |" in text and f"| visual_ood ({SYNTHETIC}) |" in text
    assert "97.7" in text and "99.3" not in text
    assert found.mark == f"visual_ood: {SYNTHETIC}" and found.title.endswith(found.mark)
    assert any("the routes of `visual_ood` are made up" in note for note in found.notes)


@pytest.mark.parametrize(
    ("task", "marked"),
    [
        ({"kind": "general_points", "routes": {"home": {"path": None}}}, False),
        ({"kind": "virl"}, False),
        ({"kind": "virl", "routes": {"home": {"path": "nyc"}}}, False),
        ({"kind": "virl", "routes": {"home": {"path": None}}}, True),
        ({}, False),
    ],
)
def test_only_routes_without_a_path_are_synthetic(task, marked):
    assert is_synthetic(StoredRecipe(task=task), "rule_ood") is marked


def test_results_files_keep_the_mark(synthetic, tmp_path):
    found = results_json(results_of(analyse(synthetic.folder.parent)))
    assert found["synthetic_cities"] is True
    path = tmp_path / "fig6_virl_vl-laptop.json"
    path.write_text(json.dumps(found))
    again = analyse_results(path)
    assert again.synthetic and SYNTHETIC in again.title
    del found["synthetic_cities"]
    path.write_text(json.dumps(found))
    assert not analyse_results(path).synthetic


def test_a_table_has_the_results_of_every_city(synthetic):
    found = analyse(synthetic.folder.parent)
    table = city_table(found, "visual_ood")
    assert list(table.header[-3:]) == list(CITIES)
    assert {row[0] for row in table.rows} == {"Init", "SFT", "RL"} - (
        {"Init"} if not found.curves.start else set()
    )
    seeds = len(found.equal.chosen[next(c.key for c in found.curves.arms if c.arm == "sft")])
    for row in table.rows:
        shown = seeds if row[0] != "Init" else len(found.curves.start)
        assert row[3] == f"0/{2 * shown}, 50.0" and row[4] == f"0/{2 * shown}, 66.7"
    page = synthetic.markdown.read_text()
    assert "By city, on `visual_ood`" in page and table.to_markdown() in page
    assert "New Delhi" in synthetic.html.read_text()
    lines = json.loads(synthetic.summary.read_text())["by_city"]
    lagos = [line for line in lines if line["city"] == "Lagos" and line["arm"] == "sft"]
    assert [(line["routes"], line["right_actions"], line["responses"]) for line in lagos] == [
        (2 * seeds, 3 * seeds, 6 * seeds)
    ]


def test_counts_of_cities_must_add_up(tmp_path):
    folder = run(tmp_path / "run")

    def wrong(record):
        if "by_city" in record:
            record["by_city"]["Milan"]["solved"] += 1
        return record

    rewrite(folder, wrong)
    with pytest.raises(SftrlError, match="'by_city' should have 'solved' that add up to"):
        build_report(folder)
