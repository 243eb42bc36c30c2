"""The grader of GeneralPoints against a judge written from the paper alone.

``SFTRL_ORACLE_RESPONSES`` is the number of responses: `make nightly` takes a million.
"""

from __future__ import annotations

import ast
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from sftrl_ext.envs.general_points.verifier import grade_response
from tests.oracle import general_points
from tests.oracle.general_points import CORRECT, ILLEGAL, WRONG_NUMBERS, WRONG_VALUE, judge_formula
from tests.oracle.responses import responses

COUNT = int(os.environ.get("SFTRL_ORACLE_RESPONSES", "4000"))


def test_the_judge_shares_no_code_with_the_product():
    for name in ("general_points.py", "responses.py"):
        tree = ast.parse(Path(general_points.__file__).with_name(name).read_text(encoding="utf-8"))
        imports = [
            ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        assert imports and not [line for line in imports if "sftrl_ext" in line or "data_prep" in line]


@pytest.mark.parametrize(
    ("formula", "reward"),
    [
        ("8/(3-8/3)=24", CORRECT),
        ("8 / ( 3 - 8 / 03 )", CORRECT),
        ("8*3+8-3", WRONG_VALUE),
        ("8/(3-3)*8", WRONG_VALUE),
        ("8*3", WRONG_NUMBERS),
        ("8*3*8**3", ILLEGAL),
        ("-8+3+3*8", ILLEGAL),
        ("8(3)+3*8", ILLEGAL),
        ("8//3+3*8", ILLEGAL),
        ("8*3+(8-3", ILLEGAL),
        ("", ILLEGAL),
    ],
)
def test_the_judge_knows_the_rules(formula, reward):
    assert judge_formula(formula, [3, 3, 8, 8], 24) == reward


def test_the_grader_agrees_with_the_judge():
    counts: Counter[str] = Counter()
    for response in responses(COUNT):
        modality = "image" if response.image else "text"
        reward = grade_response(
            response.text, cards=response.cards, numbers=response.numbers, modality=modality
        ).reward
        expected = general_points.judge_response(
            response.text, response.cards, response.numbers, 24, response.image
        )
        if expected is not None:
            assert reward == expected, response
            counts[f"judged {expected:+g}"] += 1
        elif reward == CORRECT:
            assert general_points.holds_solution(response.text, response.numbers, 24), response
            counts["not JSON alone, correct, and a solution stands in it"] += 1
        else:
            counts["not JSON alone, not correct"] += 1
    sys.stdout.write(f"\n{COUNT} responses, no mismatch: {dict(sorted(counts.items()))}\n")
    # Every outcome occurs.
    assert len(counts) == 7
