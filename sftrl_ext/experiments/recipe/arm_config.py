"""Schema of one arm of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.envs.task_config import REQUIRED


@dataclass
class ArmConfig:
    """One arm of a recipe; keys that are left out are those of the budget."""

    kind: str = REQUIRED
    """``sft`` or ``rl``."""
    title: str | None = None
    """Its name in figures and tables; null: made from its name."""
    start: str = "init"
    """``init``, ``base`` (the model before the init), or a checkpoint of another arm: ``sft@last``,
    ``sft@80`` (step 80, which must be a saved one), ``sft@50%`` (the saved step nearest to half its way), or
    ``sft@lowest:rule_ood`` (the saved step with the lowest measured success on an evaluated split; per step
    where the task is routes)."""
    seeds: list[int] = field(default_factory=list)
    """Empty: those of the sweep."""
    lrs: list[float] = field(default_factory=list)
    """Learning rates, each a run of its own; empty: the budget's."""
    lr_times: list[float] = field(default_factory=list)
    """The same as multiples of the budget's rate, so that they fit every scale."""
    budget: dict[str, Any] = field(default_factory=dict)
    """Overrides of ``budget.sft`` or ``budget.rl`` for this arm: ``algorithm``, ``updates``, .."""
    times: dict[str, float] = field(default_factory=dict)
    """Numbers of that budget that are multiplied; whole ones are rounded."""
    splits: list[str] = field(default_factory=list)
    """The splits it trains on, mixed evenly; empty: the task's ``train_split``."""
    max_attempts: int | None = None
    """Attempts of an episode while training. Evaluation gives every arm the task's."""
    freeze: str | None = None
    """Part of a vision-language model it leaves as it is, as in ``model.freeze``; null: what that says."""
    rows: str = "expert"
    """SFT: ``expert`` answers, ``reasoned`` ones that show their working before the formula (cards only),
    ``suboptimal`` dialogues with failed attempts and feedback before the answer, or the ``own`` correct
    answers of the model it starts from, which answers ``budget.rows`` prompts once each. RL: all prompts
    (``expert``), or ``learnable`` ones, which the model it starts from solves sometimes, neither never nor
    always. SFT and RL: a ``.parquet`` file of rows; SFT: the authors' ``data.json``. The first
    ``budget.rows`` of a file are read; a shorter one is repeated, as are own answers and learnable
    prompts."""
    solutions: str | None = None
    """SFT, cards: which solution an expert row shows, as in ``task.solutions``; null: what that says."""
    replay: float = 0.0
    """SFT: share of its expert rows that are rows of pre-training (``task.pretrain_splits``)."""
    loss: str = "nll"
    """SFT: the loss; one of `sftrl_ext.training.engine_settings.LOSSES`."""
    kl_coef: float | None = None
    """SFT: weight of the divergence from the start model in the losses ``kl`` and ``dft_kl``; null: 0.1."""
