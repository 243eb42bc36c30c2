"""Instances and verdicts per second, and wrong verdicts: reasoning-gym's puzzle24 and countdown beside ours.

Each verifier is called by its own interface: theirs with the expression, ours with the JSON answer of the
card game's prompt. The answers are right or wrong by the puzzles' own statements; what a statement leaves
open (a number of puzzle24 that is not used, powers and factorials in countdown) is not tried. Verdicts on
these are given in processes of their own, with limits of time and memory: some answers are made to hang, to
crash, or to be run.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.peer_inputs import answer_settings
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.envs.general_points.hands import BLOCK, HandSpec, hand_block
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.verifier import grade_response

TIME_LIMIT_S = 2
"""CPU seconds of a verdict, so that other work on the machine does not count."""
MEMORY_LIMIT = 4 << 30
Verifier = Callable[[str, Sequence[int], int], bool]
"""True if it accepts an expression over numbers for a target."""
MARKER = "MARKER"
"""In an answer: the path of a file that exists if the answer was run."""


@dataclass(frozen=True)
class Puzzle:
    """One instance of a data set, with answers that are known to be right or wrong.

    Attributes:
        dataset: Data set of reasoning-gym.
        numbers: Its numbers.
        target: Value to reach.
        right: Name to expression, of right answers.
        wrong: Name to expression, of wrong answers.
    """

    dataset: str
    numbers: tuple[int, ...]
    target: int
    right: Mapping[str, str]
    wrong: Mapping[str, str]


def hostile(solution: str, product: str, target: int, listed: str) -> dict[str, str]:
    """Wrong answers of either puzzle.

    Args:
        solution: A right expression.
        product: The product of all numbers.
        target: Value to reach.
        listed: The numbers with blanks between them.
    """
    return {
        "the target alone": str(target),
        "the target plus zero times every number": f"{target}+0*{product}",
        "hexadecimal target plus zero times every number": f"{hex(target)}+0*{product}",
        "target with an exponent plus zero times every number": f"{target}e0+0*{product}",
        "numbers in a comment": f"{hex(target)} # {listed}",
        "numbers in a string": f"{hex(target)}+0*len('{listed}')",
        "a further number with an exponent": f"{solution}+0e0",
        "eval": f"eval('{hex(target)}')+0*{product}",
        "code that writes a file": f"__import__('pathlib').Path('{MARKER}').write_text('x')",
        "a tower of powers": f"0*9**9**9**9+{solution}",
        "factorial of a factorial": f"0*factorial(factorial(99))+{solution}",
        "a million digits": "9" * 1_000_000,
        "a sum of 100,000 ones": "+".join("1" * 100_000),
        "10,000 open brackets": "(" * 10_000,
        "a wrong value in 10,000 brackets": "(" * 10_000 + listed.replace(" ", "+") + ")" * 10_000,
        "10,000 signs": "-" * 10_000 + solution,
        "full-width digits, wrong value": "\uff11+\uff11",
        "no text": "",
        "prose": "I can not find it.",
    }


PUZZLES = (
    Puzzle(
        "puzzle24",
        (3, 3, 8, 8),
        24,
        {"plain": "8/(3-8/3)", "blanks": " 8 / ( 3 - 8 / 3 ) ", "brackets": "(((8/(3-(8/3)))))"},
        {
            "a number too often, another left out": "3*8*3/3",
            "four other numbers": "4*6*1*1",
            "a fifth number": "8/(3-8/3)+1-1",
            "a value that rounds down to the target": "3*8+3/8",
            **hostile("8/(3-8/3)", "3*3*8*8", 24, "3 3 8 8"),
        },
    ),
    Puzzle(
        "puzzle24",
        (1, 2, 4, 5),
        24,
        {"other numbers, plain": "(5+2-1)*4"},
        {"a power": "5**2-1**4", "a factorial": "5!/(4+2-1)"},
    ),
    Puzzle(
        "countdown",
        (5, 100, 1, 20, 10, 50),
        500,
        {
            "plain": "50*10*(5*20/100)*1",
            "blanks": " 50 * 10 * ( 5 * 20 / 100 ) * 1 ",
            "brackets": "(((50*10)*((5*20)/100))*1)",
        },
        {
            "a number too often, another left out": "5*100*1+(20-20)*50",
            "six other numbers": "5*100*1*1*1*1",
            "a seventh number": "50*10*(5*20/100)*1+7-7",
            "a value off by a ten-thousandth": "5*100+1/20/10/50",
            **hostile("50*10*(5*20/100)*1", "5*100*1*20*10*50", 500, "5 100 1 20 10 50"),
        },
    ),
)


def our_verifier() -> Verifier:
    """Our verifier, which gets the whole response of a model."""

    def accepts(text: str, numbers: Sequence[int], target: int) -> bool:
        cards = [str(number) for number in numbers]
        response = json.dumps({"cards": cards, "number": list(numbers), "formula": text})
        return grade_response(response, cards=cards, numbers=numbers, target=target).correct

    return accepts


def their_verifier(dataset: str) -> Verifier:
    """The verifier of a data set of reasoning-gym; full marks are acceptance."""
    import reasoning_gym

    scorer = reasoning_gym.create_dataset(dataset, size=1, seed=0)

    def accepts(text: str, numbers: Sequence[int], target: int) -> bool:
        return scorer.score_answer(text, {"metadata": {"numbers": list(numbers), "target": target}}) == 1.0

    return accepts


def make_verifier(side: str, dataset: str) -> Verifier:
    """The verifier of a side."""
    return our_verifier() if side == "ours" else their_verifier(dataset)


def verdict_apart(verifier: Verifier, text: str, puzzle: Puzzle) -> tuple[str, float]:
    """A verdict by a process of its own, and its seconds.

    Returns:
        ``accepted``, ``rejected``, the name of the exception that was raised, ``died`` or ``time limit``.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child(answer: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT_S, TIME_LIMIT_S + 1))
        begin = time.process_time()
        try:
            verdict = "accepted" if verifier(text, puzzle.numbers, puzzle.target) else "rejected"
        except Exception as error:  # noqa: BLE001 - an exception out of a verifier is a result here
            verdict = type(error).__name__
        answer.send((verdict, time.process_time() - begin))

    process = multiprocessing.get_context("fork").Process(target=child, args=(sender,))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return ("time limit" if process.exitcode == -signal.SIGXCPU else "died"), float(TIME_LIMIT_S)


def attack(side: str, dataset: str) -> dict[str, Any]:
    """Verdicts of one side on the answers of a data set's puzzles, wrong ones by name."""
    verifier = make_verifier(side, dataset)
    results: dict[str, Any] = {
        "answers": 0,
        "wrong": [],
        "no_verdict": [],
        "answers_run": [],
        "slowest_s": 0.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "marker"
        for puzzle in PUZZLES:
            if puzzle.dataset != dataset:
                continue
            for correct, answers in ((True, puzzle.right), (False, puzzle.wrong)):
                for name, text in answers.items():
                    verdict, seconds = verdict_apart(verifier, text.replace(MARKER, str(marker)), puzzle)
                    results["answers"] += 1
                    results["slowest_s"] = max(results["slowest_s"], round(seconds, 4))
                    if verdict not in ("accepted", "rejected"):
                        results["no_verdict"].append(f"{name}: {verdict}")
                    elif (verdict == "accepted") != correct:
                        results["wrong"].append(name)
                    if marker.exists():
                        results["answers_run"].append(name)
                        marker.unlink()
    return results


Instance = tuple[str, Sequence[int], int, str]
"""Question, numbers, target and a right answer."""


def instances(side: str, dataset: str, count: int) -> tuple[list[Instance], float]:
    """Some instances of a side, and the seconds of making them."""
    drawn: list[Instance] = []
    if side != "ours":
        import reasoning_gym

        source = reasoning_gym.create_dataset(dataset, size=count, seed=0)
        begin = time.process_time()
        for entry in source:
            facts = entry["metadata"]
            drawn.append((entry["question"], facts["numbers"], facts.get("target", 24), entry["answer"]))
        return drawn, time.process_time() - begin
    settings, spec = PlaySettings(max_attempts=1), HandSpec()
    begin = time.process_time()
    for index in range(count):
        if index % BLOCK == 0:
            block = hand_block(0, index // BLOCK, spec)
        hand = block[index % BLOCK]
        prompt = make_episode(make_facts(hand.cards, "face_10", 24, settings)).messages()[-1]["content"]
        drawn.append((prompt, hand.numbers, 24, solve(hand.numbers)[0]))
    return drawn, time.process_time() - begin


def speed(side: str, dataset: str, count: int) -> dict[str, Any]:
    """Instances per second, and verdicts per second on right and wrong answers to theirs."""
    verifier = make_verifier(side, dataset)
    # Ours are drawn in blocks, and a block is drawn whole.
    drawn, seconds = instances(side, dataset, 2 * BLOCK if side == "ours" else count)
    puzzles, _ = instances("reasoning-gym", dataset, count)
    right = [(answer, numbers, target) for _, numbers, target, answer in puzzles]
    wrong = [("+".join(map(str, n)), n, target) for _, n, target, _ in puzzles if sum(n) != target]
    results: dict[str, Any] = {"instances_per_s": round(len(drawn) / seconds)}
    for name, answers, expected in (("right", right, True), ("wrong", wrong, False)):
        begin = time.process_time()
        verdicts = [verifier(*answer) for answer in answers]
        results[f"{name}_verdicts_per_s"] = round(len(answers) / (time.process_time() - begin))
        results[f"{name}_answers_misjudged"] = sum(verdict != expected for verdict in verdicts)
    results["instances_without_solution"] = sum(
        not verifier(answer, numbers, target) for _, numbers, target, answer in drawn
    )
    return results


def measure(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts on the stated answers, and speeds, of one side on one data set."""
    side, dataset = settings["side"], settings["dataset"]
    result = attack(side, dataset)
    timed = speed(side, dataset, settings["count"])
    if side == "ours" and dataset != "puzzle24":  # the card game has one target
        del timed["instances_per_s"]
    return {**timed, **result}


if __name__ == "__main__":
    answer_settings(measure)
