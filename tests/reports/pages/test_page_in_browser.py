"""The interactive page in headless Chromium: wide and light, narrow and dark."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.render import episodes_page, report_pages
from sftrl_ext.reports.watch import run_server
from tests.reports.episodes.walked_routes import route_facts, small_city, walked
from tests.reports.synthetic_run import make_run

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
HOSTILE = '<img src="http://example.invalid/x.png" onerror="alert(1)"><script>alert(2)</script>'

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = make_run(
        tmp_path_factory.mktemp("run"), seeds=(0, 1), rates=(5e-5, 1e-4), points=3, splits=("id", "rule_ood")
    )
    path = folder / "eval" / "episodes.jsonl"
    path.write_text(path.read_text().replace("[synthetic] That uses", f"{HOSTILE} uses".replace('"', '\\"')))
    return folder


@pytest.fixture(scope="module")
def report(run_dir):
    page = run_dir / "page.html"
    page.write_text(report_pages(analyse(run_dir), [], [], [])["report.html"], encoding="utf-8")
    return page.as_uri()


@pytest.fixture(params=[(1400, "light"), (390, "dark")], ids=str)
def view(browser, request):
    """A window that fails its test for any error of the page, and any request beyond its file."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or problems.append(r.url))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.set_default_timeout(60_000)
    yield page
    page.close()
    assert problems == []


def wait_until(view, condition):
    """Wait for a condition; playwright's own waits evaluate strings, which the policy of the page forbids."""
    for _ in range(1200):
        if view.evaluate(condition):
            return
        view.wait_for_timeout(100)
    raise AssertionError(condition)


def open_page(view, address):
    view.goto(address)
    drawn = "document.querySelectorAll('.plot').length == document.querySelectorAll('.plot svg').length"
    wait_until(view, drawn)


def points(view, panel=0):
    return view.locator(".panel").nth(panel).locator(".mark-symbol path")


def test_page_fits_its_window_and_loads_nothing(view, report):
    open_page(view, report)
    assert view.locator("#panels svg").count() == 2
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert HOSTILE in view.locator("#episode").inner_text()
    assert view.locator("#contents li").count() == view.locator("main h2").count()
    back = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is (view.viewport_size["width"] == 1400)
    view.locator("#theme").click()  # light, whatever the system prefers
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    view.locator("dfn").first.focus()
    assert view.locator("#tip").inner_text() == view.locator("dfn").first.get_attribute("data-tip")


def test_toggles_change_the_chart(view, report):
    open_page(view, report)
    before = view.locator("#panels .mark-symbol path").count()
    view.locator("#noarm-rl").uncheck()
    wait_until(view, f"document.querySelectorAll('#panels .mark-symbol path').length < {before}")
    view.locator("#nosplit-id").uncheck()
    wait_until(view, "document.querySelectorAll('#panels svg').length == 1")
    assert "Tokens trained on" not in view.locator("#panels").text_content()
    view.locator("#axis-tokens").check()
    wait_until(view, "document.querySelector('#panels').textContent.includes('Tokens trained on')")
    shown = view.locator("#panels .mark-line path").count()
    view.locator("#seeds-0").check()
    wait_until(view, f"document.querySelectorAll('#panels .mark-line path').length > {shown}")


def test_a_checkpoint_shows_its_episodes_and_its_address_the_same_view(view, report):
    open_page(view, report)
    every = view.locator("#found tbody tr").count()
    box = view.locator(".plot").nth(1)
    box.focus()
    view.keyboard.press("ArrowRight")
    assert "±" in view.locator("#tip").inner_text()
    view.mouse.move(0, 0)
    sft = view.evaluate(
        "[...document.querySelectorAll('.panel:nth-child(2) .mark-symbol path')]"
        ".findIndex((n) => n.__data__.datum.arm == 'sft' && n.__data__.datum.step == 100)"
    )
    points(view, 1).nth(sft).click()
    wait_until(view, f"document.querySelectorAll('#found tbody tr').length < {every}")
    assert view.locator("#filter-arm").input_value() == "sft"
    assert view.locator("#filter-split").input_value() == "rule_ood"
    assert view.locator(".episode").count() == 1
    assert "step 100" in view.locator(".episode select option:checked").inner_text()
    view.locator("#filter-arm").select_option("")
    assert view.locator(".episode").count() == 3
    view.locator("#found tbody button").nth(1).click()
    shown = view.locator("#episode").inner_text()
    address = view.url
    open_page(view, "about:blank")
    open_page(view, address)
    assert view.locator("#episode").inner_text() == shown


def test_a_drag_over_checkpoints_picks_them(view, report):
    open_page(view, report)
    frame = view.locator(".plot svg").nth(1)
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    view.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 12)
    view.mouse.down()
    view.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 60, steps=4)
    view.mouse.move(box["x"] + 0.97 * box["width"], box["y"] + 90, steps=4)
    view.mouse.up()
    wait_until(view, "location.hash.includes('picks=')")
    assert view.locator("#filter-checkpoint").input_value() == "picked"
    assert view.locator("#filter-split").input_value() == "rule_ood"


def test_filters_and_keys_of_the_viewer(view, report):
    open_page(view, report)
    view.locator("#filter-verdict").select_option("differ")
    rows = view.locator("#found tbody tr")
    assert rows.count() > 0
    for number in range(rows.count()):
        assert len(set(rows.nth(number).locator(".mark").all_inner_texts())) == 2
    first = view.locator("#episode h3").inner_text()
    view.locator("h1").click()
    view.keyboard.press("n")
    assert view.locator("#episode h3").inner_text() != first
    view.keyboard.press("p")
    assert view.locator("#episode h3").inner_text() == first
    view.locator("#filter-search").fill("no such words")
    view.locator("#filter-search").blur()
    assert "No kept episode" in view.locator("#episode").inner_text()


def test_routes_are_drawn_on_maps(view, tmp_path):
    city = small_city(tmp_path / "city", pictures=True)
    facts = route_facts(city, modality="image")
    lines = [
        walked(facts, tries, arm=arm, stage=f"{arm}-s0")
        for arm, tries in (("sft", (True, False, False)), ("rl", ()))
    ]
    folder = make_run(tmp_path / "run", points=1, splits=("id",), training=False)
    (folder / "eval" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = analyse(folder)
    page = tmp_path / "episodes.html"
    page.write_text(episodes_page("Episodes", found.arms, found.run.episodes), encoding="utf-8")
    open_page(view, page.as_uri())
    view.wait_for_selector(".map svg")
    assert view.locator(".map svg").count() == 2 and view.locator("img.view").count() > 2
    numbers = view.locator(".map").first.locator(".mark-text text").all_text_contents()
    assert "1" in numbers and "2" in numbers
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_watched_run_is_read_anew(browser, run_dir, tmp_path):
    folder = tmp_path / "run"
    with run_server(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/#?axis=tokens")
        assert "no such run folder" in page.locator("main").inner_text()
        shutil.copytree(run_dir, folder)
        page.wait_for_selector("#panels svg")
        assert page.locator("#axis-tokens").is_checked() and page.locator("#live").inner_text() == "live"
        page.close()
        server.shutdown()
