"""A run folder with invented numbers, for the tests of the report. Nothing here comes from training.

The invented story: SFT gains in distribution and loses the other rule; RL gains both a little. With pictures
SFT goes on reading the cards under the other rule and counts them wrong, and stops reading those that look
different.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_prep.splits import get_split
from sftrl_ext.envs.general_points.episode import PlaySettings, make_facts
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.task import make_episode

SPLITS = ("id", "id_unseen", "rule_ood", "rule_ood_unseen")
START = {
    "id": 0.70,
    "id_unseen": 0.30,
    "rule_ood": 0.40,
    "rule_ood_unseen": 0.10,
    "all_5": 0.22,
    "large": 0.05,
}
DRIFT = {  # change at the end of training, in parts of one
    "sft": {
        "id": 0.16,
        "id_unseen": 0.06,
        "rule_ood": -0.26,
        "rule_ood_unseen": -0.06,
        "all_5": -0.12,
        "large": -0.03,
    },
    "rl": {
        "id": 0.14,
        "id_unseen": 0.09,
        "rule_ood": 0.03,
        "rule_ood_unseen": 0.05,
        "all_5": 0.02,
        "large": 0.01,
    },
}
FARTHEST = {"sft": 0.42, "rl": 0.045}
"""Nats per token from the start, at the end of training."""
PARAMETERS = 1_050_000
READ = {  # cards recognized: at the start, and what SFT and RL add to it by the end
    "id": (0.82, 0.10, 0.12),
    "id_unseen": (0.80, 0.09, 0.12),
    "rule_ood": (0.82, 0.05, 0.09),
    "rule_ood_unseen": (0.81, 0.04, 0.09),
    "visual_ood": (0.62, -0.40, 0.16),
    "visual_ood_unseen": (0.60, -0.38, 0.15),
    "visual_ood_rotated": (0.45, -0.22, 0.02),
    "visual_ood_overlap": (0.52, -0.12, 0.05),
    "visual_ood_deck": (0.38, -0.27, 0.04),
    "visual_ood_table": (0.79, 0.02, 0.10),
}
PICTURES_EXPECTED = [
    {"source": "arXiv 2501.17161, Figure 6", "split": "rule_ood", "sft": 5.6, "init": 11.2, "rl": 14.2},
    {"source": "arXiv 2501.17161, Figure 7", "split": "visual_ood", "sft": 13.7, "init": 23.6, "rl": 41.2},
    {"source": "invented", "metric": "recognition", "split": "visual_ood", "sft": 40.0, "rl": 70.0},
]
SOLVE = {  # solved at once if recognized, the same way; splits not named are like `id`
    "id": (0.45, 0.30, 0.10),
    "id_unseen": (0.12, -0.02, 0.05),
    "rule_ood": (0.28, -0.24, 0.06),
    "rule_ood_unseen": (0.09, -0.08, 0.03),
    "visual_ood_unseen": (0.12, -0.02, 0.05),
}


def _write_lines(path: Path, lines: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _outcomes(solved: int, episodes: int, split: str, arm: str) -> dict[str, int]:
    failed = (episodes - solved) * 5
    numbers = int(failed * (0.7 if "ood" in split and arm == "sft" else 0.2))
    return {
        "correct": solved,
        "wrong_value": failed - numbers - failed // 10,
        "wrong_numbers": numbers,
        "illegal_formula": failed // 20,
        "unparsable": failed // 10 - failed // 20,
    }


def _divergence(rng: np.random.Generator, kind: str, part: float, start: str) -> dict[str, Any]:
    far = FARTHEST[kind] * part * float(np.exp(rng.normal(0, 0.05)))
    side = {"se": 0.06 * far, "episodes": 32, "tokens": 2400}
    return {"start": start, "forward": {"nats": far, **side}, "reverse": {"nats": 0.7 * far, **side}}


def _picture_counts(
    rng: np.random.Generator, split: str, arm: str, part: float, episodes: int
) -> dict[str, int]:
    """What a checkpoint made of pictures: recognized at first, right numbers, solved at first, solved."""
    index = {"sft": 1, "rl": 2}.get(arm)

    def now(table: dict[str, tuple[float, float, float]]) -> float:
        numbers = table.get(split, table["id"])
        return float(np.clip(numbers[0] + (numbers[index] if index else 0.0) * part**0.7, 0.005, 0.99))

    read, right = now(READ), now(SOLVE)
    recognized = int(rng.binomial(episodes, read))
    forgets = arm == "sft" and split.startswith("rule")
    first = int(rng.binomial(recognized, right))
    later = int(rng.binomial(recognized - first, 0.35 * right))
    return {
        "solved": first + later,
        "solved_first": first,
        "recognized_first": recognized,
        "number_right_first": max(first, int(recognized * (0.97 - (0.85 * part if forgets else 0.0)))),
    }


def _picture_episode(
    stage: str, arm: str, seed: int, step: int, split: str, index: int, solved: bool
) -> dict[str, Any]:
    cards = [["K", "5", "2", "4"], ["3", "3", "8", "8"], ["A", "Q", "6", "7"]][index % 3]
    chosen = get_split(split)
    look = Look(width=240, height=120)
    settings = chosen.settings(PlaySettings(modality="image", template="compact", max_attempts=3, look=look))
    suits = "HDDH" if chosen.hands.suits == "red" else "SCCS"
    hand = [rank + suit for rank, suit in zip(cards, suits, strict=True)]
    episode = make_episode(make_facts(hand, chosen.hands.rule, 24, settings, image_seed=index))
    facts = episode.facts
    numbers = list(episode.numbers)
    while not episode.done:
        right = solved and len(episode.attempts) == 1
        claim = cards if right or arm != "sft" or "visual" not in split else ["9", *cards[1:]]
        formula = solve(numbers)[0] if right else "+".join(map(str, numbers))
        episode.submit(json.dumps({"cards": claim, "number": numbers, "formula": f"{formula}=24"}))
    attempts = [{"outcome": a.verdict.outcome, "reward": a.verdict.reward} for a in episode.attempts]
    return {
        "stage": stage, "arm": arm, "seed": seed, "step": step, "split": split, "facts": facts,
        "messages": episode.messages(), "attempts": attempts, "solved": episode.solved,
    }  # fmt: skip


def _episode(
    stage: str, arm: str, seed: int, step: int, split: str, index: int, solved: bool
) -> dict[str, Any]:
    cards = [["K", "5", "2", "4"], ["3", "3", "8", "8"], ["A", "Q", "6", "7"]][index % 3]
    prompt = (
        "[synthetic] Combine the four numbers into a formula that equals 24. Every number is used "
        "exactly once; allowed are + - * / and parentheses.\n"
        f"Rule: J, Q and K count {'10' if split.startswith('id') else '11, 12 and 13'}.\n"
        f"Cards: {cards}\n"
        'Answer with an object: {"cards": [...], "number": [...], "formula": "..."}'
    )
    messages = [{"role": "user", "content": prompt}]
    attempts = []
    for attempt in range(2 if solved else 3):
        right = solved and attempt == 1
        formula = "(13-5)*(4-2)+8" if not right else "13+5+2+4"
        answer = json.dumps({"cards": cards, "number": [13, 5, 2, 4], "formula": f"{formula}=24"}, indent=1)
        messages.append({"role": "assistant", "content": answer})
        outcome = "correct" if right else ("wrong_numbers", "wrong_value", "unparsable")[attempt % 3]
        attempts.append({"outcome": outcome, "reward": 5.0 if right else -2.0})
        if not right:
            messages.append(
                {"role": "user", "content": "[synthetic] That uses <b>other numbers</b> & fails; try again."}
            )
    return {
        "stage": stage, "arm": arm, "seed": seed, "step": step, "split": split,
        "facts": {"task": "general_points", "cards": cards, "rule": "face_10", "target": 24},
        "messages": messages, "attempts": attempts, "solved": solved,
    }  # fmt: skip


def make_run(
    folder: Path,
    *,
    arms: Sequence[str] = ("sft", "rl"),
    seeds: Sequence[int] = (0,),
    rates: Sequence[float] = (5e-5,),
    points: int = 5,
    splits: Sequence[str] = SPLITS,
    episodes: int = 300,
    init: bool = True,
    tokens: bool = True,
    training: bool = True,
    sign: float = 1.0,
    divergence: bool = True,
    pictures: bool = False,
    kinds: Mapping[str, str] | None = None,
    starts: Mapping[str, str] | None = None,
    epochs: int = 4,
    rl_tokens: float = 1.8e6,
    critic: bool = True,
) -> Path:
    """Write a synthetic run folder and return it.

    Args:
        pictures: Whether the cards are shown as images; the splits are then those of `READ`.
        kinds: Arm to "sft" or "rl" where its name does not say it.
        starts: Arm to ``<stage>@<step>`` where it does not start from the init.
        critic: True if RL has one.
        epochs: Epochs of actor and critic over each of RL's sequences.
        rl_tokens: Tokens that RL trains on, every epoch counted; with 2.2e6 it reaches SFT's last checkpoint.
        divergence: Whether the records of `id` have that of the arms.
        sign: Factor on the invented changes; 0 gives arms that stay at the start.
    """
    rng, far = np.random.default_rng(7), np.random.default_rng(11)
    kinds, starts = kinds or {}, starts or {}
    records, samples, stages = [], [], []
    init_step = 100
    task, name = ("gp_vl", "fig8_recognition") if pictures else ("gp_l", "fig6_gp_l")

    def evaluate(stage: str, arm: str, seed: int, lr: float | None, step: int, part: float) -> None:
        for number, split in enumerate(splits):
            pull = 1.0 + 0.5 * (rates.index(lr) if lr in rates else 0)
            drift = sign * DRIFT.get(kinds.get(arm, arm), {}).get(split, 0.0) * part**0.7 * pull
            p = float(np.clip(START.get(split, 0.5) + drift, 0.003, 0.99))
            solved = int(rng.binomial(episodes, p))
            seen = _picture_counts(rng, split, arm, part, episodes) if pictures else {}
            solved = seen.get("solved", solved)
            outcomes = _outcomes(solved, episodes, split, arm)
            if pictures:
                outcomes["cards_not_recognized"] = 4 * (episodes - seen["recognized_first"])
            records.append({
                "stage": stage, "arm": arm, "seed": seed, "lr": lr, "step": step, "split": split,
                "data_source": f"{task}/{split}", "episodes": episodes, "solved": solved,
                "attempts_mean": 3.1, "outcomes": outcomes, "prompt_tokens": 9000,
                "generated_tokens": 40000, "feedback_tokens": 5000, "wall_s": 6.5, "engine": "hf",
                "temperature": 0.2, **seen,
            })  # fmt: skip
            if divergence and split == "id" and arm not in ("init", "base"):
                start = starts.get(arm, f"init@{init_step}")
                records[-1]["divergence"] = _divergence(far, kinds.get(arm, arm), part * pull, start)
            for index in range(3):
                solved_here = bool((index + number + (arm == "rl")) % 2)
                played = _picture_episode if pictures else _episode
                samples.append(played(stage, arm, seed, step, split, index, solved_here))

    stages.append(
        {
            "name": "data",
            "kind": "data",
            "arm": None,
            "seed": 0,
            "lr": None,
            "status": "done",
            "wall_s": 4.2,
            "peak_rss_mb": 310,
        }
    )
    stages.append(
        {
            "name": "base",
            "kind": "sft",
            "arm": "base",
            "seed": 0,
            "lr": 1e-3,
            "status": "done",
            "wall_s": 455.0,
            "peak_rss_mb": 1500,
        }
    )
    if init:
        stages.append(
            {
                "name": "init",
                "kind": "sft",
                "arm": "init",
                "seed": 0,
                "lr": 3e-4,
                "status": "done",
                "wall_s": 61.0,
                "peak_rss_mb": 1480,
            }
        )
        evaluate("init", "init", 0, 3e-4, init_step, 0.0)
    if tokens:
        _write_lines(
            folder / "stages" / "init" / "tokens.jsonl",
            [
                {
                    "step": init_step,
                    "trained_tokens": 6e5,
                    "generated_tokens": 0,
                    "prefill_tokens": 0,
                    "forward_tokens": 0,
                }
            ],
        )
    for arm in arms:
        for lr in rates:
            for seed in seeds:
                stage = f"{arm}-lr{lr:g}-s{seed}" if len(rates) > 1 else f"{arm}-s{seed}"
                kind = kinds.get(arm, arm)
                wall = 240.0 if kind == "sft" else 390.0
                stages.append(
                    {
                        "name": stage,
                        "kind": kind,
                        "arm": arm,
                        "seed": seed,
                        "lr": lr,
                        "status": "done",
                        "wall_s": wall + seed,
                        "peak_rss_mb": 1600 if kind == "sft" else 4198,
                        "start": starts.get(arm),
                    }
                )
                lines = []
                for point in range(1, points + 1):
                    step = point * (50 if kind == "sft" else 4)
                    evaluate(stage, arm, seed, lr, step, point / points)
                    trained = point / points * (5e6 if kind == "sft" else rl_tokens)
                    sequence = trained / (epochs if kind == "rl" else 1)
                    rolled_out = sequence if kind == "rl" else 0
                    lines.append({
                        "step": step, "trained_tokens": trained, "sequence_tokens": sequence,
                        "generated_tokens": 0.4 * rolled_out, "prefill_tokens": 0.6 * rolled_out,
                        "forward_tokens": 2 * rolled_out,
                        "trained_critic_tokens": epochs * rolled_out * critic,
                        "forward_critic_tokens": rolled_out * critic,
                    })  # fmt: skip
                if tokens:
                    _write_lines(folder / "stages" / stage / "tokens.jsonl", lines)
                if training:
                    _write_lines(folder / "stages" / stage / "metrics.jsonl", _training(rng, kind, points))
    if training:
        decay = [{"step": s, "data": {"train/loss": 3 * 0.985**s + 0.2}} for s in range(1, 200)]
        _write_lines(folder / "stages" / "base" / "metrics.jsonl", decay)
    _write_lines(folder / "eval" / "records.jsonl", records)
    _write_lines(folder / "eval" / "episodes.jsonl", samples)
    state = {
        "recipe": name, "scale": "synthetic", "commit": "0123456789abcdef0123456789abcdef01234567",
        "hardware": {"cpu": "Synthetic CPU", "cores": 2, "memory_gb": 23, "gpu": None},
        "model": {"parameters": PARAMETERS, "name": "synthetic-llama-1m"}, "stages": stages,
        "pretrained_on_both_rules": True,
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    recipe: dict[str, Any] = {
        "name": name,
        "expected": [{
            "source": "arXiv 2501.17161 Fig 6", "metric": "success", "split": "rule_ood",
            "sft": 3.4, "init": 11.5, "rl": 15.0,
        }],
    }  # fmt: skip
    if pictures:
        recipe["expected"] = PICTURES_EXPECTED
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def rewrite(run_dir: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Pass every record of a run through ``change`` (None drops it)."""
    path = run_dir / "eval" / "records.jsonl"
    records = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records if record))


def _training(rng: np.random.Generator, arm: str, points: int) -> list[dict[str, Any]]:
    lines = []
    if arm == "sft":
        for step in range(1, points * 50 + 1):
            data = {"train/loss": 0.5 * 0.99**step + 0.3 + float(rng.normal(0, 0.01)), "train/lr": 5e-5}
            if step % 25 == 0:
                data["val/loss"] = 0.35 + 0.1 * 0.99**step
            lines.append({"step": step, "data": data})
        return lines
    for step in range(1, points * 4 + 1):
        noise = float(rng.normal(0, 0.05))
        data = {
            "critic/score/mean": -2 + 0.15 * step + noise,
            "episode/solved/mean": min(0.95, 0.5 + 0.02 * step),
            "actor/kl_to_start": 0.004 * step,
            "actor/entropy": 0.4 * 0.98**step,
            "actor/ppo_kl": 0.001,
            "actor/pg_clipfrac": 0.05 + noise / 10,
            "actor/pg_clipfrac_first": 0.0,
            "mismatch/logp_abs_mean": 0.002,
            "mismatch/logp_abs_max": 0.01 * step,
            "turns/staleness_mean": 0.5,
            "critic/vf_loss": 2 * 0.9**step,
            "training/global_step": step,
        }
        lines.append({"step": step, "data": data})
    return lines
