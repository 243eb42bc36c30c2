"""Run folders of shipped recipes with synthetic results, for the paper's figures. Nothing here was trained.

Recipes are composed at scale `node`, so arms, learning rates, steps, splits and episodes are those of a real
run; plan, state, token counts and records are written by the functions that write them in a run. Only the
successes are drawn at random, from `Story`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sftrl_ext.envs.base import Attempt, Step, Verdict
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay, make_record
from sftrl_ext.experiments.evaluation.targets import EvalSet, Target
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.arms import ArmRun, arm_runs, needs_init
from sftrl_ext.experiments.recipe.recipe_files import load_recipe, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.files import write_text
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.checkpoints import LATEST
from sftrl_ext.runs.compute import PaperFormula, buffer_ratio
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import append_record
from sftrl_ext.runs.state import RunState, StageState
from sftrl_ext.runs.token_files import write_tokens

PARAMETERS = 10_670_000_000
SEQUENCE_TOKENS = 2048 * 700 * 20
"""Tokens of the buffers of an RL arm."""
Levels = Mapping[str, float]
"""Split to a success rate (per response on routes), 0 to 1."""


@dataclass(frozen=True)
class Story:
    """Synthetic results of a run.

    Attributes:
        start: Levels of the init, or of the base where the run has no init.
        ends: Arm to its levels at the end of training.
        rate_pull: Factor on an arm's change for its i-th learning rate.
        read_start, read_ends: The same for recognition; empty for text.
        routes: Points per route; 0 for cards.
    """

    start: Levels
    ends: Mapping[str, Levels]
    rate_pull: Callable[[int], float] = lambda _: 1.0
    read_start: Levels = field(default_factory=dict)
    read_ends: Mapping[str, Levels] = field(default_factory=dict)
    routes: int = 0


STORIES: dict[str, Story] = {
    "fig6_gp_l": Story(
        {"id": 0.40, "rule_ood": 0.115},
        {"sft": {"id": 0.98, "rule_ood": 0.03}, "rl": {"id": 0.55, "rule_ood": 0.15}},
    ),
    "fig6_virl_l": Story(
        {"id": 0.85, "rule_ood": 0.81},
        {"sft": {"id": 0.98, "rule_ood": 0.013}, "rl": {"id": 0.95, "rule_ood": 0.92}},
        routes=9,
    ),
    "fig6_gp_vl": Story(
        {"id": 0.32, "rule_ood": 0.112, "visual_ood": 0.24},
        {
            "sft": {"id": 0.22, "rule_ood": 0.055, "visual_ood": 0.137},
            "rl": {"id": 0.50, "rule_ood": 0.145, "visual_ood": 0.41},
        },
        read_start={"id": 0.62, "rule_ood": 0.58, "visual_ood": 0.55},
        read_ends={
            "sft": {"id": 0.48, "rule_ood": 0.42, "visual_ood": 0.36},
            "rl": {"id": 0.80, "rule_ood": 0.72, "visual_ood": 0.74},
        },
    ),
    "fig6_virl_vl": Story(
        {"id": 0.75, "rule_ood": 0.357, "visual_ood": 0.575},
        {
            "sft": {"id": 0.90, "rule_ood": 0.025, "visual_ood": 0.535},
            "rl": {"id": 0.90, "rule_ood": 0.42, "visual_ood": 0.834},
        },
        routes=9,
    ),
    "fig9_rl_without_init": Story({"id": 0.002, "rule_ood": 0.002}, {"rl": {"id": 0.003, "rule_ood": 0.002}}),
    "fig10_attempts": Story(
        {"id": 0.40, "rule_ood": 0.115},
        {
            "attempts_1": {"id": 0.46, "rule_ood": 0.120},
            "attempts_3": {"id": 0.50, "rule_ood": 0.137},
            "attempts_5": {"id": 0.55, "rule_ood": 0.145},
            "attempts_10": {"id": 0.58, "rule_ood": 0.175},
        },
    ),
    "fig15_suboptimal_sft": Story(
        {"id": 0.40, "rule_ood": 0.115},
        {"sft": {"id": 0.98, "rule_ood": 0.03}, "sft_suboptimal": {"id": 0.90, "rule_ood": 0.04}},
    ),
    "fig16_sft_ablation": Story(
        {"id": 0.15},
        {"all": {"id": 0.24}, "frozen_vision": {"id": 0.22}, "frozen_adapter": {"id": 0.20}},
        rate_pull=lambda index: (0.3, 0.8, 1.0, -0.6, -1.4)[index],
    ),
    "fig17_rl_rates": Story({"id": 0.32}, {"rl": {"id": 0.45}}, rate_pull=lambda index: (1.0, 1.3)[index]),
    "fig19_overfit_init": Story(
        {"id": 0.75, "rule_ood": 0.357},
        {"sft": {"id": 0.90, "rule_ood": 0.006}, "rl_after": {"id": 0.91, "rule_ood": 0.006}},
        routes=9,
    ),
}


def paper_run(folder: Path, name: str, *, points: int = 20, overrides: Sequence[str] = ()) -> Path:
    """Write the run folder of a recipe with synthetic results and return it.

    Args:
        folder: The run folder.
        name: Name of the recipe, a key of `STORIES`.
        points: Evaluated checkpoints of each arm at most.
        overrides: Hydra overrides.
    """
    story = STORIES[name]
    # The paper's numbers are of the authors' routes, which a recipe names; nothing here reads them.
    given = (
        [f"task.routes.home.path={folder}", f"task.routes.away=[{{path: {folder}}}]"] if story.routes else []
    )
    recipe, layout = load_recipe(name, "node", [*given, *overrides]), RunLayout(folder)
    write_text(layout.recipe, to_yaml(recipe))
    starts = {run.stage: f"{run.start.stage}@{run.start.step}" for run in arm_runs(recipe) if run.start.stage}
    stages = [
        StageState(s.name, s.kind, s.arm, s.seed, s.lr, starts.get(s.name, s.start), "done")
        for s in make_plan(recipe, folder)
    ]
    model = {"name": recipe.model.name, "parameters": PARAMETERS, "critic_parameters": PARAMETERS}
    RunState(recipe.name, "node", recipe.title, "synthetic", model=model, stages=stages).save(layout.state)
    _Writer(recipe, layout, story).write(points)
    return folder


class _Writer:
    def __init__(self, recipe: Recipe, layout: RunLayout, story: Story) -> None:
        self.recipe, self.layout, self.story = recipe, layout, story
        self.rng = np.random.default_rng(3)
        self.ends: dict[str, Levels] = {}
        """Stage to its levels at the end, which arms that start there begin with."""

    def write(self, points: int) -> None:
        recipe = self.recipe
        self.layout.records.parent.mkdir(parents=True, exist_ok=True)
        if needs_init(recipe):
            self.tokens("init", "sft", [recipe.budget.init.steps])
            self.evaluate(
                "init", "init", 0.0, recipe.budget.init.steps, self.story.start, self.story.read_start
            )
        else:
            self.evaluate("model", "base", 0.0, 0, self.story.start, self.story.read_start)
        index: dict[str, int] = {}
        for run in arm_runs(recipe):
            self.arm(run, index.setdefault(run.arm, 0), points)
            index[run.arm] += 1

    def arm(self, run: ArmRun, rate: int, points: int) -> None:
        story, steps = self.story, self.steps(run, points)
        self.tokens(run.stage, run.config.kind, steps)
        start = self.ends.get(run.start.stage or "", story.start)
        pull = story.rate_pull(rate)
        read = story.read_ends.get(run.arm, {})
        for step in steps:
            part = (step / steps[-1]) ** 0.6
            now = {s: start[s] + pull * part * (end - start[s]) for s, end in story.ends[run.arm].items()}
            seen = {s: story.read_start[s] + part * (end - story.read_start[s]) for s, end in read.items()}
            self.evaluate(run.stage, run.arm, run.budget.lr, step, now, seen)
        self.ends[run.stage] = now

    def steps(self, run: ArmRun, points: int) -> list[int]:
        """Steps that are evaluated: evenly spread, the last among them, as if each were saved."""
        count = min(points, run.total)
        return [round(run.total * (index + 1) / count) for index in range(count)]

    def tokens(self, stage: str, kind: str, steps: Sequence[int]) -> None:
        """Write logged token counts, saved steps, and from them ``tokens.jsonl``."""
        before, lines = 0, []
        for step in steps:
            count, before = step - before, step
            # SFT trains 9 tokens for each of RL's buffers: both end at the same counted compute.
            sequence = SEQUENCE_TOKENS * count / steps[-1]
            trained = 128 * 260 * count if stage == "init" else 9 * sequence
            lines.append(
                {"train/global_tokens": trained}
                if kind == "sft"
                else {
                    "tokens/step_trained": 4 * sequence,
                    "tokens/step_sequence": sequence,
                    "tokens/step_generated": 0.15 * sequence,
                    "tokens/step_prefill": 0.85 * sequence,
                    "tokens/step_forward": sequence,
                    "tokens/step_trained_critic": 4 * sequence,
                    "tokens/step_forward_critic": sequence,
                }
            )
        text = "".join(
            json.dumps({"step": s, "data": line}) + "\n" for s, line in zip(steps, lines, strict=True)
        )
        write_text(self.layout.metrics(stage), text)
        checkpoints = self.layout.checkpoints(stage)
        for step in steps:
            (checkpoints / f"global_step_{step}").mkdir(parents=True)
        write_text(checkpoints / LATEST, str(steps[-1]))
        paper = PaperFormula(buffer_ratio(self.recipe.task.kind))
        write_tokens(self.layout, stage, kind, PARAMETERS, critic_parameters=PARAMETERS, paper=paper)

    def evaluate(self, stage: str, arm: str, lr: float, step: int, levels: Levels, read: Levels) -> None:
        play, target = EvalPlay.of(self.recipe), Target(stage, arm, 0, lr, step, Path())
        evaluation = self.recipe.budget.eval
        for split, level in levels.items():
            count = evaluation.hands_of.get(split, evaluation.hands)
            facts = {"task": self.recipe.task.kind, "modality": self.recipe.task.modality}
            chosen = EvalSet(split, f"{self.recipe.task.name}/{split}", [facts] * count)
            played = [self.episode(float(np.clip(level, 0.0, 1.0)), read.get(split)) for _ in range(count)]
            record = make_record(target, play, chosen, played, 1.0, "synthetic")
            append_record(self.layout, record)

    def episode(self, level: float, read: float | None) -> PlayedEpisode:
        if self.story.routes:
            return self._route(level)
        seen = read is None or self.rng.random() < read
        solved = bool(seen and self.rng.random() < level / (1.0 if read is None else max(read, level)))
        verdict = Verdict("correct" if solved else "wrong_value", 0.0, "", {"recognized": seen})
        return PlayedEpisode(steps=[_step(verdict)], solved=solved)

    def _route(self, level: float) -> PlayedEpisode:
        """Two attempts per point; the second failure ends the route."""
        right = responses = 0
        solved = True
        for _ in range(self.story.routes):
            tries = 1 if self.rng.random() < level else 2
            responses += tries
            solved = tries == 1 or self.rng.random() < level
            right += solved
            if not solved:
                break
        return PlayedEpisode(solved=solved, metrics={"correct_actions": right, "responses": responses})


def _step(verdict: Verdict) -> Step:
    return Step(Attempt("", verdict), verdict.reward, verdict.correct, not verdict.correct, None)
