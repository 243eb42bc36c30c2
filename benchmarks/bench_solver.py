"""Speed of the solver: hands per second, beside a plain enumeration of all trees measured in the same run.

Run ``python benchmarks/bench_solver.py``; it prints one JSON object. Times are CPU time of this process.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement, permutations

from sftrl_ext.envs.general_points.solver import clear_tables, is_solvable, iter_solutions, solve

Hand = tuple[int, ...]


def plain_solve(hand: Sequence[int], target: int) -> set[str]:
    """The floor: every order, every tree, every operator, with Fractions, fully parenthesized."""

    def trees(row: Sequence[int]) -> Iterator[tuple[Fraction, str]]:
        if len(row) == 1:
            yield Fraction(row[0]), str(row[0])
        for cut in range(1, len(row)):
            for a, left in trees(row[:cut]):
                for b, right in trees(row[cut:]):
                    yield a + b, f"({left}+{right})"
                    yield a - b, f"({left}-{right})"
                    yield a * b, f"({left}*{right})"
                    if b:
                        yield a / b, f"({left}/{right})"

    return {text for order in set(permutations(hand)) for value, text in trees(order) if value == target}


def seconds_each(work: Callable[[Hand], object], hands: Iterable[Hand], fresh: bool = False) -> list[float]:
    """CPU seconds of each call, optionally with all tables forgotten before it."""
    spent = []
    for hand in hands:
        if fresh:
            clear_tables()
        start = time.process_time_ns()
        work(hand)
        spent.append((time.process_time_ns() - start) / 1e9)
    return spent


def per_second(spent: Sequence[float]) -> float:
    """Calls per second."""
    return round(len(spent) / max(sum(spent), 1e-9), 1)


def main() -> None:
    """Measure and print."""
    rng = random.Random(0)
    hands: list[Hand] = list(combinations_with_replacement(range(1, 11), 4))
    rng.shuffle(hands)
    floor = per_second(seconds_each(lambda hand: plain_solve(hand, 24), hands[:25]))
    cold = per_second(seconds_each(solve, hands, fresh=True))
    clear_tables()
    build = per_second(seconds_each(solve, hands))
    start = time.process_time()
    for _ in range(20):
        for hand in hands:
            solve(hand)
    table = 20 * len(hands) / (time.process_time() - start)
    six = [tuple(rng.randint(1, 19) for _ in range(6)) for _ in range(30)]
    solvable = seconds_each(is_solvable, six, fresh=True)
    hopeless = seconds_each(lambda hand: is_solvable(hand, 9973), six, fresh=True)
    clear_tables()
    start = time.process_time()
    count = sum(1 for _ in iter_solutions((1, 2, 3, 4, 5, 6)))
    stream = time.process_time() - start
    report = {
        "hands": len(hands),
        "floor_plain_enumeration_hands_per_s": floor,
        "solve_cold_hands_per_s": cold,
        "solve_cold_over_floor": round(cold / floor, 1),
        "solve_building_the_table_hands_per_s": build,
        "solve_from_table_hands_per_s": round(table),
        "is_solvable_4_cold_us": round(1e6 / per_second(seconds_each(is_solvable, hands, fresh=True)), 1),
        "is_solvable_6_cold_ms_mean_max": [round(sum(solvable) / 30 * 1e3, 2), round(max(solvable) * 1e3, 2)],
        "not_solvable_6_cold_ms_mean_max": [
            round(sum(hopeless) / 30 * 1e3, 2),
            round(max(hopeless) * 1e3, 2),
        ],
        "all_solutions_of_1_to_6": {"count": count, "seconds": round(stream, 3)},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
