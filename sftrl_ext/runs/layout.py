"""Paths of the files and folders of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOKENS_FILE = "sftrl_tokens.json"
"""Token counts up to an RL checkpoint, in its folder, so that a resumed run continues counting."""


@dataclass(frozen=True)
class RunLayout:
    """The folders and files of one run.

    Attributes:
        root: The run folder.
    """

    root: Path

    @property
    def recipe(self) -> Path:
        """The composed recipe; a resumed run reads this, not the original file."""
        return self.root / "recipe.yaml"

    @property
    def begun_recipe(self) -> Path:
        """The recipe with which a run began whose recipe was changed since."""
        return self.root / "recipe_begun.yaml"

    @property
    def lock(self) -> Path:
        """Lock of the process that runs the run."""
        return self.root / ".lock"

    @property
    def state_lock(self) -> Path:
        """Lock of the process that writes the state, where several run stages of the run."""
        return self.root / ".state.lock"

    def stage_lock(self, name: str) -> Path:
        """Lock of the process that runs a stage."""
        return self.root / ".locks" / name

    def replaced(self, time: str) -> Path:
        """Earlier outputs of stages that were done again at a time."""
        return self.root / "replaced" / time

    @property
    def state(self) -> Path:
        """Progress of the run: finished stages, their machine and cost."""
        return self.root / "state.json"

    @property
    def data(self) -> Path:
        """The parquet files."""
        return self.root / "data"

    @property
    def origins(self) -> Path:
        """The files of the user's that parquet files were made of, with their digests."""
        return self.data / "origins.json"

    def rows(self, name: str) -> Path:
        """The training rows of a stage or arm."""
        return self.data / f"{name}.parquet"

    def eval_rows(self, split: str) -> Path:
        """The evaluation rows of a split."""
        return self.data / f"eval-{split}.parquet"

    @property
    def cities(self) -> Path:
        """The folder of synthetic cities, and of other files that a task makes for its rows."""
        return self.data / "cities"

    @property
    def start_model(self) -> Path:
        """The Hugging Face folder the first training stage starts from."""
        return self.root / "start_model"

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.root / "stages" / name

    def checkpoints(self, name: str) -> Path:
        """Checkpoints that a training stage saved."""
        return self.stage(name) / "checkpoints"

    def log(self, name: str) -> Path:
        """The output of a stage's command."""
        return self.stage(name) / "log.txt"

    def progress(self, name: str) -> Path:
        """Progress of the current launch of a stage that logs no steps."""
        return self.stage(name) / "progress.json"

    def metrics(self, name: str) -> Path:
        """One line per step, over all launches of the stage."""
        return self.stage(name) / "metrics.jsonl"

    def tokens(self, name: str) -> Path:
        """Tokens and compute up to each saved step."""
        return self.stage(name) / "tokens.jsonl"

    @property
    def evaluation(self) -> Path:
        """Records, sample episodes and played tokens."""
        return self.root / "eval"

    @property
    def records(self) -> Path:
        """One line per evaluated checkpoint and split."""
        return self.root / "eval" / "records.jsonl"

    @property
    def episodes(self) -> Path:
        """A few evaluated episodes, word for word."""
        return self.root / "eval" / "episodes.jsonl"

    def played(self, checkpoint: str) -> Path:
        """Tokens of the episodes of one checkpoint (``<stage>@<step>``) that divergence is measured on."""
        return self.root / "eval" / "played" / f"{checkpoint}.json"

    @property
    def report(self) -> Path:
        """Figures, tables and the two report pages."""
        return self.root / "report"
