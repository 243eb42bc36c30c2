"""The verl commands of the training stages, word for word as they run and as `sftrl plan` prints them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.experiments.cluster.local_ray import local_ray_env, requested_address
from sftrl_ext.experiments.recipe.attention import (
    resolve_attention,
    rl_attention_overrides,
    sft_attention_overrides,
)
from sftrl_ext.experiments.recipe.schedules import rl_schedule, sft_schedule
from sftrl_ext.experiments.recipe.schema import Recipe, RLConfig, SFTConfig
from sftrl_ext.experiments.recipe.trackers import tracker_env, tracker_overrides
from sftrl_ext.experiments.recipe.trainer_modes import gpu_split, mode_overrides, ranks_of_an_engine
from sftrl_ext.paths import configs_dir

Command = tuple[list[str], dict[str, str]]
"""An argument list, and the variables it needs."""

CPU_ENV = {
    "VERL_PLATFORM": "cpu",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables of every verl process on a machine without a GPU."""

ONE_PROCESS_ENV = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
"""Variables that torchrun sets, for one process at any free port: a launcher would take seconds to
start."""

CPUS_BESIDE_A_GPU = 10
"""CPUs that verl's SFT trainer on Ray reserves with each GPU (its RL trainer: three)."""


def sft_command(
    recipe: Recipe,
    config: SFTConfig,
    model: Path,
    rows: Path,
    checkpoints: Path,
    name: str,
    seed: int,
    engine: Mapping[str, str] | None = None,
) -> Command:
    """verl's SFT trainer on one parquet file.

    Args:
        recipe: The whole recipe.
        config: Steps, batches and learning rate of this run.
        model: Hugging Face folder to start from.
        rows: Parquet file of training rows.
        checkpoints: Where checkpoints go.
        name: Name of the run in trackers.
        seed: Seed of the trainer.
        engine: Variables of `sftrl_ext.training.engine_settings`: what is frozen, which loss.
    """
    scale = recipe.scale
    epochs = _epochs("batch_size", config.rows, config.batch_size, config.steps)
    share = config.batch_size // (scale.nnodes * scale.n_gpus_per_node)
    micro = math.gcd(config.micro_batch_size, share)  # rows of one step on one rank, in equal parts
    tokens = config.micro_tokens or micro * config.max_length
    overrides = [
        f"sft_backend={scale.backend}",
        *sft_attention_overrides(recipe),
        f"model.path={model}",
        f"data.train_files={rows}",
        f"data.train_batch_size={config.batch_size}",
        f"data.micro_batch_size_per_gpu={micro}",
        f"data.max_token_len_per_gpu={tokens}",
        f"data.use_dynamic_bsz={str(config.micro_tokens is not None).lower()}",
        f"data.max_length={config.max_length}",
        f"optim.lr={config.lr:g}",
        f"optim.betas={_betas(config)}",
        *sft_schedule(config.schedule, config.steps, config.warmup_ratio),
        "optim.weight_decay=0.0",
        "optim.clip_grad=1.0",
        f"trainer.total_epochs={epochs}",
        f"trainer.total_training_steps={config.steps}",
        f"trainer.save_freq={config.save_every}",
        f"trainer.default_local_dir={checkpoints}",
        f"trainer.experiment_name={name}",
        f"trainer.seed={seed}",
        f"trainer.nnodes={scale.nnodes}",
        f"trainer.n_gpus_per_node={scale.n_gpus_per_node}",
        f"hydra.run.dir={checkpoints.parent}",
        *(_offload(recipe, ("engine",)) if scale.offload == "always" else []),
        *tracker_overrides(recipe.trackers),
        *recipe.verl_sft,
    ]
    env = _env(recipe, engine, checkpoints)
    launcher = ["-m", "verl.trainer.sft_trainer"]
    if joins_cluster(recipe):  # the same trainer, its processes placed by Ray
        launcher = ["-m", "verl.trainer.sft_trainer_ray"]
    elif scale.n_gpus_per_node > 1:
        ranks = str(scale.n_gpus_per_node)
        launcher = [
            *("-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", ranks, "--standalone"),
            *launcher,
        ]
    else:
        env |= ONE_PROCESS_ENV
    command = [*_on_cluster(recipe, checkpoints), sys.executable, *launcher]
    return [*command, "--config-path", str(configs_dir()), "--config-name", "sft", *overrides], env


def ppo_command(
    recipe: Recipe,
    rl: RLConfig,
    model: Path,
    rows: Path,
    validation: list[Path],
    checkpoints: Path,
    name: str,
    seed: int,
    engine: Mapping[str, str] | None = None,
) -> Command:
    """verl's PPO trainer (V1) on one parquet file of prompts.

    Args:
        recipe: The whole recipe.
        rl: Updates, batches and learning rate of this run.
        model: Hugging Face folder that actor and critic start from.
        rows: Parquet file of prompts.
        validation: Parquet files of the evaluation splits, each a data source of its own.
        checkpoints: Where checkpoints go.
        name: Name of the run in trackers.
        seed: Seed of the order of the prompts and of the rollout.
        engine: Variables of `sftrl_ext.training.engine_settings`.
    """
    scale, split = recipe.scale, gpu_split(recipe.scale)
    prompts = rl.episodes // rl.group
    # In prompts, like the batch: verl multiplies both by the group (``rollout.n``).
    minibatch = prompts // rl.minibatches
    critic_lr = rl.lr if rl.critic_lr is None else rl.critic_lr
    epochs = _epochs("prompts of an update", rl.rows, prompts, rl.updates)
    tokens = rl.micro_batch_size * (rl.max_prompt_length + rl.max_response_length)
    # A pass without gradients keeps no activations, but its logits are as large as the training ones.
    forward_tokens = 2 * tokens if scale.backend == "cpu" else tokens
    overrides = [
        f"backend={_backend(recipe)}",
        f"algorithm={rl.algorithm}",
        *rl_attention_overrides(recipe),
        f"data.train_files={rows}",
        f"data.val_files={_paths(validation)}",
        f"data.train_batch_size={prompts}",
        f"data.max_prompt_length={rl.max_prompt_length}",
        f"data.max_response_length={rl.max_response_length}",
        f"data.seed={seed}",
        f"actor_rollout_ref.model.path={model}",
        f"actor_rollout_ref.actor.optim.lr={rl.lr:g}",
        *rl_schedule("actor_rollout_ref.actor.optim", rl.lr, rl.updates, rl.warmup, rl.decay_updates),
        f"actor_rollout_ref.actor.ppo_epochs={rl.epochs}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={minibatch}",
        f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={tokens}",
        f"actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu={forward_tokens}",
        f"actor_rollout_ref.ref.log_prob_max_token_len_per_gpu={forward_tokens}",
        f"actor_rollout_ref.rollout.n={rl.group}",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"actor_rollout_ref.rollout.temperature={rl.temperature:g}",
        f"actor_rollout_ref.rollout.val_kwargs.temperature={recipe.budget.eval.temperature:g}",
        *_validation_top_p(recipe),
        f"actor_rollout_ref.rollout.val_kwargs.do_sample={str(recipe.budget.eval.temperature > 0).lower()}",
        f"actor_rollout_ref.rollout.tensor_model_parallel_size={ranks_of_an_engine(scale)}",
        f"critic.optim.lr={critic_lr:g}",
        *rl_schedule("critic.optim", critic_lr, rl.updates, 0, rl.decay_updates),
        f"critic.ppo_epochs={rl.epochs}",
        f"critic.ppo_mini_batch_size={minibatch}",
        f"critic.ppo_max_token_len_per_gpu={tokens}",
        f"critic.forward_max_token_len_per_gpu={forward_tokens}",
        *([f"sftrl.responses={rl.responses}"] if rl.responses is not None else []),
        f"sftrl.rollout.max_turn_tokens={rl.max_turn_tokens}",
        *([f"sftrl.rollout.max_prompts={rl.max_prompts}"] if rl.max_prompts is not None else []),
        f"sftrl.rollout.reward={recipe.task.reward}",
        *_light_router(recipe),
        f"trainer.critic_warmup={rl.critic_warmup}",
        f"trainer.total_epochs={epochs}",
        f"trainer.total_training_steps={rl.updates}",
        f"trainer.save_freq={rl.save_every}",
        f"trainer.test_freq={rl.validate_every}",
        f"trainer.default_local_dir={checkpoints}",
        f"trainer.experiment_name={name}",
        f"trainer.nnodes={split.nodes}",
        f"trainer.n_gpus_per_node={split.gpus}",
        f"hydra.run.dir={checkpoints.parent}",
        *mode_overrides(recipe, rl),
        *_offload(recipe, ("actor_rollout_ref.actor.fsdp_config", "critic.fsdp")),
        *_ray_resources(recipe),
        *tracker_overrides(recipe.trackers),
        *recipe.verl_ppo,
    ]
    command = [*_on_cluster(recipe, checkpoints), sys.executable, "-m", "verl.trainer.main_ppo"]
    return [*command, "--config-path", str(configs_dir()), "--config-name", "ppo", *overrides], _env(
        recipe, engine, checkpoints
    )


def _validation_top_p(recipe: Recipe) -> list[str]:
    top_p = recipe.budget.eval.top_p
    return [f"actor_rollout_ref.rollout.val_kwargs.top_p={top_p:g}"] if top_p < 1 else []


def _epochs(key: str, rows: int, batch: int, steps: int) -> int:
    """Passes over the rows that so many steps need; the loaders drop the last batch of a pass if not full.

    Raises:
        SftrlError: if the rows do not fill one batch.
    """
    if rows < batch:
        raise SftrlError(f"rows: {rows}, fewer than one batch ({key}: {batch}); expected at least as many.")
    return math.ceil(steps / (rows // batch))


def joins_cluster(recipe: Recipe) -> bool:
    """True if verl runs on a Ray cluster that is up: on several nodes, or where ``RAY_ADDRESS`` names one."""
    return recipe.scale.nnodes > 1 or requested_address() is not None


def _on_cluster(recipe: Recipe, checkpoints: Path) -> list[str]:
    """On a cluster: what waits for its nodes, checks them, and ends the command when one is lost."""
    scale = recipe.scale
    if not joins_cluster(recipe):
        return []
    options = {
        "--nodes": scale.nnodes,
        "--gpus": scale.n_gpus_per_node,
        "--cpus": CPUS_BESIDE_A_GPU * scale.n_gpus_per_node,
        "--shared": checkpoints.parent,
    }
    args = [word for name, value in options.items() for word in (name, str(value))]
    if resolve_attention(recipe).packed:
        args.append("--flash-attn")
    return [sys.executable, "-m", "sftrl_ext.experiments.cluster.on_cluster", *args, "--"]


def _ray_resources(recipe: Recipe) -> list[str]:
    """Without GPUs: a Ray cluster says itself what it has; a local Ray is told of processes that generate."""
    split = gpu_split(recipe.scale)
    if recipe.scale.backend != "cpu":
        return []
    if not joins_cluster(recipe):
        return [f"ray_kwargs.ray_init.num_gpus={split.total}"] if split.total > split.ranks else []
    return ["ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null"]


def _env(recipe: Recipe, engine: Mapping[str, str] | None, checkpoints: Path) -> dict[str, str]:
    env = {"HYDRA_FULL_ERROR": "1", **({} if joins_cluster(recipe) else local_ray_env())}
    env |= tracker_env(recipe.trackers, checkpoints.parent, f"{recipe.name}-{recipe.scale.name}")
    if recipe.scale.backend == "cpu":
        # TransferQueue takes eight threads for each of its calls, and warns at each of fewer cores.
        env |= CPU_ENV | dict.fromkeys(("OMP_NUM_THREADS", "TQ_NUM_THREADS"), str(recipe.scale.threads))
    env |= dict(engine or {})
    if _vllm_on_cpu(recipe):
        env["VERL_USE_EXTERNAL_MODULES"] = "sftrl_ext.backends.vllm.cpu_build"
    return env


def _light_router(recipe: Recipe) -> list[str]:
    """On a CPU: our router of requests, whose process does not import verl (seconds of the start)."""
    if recipe.scale.backend != "cpu":
        return []
    import sftrl_ext.backends.hf_in_verl

    router = Path(sftrl_ext.backends.hf_in_verl.__file__).parent / "router.yaml"
    return [f"actor_rollout_ref.rollout.router_config_path={router}"]


def _offload(recipe: Recipe, engines: tuple[str, ...]) -> list[str]:
    """Overrides of ``scale.offload`` for the FSDP configs of some engines."""
    keys = {"none": (), "idle": ("param_offload", "optimizer_offload"), "always": ("offload_policy",)}
    if recipe.scale.offload not in keys:
        raise SftrlError(f"scale.offload: {unknown_name('value', recipe.scale.offload, keys)}")
    return [f"{engine}.{key}=true" for engine in engines for key in keys[recipe.scale.offload]]


def _paths(paths: list[Path]) -> str:
    return "[" + ",".join(map(str, paths)) + "]"


def _backend(recipe: Recipe) -> str:
    """A file of ``configs/backend``.

    Raises:
        SftrlError: if there is none for the scale's engine.
    """
    scale = recipe.scale
    backends = {
        ("cpu", "hf"): "cpu",
        ("cpu", "vllm"): "vllm_cpu",
        ("gpu", "vllm"): "gpu",
        ("gpu", "hf"): "gpu_hf",
    }
    if (scale.backend, scale.engine) not in backends:
        pairs = ", ".join(f"{engine} on {backend}" for backend, engine in backends)
        raise SftrlError(
            f"scale.backend={scale.backend} with scale.engine={scale.engine}; expected one of: {pairs}."
        )
    return backends[scale.backend, scale.engine]


def _vllm_on_cpu(recipe: Recipe) -> bool:
    return recipe.scale.backend == "cpu" and recipe.scale.engine == "vllm"


def _betas(config: SFTConfig) -> str:
    numbers: list[object] = [*config.betas]  # a list within a list passes the schema
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise SftrlError(f"betas: found {numbers}; expected numbers.")
    return "[" + ",".join(f"{number:g}" for number in config.betas) + "]"
