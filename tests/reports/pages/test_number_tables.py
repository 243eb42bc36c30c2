"""Tables of results that only some runs have."""

from __future__ import annotations

from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.render import number_tables
from tests.reports.synthetic_run import make_run, rewrite


def test_responses_by_the_trained_rule_have_a_table_where_they_were_counted(tmp_path):
    run_dir = make_run(tmp_path / "run", points=3, splits=("id", "rule_ood"))

    def tables():
        numbers = number_tables(analyse(run_dir))
        return [entry for entry in numbers if "by the trained rule" in entry.title]

    assert tables() == []
    rewrite(
        run_dir,
        lambda record: (
            {**record, "trained_rule_first": record["episodes"] // 2}
            if record["split"] == "rule_ood"
            else record
        ),
    )
    compared, every = (entry.table for entry in tables())
    columns = {name: compared.header.index(name) for name in ("id", "rule_ood")}
    assert {row[columns["id"]] for row in compared.rows} == {"–"}
    assert all(row[columns["rule_ood"]].startswith("50.0") for row in compared.rows)
    assert len(every.rows) > len(compared.rows)
