"""Lengths of a task's prompts, answers and episodes: inputs of the planner, printed as its assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftrl_ext.experiments.planner.architectures import Architecture

if TYPE_CHECKING:
    from sftrl_ext.experiments.arm_config import ArmConfig
    from sftrl_ext.experiments.recipe import Recipe


@dataclass(frozen=True)
class Workload:
    """Average lengths in tokens; an image counts as the tokens it takes in the language model.

    Attributes:
        prompt: First prompt of a row of RL, image included.
        answer: One answer of the model.
        feedback: Feedback after a wrong answer, with the chat template around it.
        turns: Answers of one row of RL.
        rows: Rows of RL (prompts that are built anew) of one episode: points of a route.
        attempts: Most answers of a row.
        images: Images of a row.
        patches: Patches of one image.
        pixel_values: Numbers that a processor makes of one image.
        sft_row: Tokens of a row of SFT.
        sft_extra: Tokens that its longest rows have beyond that, the prompt's spread aside.
        spread: Longest prompt over the average one, without its image: the history of a route grows.
        image_tokens: Tokens of a prompt's images.
    """

    prompt: float
    answer: float
    feedback: float
    turns: float
    rows: float
    attempts: int
    images: int = 0
    patches: int = 0
    pixel_values: int = 0
    sft_row: float = 0
    sft_extra: float = 0
    spread: float = 1.1
    image_tokens: int = 0

    @property
    def row(self) -> float:
        """Tokens of a row of RL."""
        return self.prompt + self.turns * self.answer + (self.turns - 1) * self.feedback

    @property
    def longest_row(self) -> float:
        """Tokens of a row that uses every attempt, with answers half as long again."""
        return self._longest(self.prompt) + self.attempts * (1.5 * self.answer + self.feedback)

    @property
    def longest_sft_row(self) -> float:
        """Tokens of the longest rows of SFT."""
        return self._longest(self.prompt) + self.sft_row - self.prompt + self.sft_extra

    def _longest(self, tokens: float) -> float:
        return (tokens - self.image_tokens) * self.spread + self.image_tokens

    @property
    def responses(self) -> float:
        """Answers of one episode."""
        return self.rows * self.turns


_TEXT = {
    # template -> (prompt, answer, feedback) of cards, of routes. Of `default`: 147 words and signs of a
    # prompt, 45 of an answer, counted over training rows; of `compact`: the tokens that laptop runs counted
    # (tokens.jsonl of fig6_gp_l: 54 a row of SFT, 97 an episode).
    ("general_points", "default"): (170.0, 55.0, 35.0),
    ("virl", "default"): (480.0, 65.0, 35.0),
    ("general_points", "compact"): (36.0, 18.0, 16.0),
    ("virl", "compact"): (45.0, 15.0, 7.0),
}
_REASONED = 31.0
"""Tokens that working adds to an answer of cards, counted over rows of four cards."""
_POINTS = {5: 15.0, 2: 5.0}
"""Points of a route by ``routes.points_per_leg``: the paper's 2048 responses are about 128 routes; laptop
routes of two or three legs have five."""
_WALKED = {"text": 3.4, "image": 4.5}
"""Points of those five that are reached, by modality: a failed point ends the route. Of laptop runs."""
_RETRIES = 0.5
"""Share of an episode's further attempts that is taken, of cards: the mean of one attempt and the most."""
_COMPACT_RETRIES = {"text": 0.3, "image": 0.53}
"""The same, counted in laptop runs: an episode of `fig6_gp_l` has 95 tokens, one of `fig6_gp_vl` 150."""


def workload_of(
    recipe: Recipe, architecture: Architecture, arm: ArmConfig | None = None, dialogues: bool = False
) -> Workload:
    """Average lengths of an arm's rows.

    Args:
        recipe: The recipe.
        architecture: Of its model; an image's tokens are those of its encoder.
        arm: The arm; None for the stages before the arms.
        dialogues: Rows of SFT are dialogues of pre-training, with none to the most failed attempts; those
            of an arm have at least one.

    An episode of cards is assumed to take half of its further attempts, and that of a small model the share
    that was counted. At a point of a route it takes one answer and a tenth of the further ones.
    """
    task = recipe.task
    template = task.template if (task.kind, task.template) in _TEXT else "default"
    prompt, answer, feedback = _TEXT[task.kind, template]
    attempts = (arm.max_attempts if arm else None) or task.max_attempts
    virl = task.kind == "virl"
    images, patches, numbers, seen = 0, 0, 0, 0
    if task.modality == "image" and architecture.vision is not None:
        vision = architecture.vision
        width, height = _image_size(recipe)
        images, patches = 1, vision.patches(width, height)
        numbers = patches * 3 * vision.temporal * vision.patch**2
        seen = vision.tokens(width, height)
        prompt += seen
    compact = template == "compact"
    retries = _COMPACT_RETRIES[task.modality] if compact else _RETRIES
    points = _POINTS.get(task.routes.points_per_leg, 15.0)
    if compact and points == _POINTS[2]:
        points = _WALKED[task.modality]
    reasoned = arm is not None and arm.rows == "reasoned"
    rl_answer = answer
    sft = prompt + answer + (_REASONED if reasoned else 0)
    extra = 0.0
    if dialogues or (arm is not None and arm.rows == "suboptimal"):
        most, fewest = attempts - 1, 0 if dialogues else 1
        failed = (fewest + most) / 2 * (answer + feedback)
        sft, extra = sft + failed, most * (answer + feedback) - failed
    return Workload(
        prompt=prompt,
        answer=rl_answer,
        feedback=feedback,
        turns=1 + (0.1 if virl else retries) * (attempts - 1),
        rows=points if virl else 1.0,
        attempts=attempts,
        images=images,
        patches=patches,
        pixel_values=numbers,
        sft_row=sft,
        sft_extra=extra,
        spread=1.7 if virl else 1.1,
        image_tokens=seen,
    )


def _image_size(recipe: Recipe) -> tuple[int, int]:
    if recipe.task.kind == "virl":
        return recipe.task.routes.image_size, recipe.task.routes.image_size
    look = recipe.task.look
    return int(look.get("width", 1200)), int(look.get("height", 1200))
