from sftrl_ext.experiments.planner.page import budget_page
from sftrl_ext.paths import recipes_dir


def test_the_page_is_current():
    root = recipes_dir().parent
    page = (root / "docs" / "budget.md").read_text(encoding="utf-8")
    assert page == budget_page(root / "results"), (
        "docs/budget.md is stale: python -m sftrl_ext.experiments.planner.page"
    )
    assert "docs/budget.md" not in page and "budget.md" in (root / "mkdocs.yml").read_text(encoding="utf-8")
