"""Speed of grading one response, beside the least that could do: ``json.loads`` and the value in Fractions.

Run ``python benchmarks/bench_grade.py``; it prints one JSON object with microseconds of CPU time per call,
the best of several rounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction

from timing import best_seconds

from sftrl_ext.envs.general_points.authors import authors_solutions
from sftrl_ext.envs.general_points.verifier import grade, grade_response

CARDS, NUMBERS = ["3", "3", "8", "8"], [3, 3, 8, 8]
ANSWER = '{"cards": ["3", "3", "8", "8"], "number": [3, 3, 8, 8], "formula": "8/(3-8/3)=24"}'
LOOSE = "{'cards': ['3', '3', '8', '8'], 'number': [3, 3, 8, 8], 'formula': '8/(3-8/3)=24'}"
FENCED = f"Let me think about it.\n```json\n{ANSWER}\n```\nDone."


def floor() -> bool:
    """The least a grader must do, with the formula already parsed by hand."""
    formula = json.loads(ANSWER)["formula"]
    return bool(formula) and Fraction(8) / (Fraction(3) - Fraction(8) / Fraction(3)) == 24


def microseconds(work: Callable[[], object], rounds: int = 15, calls: int = 2000) -> float:
    """The best round's time per call."""
    return round(best_seconds(work, rounds, calls) * 1e6, 2)


def main() -> None:
    """Measure and print."""

    def respond(text: str, profile: str = "exact") -> Callable[[], object]:
        return lambda: grade_response(text, cards=CARDS, numbers=NUMBERS, target=24, profile=profile)

    authors_solutions(NUMBERS)
    base = microseconds(floor)
    cases: dict[str, Callable[[], object]] = {
        "grade_correct": lambda: grade("8/(3-8/3)=24", NUMBERS),
        "grade_wrong_value": lambda: grade("8+8+3+3", NUMBERS),
        "grade_wrong_numbers": lambda: grade("8*3", NUMBERS),
        "grade_illegal": lambda: grade("8/(3-8/3", NUMBERS),
        "response_json": respond(ANSWER),
        "response_python_literal": respond(LOOSE),
        "response_fenced": respond(FENCED),
        "response_prose": respond("I can not find any formula for these cards. " * 10),
        "authors_json": respond(ANSWER, "authors"),
        "authors_wrong_value": respond(ANSWER.replace("8/(3-8/3)", "8+8+3+3"), "authors"),
    }
    report: dict[str, object] = {"floor_json_and_fractions_us": base}
    for name, work in cases.items():
        spent = microseconds(work)
        report[f"{name}_us"] = spent
        report[f"{name}_over_floor"] = round(spent / base, 2)
    for name, text in {
        "digits": "9" * 10_000_000,
        "parentheses": "(" * 10_000_000,
        "braces": "{" * 10_000_000,
    }.items():
        report[f"grade_10MB_{name}_ms"] = round(
            microseconds(lambda text=text: grade(text, NUMBERS), 3, 1) / 1e3, 3
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
