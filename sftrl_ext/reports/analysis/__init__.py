"""Numbers of a report: curves on compute axes, comparisons at equal compute, verdicts."""
