"""The paper's hyper-parameters (arXiv 2501.17161, appendix C) as keys of verl's config, and our deviations.

`SETTINGS` is what the stages of a recipe must have at scale ``node``; `DEVIATIONS` is what they have
otherwise, in every recipe; `varied_settings` is what one recipe changes on purpose. `recipes/README.md`
prints the last two, and `mismatches` holds a composed config against all three.

Sources: "C": appendix C of the paper; "code": the configs and scripts the authors published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sftrl_ext.experiments.recipe import Recipe

PAPER = "2501.17161"
PAPER_SCALES = ("node", "cluster")
"""Scales with the paper's hyper-parameters."""

LANGUAGE, VISION = ("gp_l", "virl_l"), ("gp_vl", "virl_vl")
CARDS, ROUTES = ("gp_l", "gp_vl"), ("virl_l", "virl_vl")
TASKS = (*CARDS, *ROUTES)


@dataclass(frozen=True)
class Setting:
    """A value of the paper that a stage must have.

    Attributes:
        stage: ``init``, ``sft`` (the arms trained by SFT) or ``rl``; several with a space between.
        key: Key of verl's config, or a name of `derived_values`.
        value: The value.
        source: Where it is from.
        varied_by: Keys of the budget by which an arm changes it.
        tasks: Tasks it holds for.
    """

    stage: str
    key: str
    value: Any
    source: str
    varied_by: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASKS


@dataclass(frozen=True)
class Deviation:
    """A choice of ours where the paper has another, or none.

    Attributes:
        stage: As in `Setting`.
        what: What is chosen, in words.
        paper: The paper's choice, in words.
        ours: Our choice, in words.
        reason: Why.
        keys: Keys of verl's config with the values that make it ours; empty where no key does.
        tasks: Tasks it holds for.
        varied_by: Keys of the budget by which an arm changes it.
    """

    stage: str
    what: str
    paper: str
    ours: str
    reason: str
    keys: tuple[tuple[str, Any], ...] = ()
    tasks: tuple[str, ...] = TASKS
    varied_by: tuple[str, ...] = ()


def _actor_and_critic(key: str, value: Any, source: str, *varied_by: str) -> tuple[Setting, Setting]:
    """The same value for both: in the paper they are one model with one optimizer."""
    return (
        Setting("rl", f"actor_rollout_ref.actor.{key}", value, source, varied_by),
        Setting("rl", f"critic.{key}", value, source, varied_by),
    )


SETTINGS: tuple[Setting, ...] = (
    Setting("init sft", "data.train_batch_size", 128, "C", ("batch_size",)),
    Setting("init sft", "optim.optimizer", "AdamW", "C"),
    Setting("init sft", "optim.betas", [0.9, 0.98], "C", ("betas",)),
    Setting("init sft", "optim.lr", 1e-6, "C", ("lr",), LANGUAGE),
    Setting("init sft", "optim.lr", 5e-7, "C", ("lr",), VISION),
    Setting("init sft", "optim.weight_decay", 0.0, "code"),
    Setting("init sft", "engine.dtype", "bfloat16", "C"),
    Setting("init sft", "data.custom_cls.name", "TurnSFTDataset", "C: loss on the answers only"),
    Setting("init", "trainer.total_training_steps", 400, "C", ("steps",), ("gp_l",)),
    Setting("init", "trainer.total_training_steps", 25, "C", ("steps",), ("virl_l",)),
    *_actor_and_critic("optim.lr", 1e-6, "C", "lr"),
    *_actor_and_critic("optim.betas", [0.9, 0.999], "code", "algorithm"),
    *_actor_and_critic("optim.override_optimizer_config.eps", 1e-7, "code", "algorithm"),
    *_actor_and_critic("optim.weight_decay", 0.0, "code", "algorithm"),
    *_actor_and_critic("optim.clip_grad", 1.0, "code: what takes effect", "algorithm"),
    *_actor_and_critic("ppo_epochs", 4, "C", "epochs"),
    *_actor_and_critic("shuffle", True, "code", "algorithm"),
    *_actor_and_critic("loss_agg_mode", "token-mean", "code: the mean over responses", "algorithm"),
    Setting("rl", "trainer.total_training_steps", 20, "C", ("updates",), CARDS),
    Setting("rl", "trainer.total_training_steps", 15, "C", ("updates",), ROUTES),
    Setting(
        "rl",
        "lr of the last update / lr",
        0.91358,
        "code: cosine over 100",
        ("lr", "warmup", "updates"),
        CARDS,
    ),
    Setting(
        "rl", "lr of the last update / lr", 0.20690, "code: cosine over 20", ("lr", "warmup"), ("virl_l",)
    ),
    Setting(
        "rl", "lr of the last update / lr", 0.21404, "code: cosine over 20", ("lr", "warmup"), ("virl_vl",)
    ),
    Setting("rl", "sftrl.responses", 2048, "C: 256 on each of 8 GPUs"),
    Setting("rl", "optimizer batches per epoch", 2, "code: batches of 1024", ("minibatches",)),
    Setting("rl", "actor_rollout_ref.rollout.n", 1, "code", ("group",)),
    Setting("rl", "sftrl.credit.estimator", "gae", "C", ("algorithm",)),
    Setting("rl", "sftrl.credit.gamma", 0.9, "code", ("algorithm",)),
    Setting("rl", "sftrl.credit.lam", 0.95, "code", ("algorithm",)),
    Setting("rl", "sftrl.credit.normalize", "whiten", "code", ("algorithm",)),
    Setting("rl", "actor_rollout_ref.actor.policy_loss.loss_mode", "turn_ratio", "code", ("algorithm",)),
    Setting("rl", "actor_rollout_ref.actor.clip_ratio", 0.1, "C", ("algorithm",)),
    Setting("rl", "actor_rollout_ref.actor.clip_ratio_low", 0.1, "C", ("algorithm",)),
    Setting("rl", "actor_rollout_ref.actor.clip_ratio_high", 0.1, "C", ("algorithm",)),
    Setting("rl", "critic.cliprange_value", 0.1, "C", ("algorithm",)),
    Setting("rl", "actor_rollout_ref.actor.kl_loss_coef", 0.0, "code"),
    Setting("rl", "algorithm.use_kl_in_reward", False, "code"),
    Setting("rl", "actor_rollout_ref.actor.entropy_coeff", 0.0, "code: what takes effect"),
    Setting("rl", "actor_rollout_ref.rollout.temperature", 0.2, "C", ("temperature",)),
    Setting("rl", "sftrl.rollout.max_turn_tokens", 512, "C", ("max_turn_tokens",)),
)
"""The paper's values; the learning rate of V-IRL-VL's RL is in `SETTING_OF_TASK`."""

SETTING_OF_TASK: Mapping[tuple[str, str], Any] = {
    ("virl_vl", "actor_rollout_ref.actor.optim.lr"): 1e-7,
    ("virl_vl", "critic.optim.lr"): 1e-7,
}
"""Values of one task that differ from those of `SETTINGS`."""

RATES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "fig9_rl_without_init": {"rl": (5e-7, 1e-6, 2e-6)},
    "fig16_sft_ablation": {
        "all": (1e-7, 5e-7, 1e-6, 1e-5, 1e-4),
        "frozen_vision": (1e-7, 1e-6),
        "frozen_adapter": (1e-7, 5e-7, 1e-6),
    },
    "fig17_rl_rates": {"rl": (1e-6, 2e-6)},
    "fig19_overfit_init": {"rl_after": (1e-7, 2e-7)},
}
"""Learning rates of the paper's figures that vary them: recipe, arm, rates."""

_EQUAL_ENDS = "ends where RL does on the axis of counted tokens, as `sftrl plan` shows"

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "init sft rl", "model", "Llama-3.2-11B-Vision-Instruct",
        "Llama-3.1-8B-Instruct for tasks in words, Qwen2.5-VL-7B-Instruct for images",
        "vLLM no longer serves the paper's; `model=vl/llama3_2_vision_11b` is it, on the transformers engine",
    ),
    Deviation(
        "init sft", "learning-rate schedule", "3 % warm-up, then a cosine (code)", "constant",
        "the paper names none; with a constant rate any checkpoint is the end of a shorter run",
        (("optim.num_cycles", 0.0), ("optim.lr_warmup_steps", 0)), varied_by=("schedule", "warmup_ratio"),
    ),
    Deviation(
        "init", "steps of the init", "not given", "400",
        "as GeneralPoints in words", (("trainer.total_training_steps", 400),), ("gp_vl",), ("steps",),
    ),
    Deviation(
        "init", "steps of the init", "not given", "25",
        "as V-IRL in words", (("trainer.total_training_steps", 25),), ("virl_vl",), ("steps",),
    ),
    Deviation(
        "sft", "steps of the SFT arm", "6250, one epoch of 800k rows", "1750", _EQUAL_ENDS,
        (("trainer.total_training_steps", 1750),), ("gp_l",), ("steps",),
    ),
    Deviation(
        "sft", "steps of the SFT arm", "not given", "1050", _EQUAL_ENDS,
        (("trainer.total_training_steps", 1050),), ("gp_vl",), ("steps",),
    ),
    Deviation(
        "sft", "steps of the SFT arm", "not given", "2000", _EQUAL_ENDS,
        (("trainer.total_training_steps", 2000),), ROUTES, ("steps",),
    ),
    Deviation(
        "sft", "start of the SFT arm", "one run of SFT, of which the init is a checkpoint",
        "a run of its own from the init, with a fresh optimizer and other rows",
        "both arms start alike, and the init is trained once for all of them",
    ),
    Deviation(
        "rl", "critic", "a value head on the policy's own body",
        "a second model, started from the policy's weights with a new head",
        "verl trains a critic as a model of its own; its loss does not reach the policy",
    ),
    Deviation(
        "rl", "value coefficient", "0.5 of half the squared error (code)", "half the squared error",
        "the critic has its own Adam, which a constant factor changes only where its gradient is clipped",
    ),
    Deviation(
        "rl", "responses of an update", "2048, the last episode of each GPU cut there",
        "at least 2048, of whole episodes", "a cut episode would be credited without its end",
    ),
    Deviation(
        "rl", "optimizer batch", "1024 responses (code)",
        "half of an update's rows, each an episode or a point of a route",
        "verl counts rows; the loss is the mean over the responses in them",
    ),
    Deviation(
        "rl", "end of an episode without success", "bootstraps from the next episode's value (code)",
        "bootstraps from nothing", "the value of another hand or route is no return of this one",
    ),
    Deviation(
        "rl", "normalized advantages", "over the 256 responses of each GPU (code)", "over the whole update",
        "the same on any number of GPUs",
    ),
    Deviation(
        "rl", "ratios above 10", "only the clipped loss counts (code)", "not treated apart",
        "a bad response that became ten times as likely is made less likely",
    ),
    Deviation(
        "rl", "divergence from the start model", "not measured", "measured with weight 0",
        "one forward pass more in an update, for the report",
        (("actor_rollout_ref.actor.use_kl_loss", True),),
    ),
    Deviation(
        "data", "prompts, answers, feedback", "its own", "ours, with the same fields",
        "the authors' are not shipped; a template file (`task.template`) states any to the byte",
    ),
    Deviation(
        "data", "rows of SFT", "about 800k released rows", "drawn, solved and written by the data stage",
        "as many as the steps need; an arm's `rows` takes the released file", tasks=CARDS,
    ),
    Deviation(
        "data", "draw of hands", "four of 52 cards without replacement; ranks drawn one by one (code)",
        "the code's (`task.draw=authors`); `task.draw=deck` deals without replacement",
        "the published numbers are the code's", tasks=CARDS,
    ),
    Deviation(
        "data", "hands of training and evaluation", "from one seed, so that they overlap (code)",
        "other draws of the same number sets, and a split `id_unseen` of sets that no training has",
        "success on sets trained on may be memory", tasks=CARDS,
    ),
    Deviation(
        "data", "routes", "1000 of New York, and the 18 of the V-IRL benchmark",
        "synthetic cities, unless `task.routes.home.path` and `away` name the authors' files",
        "their data are too large to ship", tasks=ROUTES,
    ),
    Deviation(
        "data", "routes of training and evaluation", "48 of the 1000 trained on",
        "the same, and a split `id_unseen` of routes that no training walks",
        "a tenth of the routes (`task.routes.holdout`) is kept for it", tasks=ROUTES,
    ),
    Deviation(
        "rl eval", "grading", "by floating-point values and by the form of the authors' solutions (code)",
        "exact: one outcome for each attempt; `task.profile=authors` grades as published",
        "the published grader refuses some right answers", tasks=CARDS,
    ),
    Deviation(
        "rl eval", "grading", "an observation must name an intersection as the landmark text does (code)",
        "against what the observation says; `task.profile=authors` grades as published",
        "at an intersection the landmark text does not name one", tasks=ROUTES,
    ),
    Deviation(
        "rl eval", "attempts", "one generation beyond the last graded one, not read (code)",
        "the last graded attempt ends the episode, with the penalty for exceeding",
        "an answer that nobody reads teaches nothing",
    ),
    Deviation(
        "eval", "recognition", "episodes of one attempt", "the first response of each episode",
        "the same response, without a second evaluation", tasks=("gp_vl",),
    ),
    Deviation(
        "eval", "compute", "the paper's formula", "counted tokens; the formula is the second axis",
        "the formula has no critic, and its D_RL can be read in two ways (`rl_tokens`)",
    ),
)  # fmt: skip
"""Settings that are ours at scale ``node``, in every recipe; those of data and evaluation at every scale."""


@dataclass(frozen=True)
class ScaleDeviation:
    """Choices of the scales below ``node``, where no value is the paper's unless it is said.

    Attributes:
        scales: The scales.
        what: As in `Deviation`.
        ours: As in `Deviation`.
        reason: As in `Deviation`.
        tasks: Tasks they hold for.
    """

    scales: tuple[str, ...]
    what: str
    ours: str
    reason: str
    tasks: tuple[str, ...] = TASKS


_TINY = ("smoke", "laptop")

SCALE_DEVIATIONS: tuple[ScaleDeviation, ...] = (
    ScaleDeviation(
        _TINY, "model", "about a million parameters, pre-trained by the recipe on the task under both rules",
        "nothing larger trains on two cores; so the other rule is kept or lost, not learned from elsewhere",
    ),
    ScaleDeviation(
        _TINY, "prompts and answers", "a few words (`compact`), and the first solution of a hand",
        "a model of this size learns them within minutes",
    ),
    ScaleDeviation(
        _TINY, "pictures", "cards of 224 by 84 pixels, street views of 168 (smoke: 112)",
        "the smallest that can be read", VISION,
    ),
    ScaleDeviation(
        _TINY, "routes", "two or three legs with at most two points on each", "short prompts", ROUTES
    ),
    ScaleDeviation(
        ("laptop",), "algorithm", "RLOO over turns, four episodes a hand or rail, one step an update",
        "a fresh critic of this size needs more updates than the budget has",
    ),
    ScaleDeviation(
        _TINY, "learning rates", "1e-4 to 2e-4, and 5e-5 for RL on street views",
        "a model of a million parameters",
    ),
    ScaleDeviation(
        _TINY, "temperature", "1.0, of rollouts and of evaluation", "the policy that RL trains is evaluated"
    ),
    ScaleDeviation(
        ("smoke", "laptop", "gpu"), "steps, updates, batches, lengths", "ours",
        "minutes on two cores, hours on a card",
    ),
    ScaleDeviation(
        ("laptop",), "checkpoints of RL", "every fourth update, on street views every second",
        "curves are smoothed from nine points on, and evaluation takes seconds for each",
    ),
    ScaleDeviation(
        ("gpu",), "model", "SmolLM2-135M-Instruct, for images Qwen2.5-VL-3B-Instruct", "one card trains them"
    ),
    ScaleDeviation(
        ("gpu",), "pictures", "cards of 336 by 336 pixels, street views of 672", "one card", VISION
    ),
    ScaleDeviation(
        ("gpu",), "algorithm", "`ppo_turn`: a critic with a wide value clip, ratios of tokens",
        "a fresh critic must learn within the run", LANGUAGE,
    ),
    ScaleDeviation(
        ("gpu",), "algorithm", "RLOO over turns, four episodes a hand or rail",
        "a critic does not fit beside it", VISION,
    ),
    ScaleDeviation(
        ("gpu",), "temperature of rollouts", "0.7", "groups and small models need unlike episodes"
    ),
    ScaleDeviation(
        ("gpu",), "learning rates of SFT and of its init", "5e-6 to 1e-4, the init with a warm-up",
        "smaller models",
    ),
)  # fmt: skip
"""Deviations of the other scales, beside those in `DEVIATIONS`."""


def deviations_of(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Deviations of a composed recipe from the paper: what, the paper's, ours, and the reason.

    Empty for recipes that are not of the paper.
    """
    if PAPER not in recipe.source:
        return []
    task, scale = recipe.task.name, recipe.scale.name
    rows = [
        (entry.what, entry.paper, entry.ours, entry.why)
        for entry in recipe.deviations
        if not entry.scales or scale in entry.scales
    ]
    for each in SCALE_DEVIATIONS:
        if scale in each.scales and task in each.tasks:
            rows.append((each.what, "that of `node`", each.ours, each.reason))
    for known in DEVIATIONS:
        stages = known.stage.split()
        if task in known.tasks and (scale in PAPER_SCALES or {"data", "eval"} & set(stages)):
            rows.append((known.what, known.paper, known.ours, known.reason))
    return rows


def stage_kind(arm: str | None, kind: str) -> str:
    """The `Setting.stage` of a stage of a plan; ``base`` and ``dialogues`` have none of the paper."""
    if kind == "sft":
        return arm if arm in ("init", "base", "dialogues") else "sft"
    return kind


def settings_of(task: str, stage: str) -> Iterator[Setting]:
    """The paper's settings for a stage of a task."""
    for setting in SETTINGS:
        if stage in setting.stage.split() and task in setting.tasks:
            value = SETTING_OF_TASK.get((task, setting.key), setting.value)
            yield Setting(setting.stage, setting.key, value, setting.source, setting.varied_by, setting.tasks)


def varied_keys(recipe: Recipe, arm: str) -> set[str]:
    """Keys of the budget that an arm of a recipe changes."""
    config = recipe.arms.get(arm)
    if config is None:
        return set()
    by_rows = recipe.budget.sft_by_rows.get(config.rows, {}) if config.kind == "sft" else {}
    return {*by_rows, *config.budget, *config.times, *(["lr"] if config.lrs or config.lr_times else [])}


def varied_settings(recipe: Recipe) -> dict[str, list[str]]:
    """Per arm, the keys by which a recipe leaves the paper's settings on purpose."""
    known = {key for setting in SETTINGS for key in setting.varied_by}
    known |= {key for deviation in DEVIATIONS for key in deviation.varied_by}
    varied = {arm: sorted(varied_keys(recipe, arm) & known) for arm in recipe.arms}
    return {arm: keys for arm, keys in varied.items() if keys}


def derived_values(config: DictConfig) -> dict[str, float]:
    """Values of the paper that follow from several keys of a PPO config."""
    optim = config.actor_rollout_ref.actor.optim
    last = _last_rate(optim, int(config.trainer.total_training_steps))
    batches = int(config.data.train_batch_size) // int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    return {"lr of the last update / lr": last, "optimizer batches per epoch": batches}


def _last_rate(optim: DictConfig, updates: int) -> float:
    """The share of ``lr`` that verl's schedule has at the last update."""
    import torch
    from verl.utils.torch_functional import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(
        optimizer,
        num_warmup_steps=max(0, optim.lr_warmup_steps),
        num_training_steps=updates,
        min_lr_ratio=optim.min_lr_ratio,
        num_cycles=optim.num_cycles,
        zero_indexed_step=optim.zero_indexed_step,
    )
    return float(schedule.lr_lambdas[0](updates - 1))


def mismatches(recipe: Recipe, arm: str | None, kind: str, config: DictConfig) -> list[str]:
    """Values of a composed config of verl that are neither the paper's, nor listed, nor varied by the recipe.

    Args:
        recipe: The recipe.
        arm: The arm of the stage, or ``init``.
        kind: ``sft`` or ``rl``.
        config: verl's whole config of the stage.

    Returns:
        One line for each: key, expected value, and the one that was found.
    """
    stage = stage_kind(arm, kind)
    varied = varied_keys(recipe, arm or "")
    derived = derived_values(config) if kind == "rl" else {}
    expected = [(s.key, s.value, s.varied_by) for s in settings_of(recipe.task.name, stage)]
    for deviation in DEVIATIONS:
        if stage in deviation.stage.split() and recipe.task.name in deviation.tasks:
            expected += [(key, value, deviation.varied_by) for key, value in deviation.keys]
    lines = []
    for key, value, varied_by in expected:
        found = derived[key] if key in derived else OmegaConf.select(config, key)
        if not varied & set(varied_by) and not _same(found, value):
            lines.append(f"{arm}: {key} is {found!r}; the paper's settings have {value!r}")
    return lines


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return abs(found - value) <= 1e-4 * abs(value)
    return (list(found) if isinstance(value, list) and found is not None else found) == value
