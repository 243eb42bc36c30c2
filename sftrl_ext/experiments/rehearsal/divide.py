"""The rehearsed recipe: the composed one with its sizes divided and what a CPU cannot do overridden.

Backend, engine, algorithm, optimizers, schedules, arms and splits stay as they are composed, so the commands
differ from those of the real scale only in keys that `sftrl_ext.experiments.rehearsal.replaced` lists. Of an
arm with several learning rates one is rehearsed: the others run the same commands with another number.
"""

from __future__ import annotations

from dataclasses import replace

from sftrl_ext.envs import TASKS
from sftrl_ext.envs.task_config import CityConfig, TaskConfig
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.schema import (
    EvalConfig,
    Recipe,
    RLConfig,
    ScaleConfig,
    SFTConfig,
)
from sftrl_ext.experiments.rehearsal.families import repository_of

RANKS = 2
"""Training processes where the scale has more than one GPU."""

_TURN_TOKENS = 24
_REPLY_TOKENS = 96
_POINTS = 4
_ROUTES = 60
"""Routes of a city without pictures: some of them are held out."""
_CARD_SIDE = 112
_STREET_SIDE = 168

_SIZES = ("rows", "steps", "updates", "episodes", "responses", "save_every", "micro_batch_size")
"""Keys of an arm's ``times``, or of ``sft_by_rows``, that are sizes; the rehearsed ones are equal."""


def rehearsed(recipe: Recipe) -> Recipe:
    """The recipe that runs in place of a composed one.

    Raises:
        SftrlError: if its model has no hub name, from which the toy model is made.
    """
    scale = _scale(recipe.scale)
    ranks = scale.nnodes * scale.n_gpus_per_node
    budget = recipe.budget
    return replace(
        recipe,
        scale=scale,
        model=replace(
            recipe.model, path=repository_of(recipe.model.path, recipe.model.package), package=None
        ),
        task=replace(
            recipe.task,
            look=_look(recipe),
            routes=replace(
                recipe.task.routes,
                image_size=_STREET_SIDE,
                home=_city(recipe.task.routes.home, _ROUTES if recipe.task.modality == "text" else 12),
                away=[_city(city, 6) for city in recipe.task.routes.away[:1]],
            ),
        ),
        budget=replace(
            budget,
            init=_sft(budget.init, ranks, steps=1),
            own_answers="all",
            sft=_sft(budget.sft, ranks, steps=2),
            sft_by_rows={
                rows: {key: value for key, value in changed.items() if key not in _SIZES}
                for rows, changed in budget.sft_by_rows.items()
            },
            rl=_rl(budget.rl, ranks, recipe.task),
            eval=_eval(budget.eval),
        ),
        arms={name: _arm(recipe, arm, ranks) for name, arm in recipe.arms.items()},
        verl_ppo=[*recipe.verl_ppo, *_without(recipe.verl_ppo, ppo_overrides(scale))],
        verl_sft=[*recipe.verl_sft, *_without(recipe.verl_sft, SFT_OVERRIDES)],
    )


SFT_OVERRIDES = ["trainer.device=cpu", "engine.use_torch_compile=false"]
"""Keys of verl's SFT config that a CPU needs otherwise."""


def ppo_overrides(scale: ScaleConfig) -> list[str]:
    """Keys of verl's PPO config that a CPU, or two cores, need otherwise."""
    ranks = scale.n_gpus_per_node
    joined = scale.nnodes > 1  # the cluster's own numbers hold
    overrides = [
        "trainer.device=cpu",
        "actor_rollout_ref.rollout.free_cache_engine=false",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=64",
        "reward.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    ]
    if not joined:
        overrides += ["ray_kwargs.ray_init.num_cpus=16", f"+ray_kwargs.ray_init.num_gpus={ranks}"]
    if scale.engine == "vllm":
        vllm = "+actor_rollout_ref.rollout.engine_kwargs.vllm"
        overrides += [
            "actor_rollout_ref.rollout.enforce_eager=true",
            "+actor_rollout_ref.rollout.enable_sleep_mode=false",
            f"{vllm}.kv_cache_memory_bytes={1 << 28}",
            f"{vllm}.skip_mm_profiling=true",
        ]
    return overrides


def _without(given: list[str], overrides: list[str]) -> list[str]:
    """Overrides of keys that are not given already."""
    keys = {word.partition("=")[0].lstrip("+") for word in given}
    return [word for word in overrides if word.partition("=")[0].lstrip("+") not in keys]


def _scale(scale: ScaleConfig) -> ScaleConfig:
    if scale.nnodes > 1:
        return replace(scale, nnodes=RANKS, n_gpus_per_node=1, tensor_parallel=1)
    return replace(scale, n_gpus_per_node=min(RANKS, scale.n_gpus_per_node), tensor_parallel=1)


def _look(recipe: Recipe) -> dict[str, object]:
    """Cards drawn small, in the shape they have."""
    look = dict(recipe.task.look)
    if "width" in look:
        side = min(look["width"], look["height"])
        look |= {key: round(_CARD_SIDE * look[key] / side) for key in ("width", "height")}
    return look


def _city(city: CityConfig, routes: int) -> CityConfig:
    return replace(city, routes=min(city.routes, routes), width=256, most_legs=3)


def _sft(config: SFTConfig, ranks: int, steps: int) -> SFTConfig:
    """Two rows a rank and step, in two micro-batches where the scale has several."""
    several = config.micro_batch_size < config.batch_size
    rows = 2 * ranks
    return replace(
        config,
        rows=rows * steps,
        steps=steps,
        batch_size=rows,
        micro_batch_size=1 if several else 2,
        save_every=1 if config.save_every > 0 else config.save_every,
    )


def _rl(config: RLConfig, ranks: int, task: TaskConfig) -> RLConfig:
    """Two updates of the fewest episodes that every rank and minibatch can share.

    An update that counts responses needs a second wave of episodes.
    """
    episodes = config.group * config.minibatches * ranks
    responses = None if config.responses is None else task.max_attempts * episodes + ranks
    return replace(
        config,
        rows=4 * episodes // config.group,
        updates=2,
        episodes=episodes,
        responses=responses,
        micro_batch_size=1,
        max_response_length=task.max_attempts * (_TURN_TOKENS + _REPLY_TOKENS),
        max_turn_tokens=_TURN_TOKENS,
        max_prompts=_POINTS if TASKS[task.kind].several_prompts else config.max_prompts,
        save_every=1,
        validate_every=2 if config.validate_every > 0 else config.validate_every,
    )


def _eval(config: EvalConfig) -> EvalConfig:
    return replace(
        config, hands=2, hands_of=dict.fromkeys(config.hands_of, 2), sample_episodes=1, kl_episodes=2
    )


def _arm(recipe: Recipe, arm: ArmConfig, ranks: int) -> ArmConfig:
    """An arm's own sizes divided too, at one of its learning rates; its algorithm and minibatches stay."""
    times = {key: factor for key, factor in arm.times.items() if key not in _SIZES}
    budget = dict(arm.budget)
    if arm.kind == "rl" and budget:
        base = recipe.budget.rl
        budget["episodes"] = (
            budget.get("group", base.group) * budget.get("minibatches", base.minibatches) * ranks
        )
    budget = {key: value for key, value in budget.items() if key not in ("updates", "steps", "save_every")}
    lrs, lr_times = _one_rate(arm.lrs, getattr(recipe.budget, arm.kind).lr), _one_rate(arm.lr_times, 1)
    return replace(arm, budget=budget, times=times, lrs=lrs, lr_times=lr_times)


def _one_rate(rates: list[float], budgeted: float) -> list[float]:
    """The budget's rate, which other recipes have too, so that its stages are shared; else the first."""
    return [budgeted] if budgeted in rates else rates[:1]
