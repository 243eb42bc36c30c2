"""Solutions that differ as functions of the cards."""

from __future__ import annotations

import pytest

from sftrl_ext.envs.general_points.distinct import count_solutions, solution_key
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.task import TASKS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(10-4)*4*1", "1*4*(10-4)=24"),
        ("8-(3-7)+12", "12+8-3+7"),
        ("6/(1/4)*1", "6*4/1*1"),
        ("(5-1)*(5+1)", "(1+5)*(5-1)"),
        ("(3+5)*3", "3*(5+3)"),
    ],
)
def test_ways_to_write_a_solution_share_a_name(one, other):
    assert solution_key(one) == solution_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("6*4*1*1", "6*4/1/1"),
        ("12+12+5-5", "12*5/5+12"),
        ("2*3*4", "(2+4)*(3+1)"),
    ],
)
def test_other_functions_of_the_cards_have_other_names(one, other):
    assert solution_key(one) != solution_key(other)


def test_illegal_formulas_stand_for_themselves():
    assert solution_key(" 4 x 6 ") == "4 x 6"


def test_the_solutions_of_a_hand_are_counted_once_each():
    # 8 / (3 - 8 / 3) is the one way to 24 with 3, 3, 8, 8.
    assert count_solutions([8, 3, 8, 3], 24) == 1
    # 1 * 2 * 3 * 4, divisions by 1 in place of the product, (1 + 3) * (2 + 4) and (1 + 2 + 3) * 4.
    names = {solution_key(text) for text in solve([1, 2, 3, 4])}
    assert count_solutions([4, 3, 2, 1], 24) == len(names) == 4


def test_the_task_counts_them_from_facts_and_verdicts():
    task = TASKS["general_points"]
    facts = {"task": "general_points", "rule": "face_10", "cards": ["3", "8", "3", "8"], "target": 24}
    assert task.solutions(facts) == 1
    episode = task.episode(facts)
    step = episode.submit('{"cards": ["3","8","3","8"], "number": [3,8,3,8], "formula": "8/(3-8/3)=24"}')
    assert step.attempt.verdict.correct
    assert task.solution(step.attempt.verdict.details) == solution_key("8/(3-(8/3))")
