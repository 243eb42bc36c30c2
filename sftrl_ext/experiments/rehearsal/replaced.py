"""The keys that a rehearsal replaces, and why: its distance from what a node runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Replaced:
    """Keys that differ for one reason.

    Attributes:
        group: What they are about.
        keys: Full names; ``*`` stands for one part, ``**`` for any number of parts.
        reason: Why they cannot be as on a node.
    """

    group: str
    keys: tuple[str, ...]
    reason: str


REPLACED = (
    Replaced(
        "device",
        ("trainer.device",),
        "there is no GPU: verl's platform is the CPU's, and ranks talk over gloo",
    ),
    Replaced(
        "device",
        ("ray_kwargs.ray_init.num_cpus", "ray_kwargs.ray_init.num_gpus"),
        "Ray detects no GPU, so as many places as there are ranks are declared",
    ),
    Replaced(
        "kernels",
        ("engine.use_torch_compile",),
        "compiling a toy model on a CPU takes longer than the rehearsal; RL is not compiled on a GPU either",
    ),
    Replaced(
        "engine",
        ("actor_rollout_ref.rollout.enforce_eager",),
        "CUDA graphs, and compilation as above",
    ),
    Replaced(
        "engine",
        ("actor_rollout_ref.rollout.enable_sleep_mode", "actor_rollout_ref.rollout.free_cache_engine"),
        "vLLM frees the memory of weights and cache between rollouts on a GPU only",
    ),
    Replaced(
        "engine",
        ("actor_rollout_ref.rollout.engine_kwargs.vllm.*",),
        "the cache has a size in bytes instead of a share of the card, and the vision encoder is not "
        "profiled on the largest picture",
    ),
    Replaced(
        "ranks",
        (
            "**.n_gpus_per_node",
            "launcher--nproc-per-node",
            "launcher--gpus",
            "launcher--cpus",
        ),
        "two ranks stand for eight, and two Ray nodes of one rank for two nodes of eight",
    ),
    Replaced(
        "ranks",
        (
            "actor_rollout_ref.rollout.agent.num_workers",
            "reward.num_workers",
            "transfer_queue.backend.SimpleStorage.num_data_storage_units",
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
        ),
        "one process of each kind, and small buckets, for a machine with few cores",
    ),
    Replaced(
        "model",
        ("model.path", "model.package"),
        "random weights at toy width under the model's hub name; those that a Python package carries too",
    ),
    Replaced(
        "sizes",
        (
            "budget.**",
            "arms.*.times.**",
            "arms.*.budget.**",
            "task.look.**",
            "task.routes.image_size",
            "task.routes.home.**",
            "task.routes.away.**",
        ),
        "rows, steps, batches, response lengths, pictures and cities are divided",
    ),
    Replaced(
        "sizes",
        (
            "data.train_batch_size",
            "data.max_response_length",
            "data.micro_batch_size_per_gpu",
            "**.ppo_mini_batch_size",
            "**.*token_len_per_gpu",
            "**.response_length",
            "sftrl.rollout.max_turn_tokens",
            "sftrl.rollout.max_prompts",
            "optim.lr_warmup_steps",
            "**.optim.num_cycles",
            "sftrl.responses",
            "trainer.total_epochs",
            "**.total_training_steps",
            "trainer.save_freq",
            "trainer.test_freq",
        ),
        "what verl's configuration makes of those sizes",
    ),
    Replaced(
        "rates",
        ("arms.*.lrs", "arms.*.lr_times", "**.optim.lr", "**.optim.min_lr_ratio"),
        "one run stands for all learning rates of an arm, whose commands differ in that number alone",
    ),
    Replaced(
        "sizes",
        ("verl_ppo", "verl_sft"),
        "the recipe's list of overrides, by which the keys above are replaced",
    ),
)
"""Every reason; keys of the recipe, of verl's SFT and PPO configuration, and of the launcher."""

ENVIRONMENT = {
    "VERL_PLATFORM": "the CPU as verl's device, with the patches of `sftrl_ext.backends.cpu.patches`",
    "VERL_USE_EXTERNAL_MODULES": "vLLM's CPU build under the name vllm",
    "HF_HOME, HF_HUB_OFFLINE": "a cache of the hub that holds the toy models under the real names",
    "OMP_NUM_THREADS, TOKENIZERS_PARALLELISM": "one thread a process",
    "RAY_ADDRESS": "two Ray nodes on this machine where the scale has several nodes, else `local`",
}
"""Variables that the rehearsal sets around a run, and why."""


def entry_of(key: str) -> Replaced | None:
    """The reason why a key may differ; None if there is none."""
    return next(
        (entry for entry in REPLACED if any(_pattern(name).fullmatch(key) for name in entry.keys)), None
    )


@cache
def _pattern(name: str) -> re.Pattern[str]:
    if name.startswith("**."):
        return re.compile(r"(?:.*\.)?" + _pattern(name[3:]).pattern)
    text = re.escape(name).replace(r"\*\*", ".*").replace(r"\*", r"[^.]+")
    return re.compile(text)


def markdown_table() -> str:
    """The list as a table of ``docs/rehearsal.md``."""
    lines = ["| about | keys | why |", "|---|---|---|"]
    for entry in REPLACED:
        keys = ", ".join(f"`{key}`" for key in entry.keys)
        lines.append(f"| {entry.group} | {keys} | {entry.reason} |")
    lines += [f"| environment | `{names}` | {why} |" for names, why in ENVIRONMENT.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())  # noqa: T201
