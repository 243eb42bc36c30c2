"""Lengths of a task's prompts, answers and episodes: inputs of the planner, printed as its assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftrl_ext.envs import TASKS
from sftrl_ext.experiments.planner.architectures import Architecture

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.arm_config import ArmConfig
    from sftrl_ext.experiments.recipe.schema import Recipe


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


def workload_of(
    recipe: Recipe, architecture: Architecture, arm: ArmConfig | None = None, dialogues: float = 0.0
) -> Workload:
    """Average lengths of an arm's rows.

    Args:
        recipe: The recipe.
        architecture: Of its model; an image's tokens are those of its encoder.
        arm: The arm; None for the stages before the arms.
        dialogues: Share of a stage's rows that are dialogues of pre-training, with none to the most failed
            attempts; an arm's on ``suboptimal`` rows, with at least one, all are.

    The lengths of the texts are those of `TaskSpec.lengths`.
    """
    task = recipe.task
    spec = TASKS[task.kind]
    lengths = spec.lengths(task)
    prompt, answer, feedback = lengths.prompt, lengths.answer, lengths.feedback
    attempts = (arm.max_attempts if arm else None) or task.max_attempts
    images, patches, numbers, seen = 0, 0, 0, 0
    if task.modality == "image" and architecture.vision is not None:
        vision = architecture.vision
        width, height = spec.image_size(task)
        images, patches = 1, vision.patches(width, height)
        numbers = patches * 3 * vision.temporal * vision.patch**2
        seen = vision.tokens(width, height)
        prompt += seen
    answer += lengths.working if task.working else 0
    reasoned = arm is not None and arm.rows == "reasoned" and not task.working
    sft = prompt + answer + (lengths.working if reasoned else 0)
    extra = 0.0
    if arm is not None and arm.rows == "suboptimal":
        dialogues = 1.0
    if dialogues:
        most, fewest = attempts - 1, 0 if arm is None else 1
        # The number of failed attempts is drawn uniformly; ``extra`` leads from the rows' mean to the most.
        failed = dialogues * (fewest + most) / 2 * (answer + feedback)
        sft, extra = sft + failed, most * (answer + feedback) - failed
    return Workload(
        prompt=prompt,
        answer=answer,
        feedback=feedback,
        turns=1 + lengths.retries * (attempts - 1),
        rows=lengths.prompts,
        attempts=attempts,
        images=images,
        patches=patches,
        pixel_values=numbers,
        sft_row=sft,
        sft_extra=extra,
        spread=lengths.spread,
        image_tokens=seen,
    )
