"""Seconds of a GRPO update of one-turn episodes: TRL, a plain loop on our engine, and verl by our recipe.

All sample as many answers of as many prompts, with the same limit and temperature, grade them with the card
game's verifier, and make one optimizer step on them. The plain loop is the floor of our side: our engine
and our credit, without verl's workers, its queue and its checks.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.learner import MICRO_ROWS, Learner, SampledRows, pad
from benchmarks.peer_inputs import SINGLE_TURN, answer_settings, hands, laptop_recipe
from benchmarks.step_times import median, timed_steps
from sftrl_ext.backends.hf.engine import Engine, Request
from sftrl_ext.backends.hf.sampling import Sampling
from sftrl_ext.envs import make_episode
from sftrl_ext.files import read_json
from sftrl_ext.hf_folder import load_model, load_tokenizer
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.training.credit import leave_one_out_advantages

Update = dict[str, float]
"""Seconds, episodes and tokens of one update."""


class PlainLoop:
    """Our engine, our credit and an optimizer in one process."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.learner = Learner(folder, settings["lr"])
        self.tokenizer = load_tokenizer(folder)
        self.engine = Engine.from_folder(folder, max_rows=settings["prompts"] * settings["group"])

    def run(self) -> list[Update]:
        """Make the updates."""
        group, prompts = self.settings["group"], self.settings["prompts"]
        rows = hands(prompts * self.settings["updates"], seed=1)
        return [
            self.update([row for row in rows[first : first + prompts] for _ in range(group)])
            for first in range(0, len(rows), prompts)
        ]

    def update(self, rows: Sequence[tuple[str, list[dict[str, str]]]]) -> Update:
        """Sample an answer for each row, grade them and train on them."""
        begin, begin_cpu = time.perf_counter(), time.process_time()
        self.engine.copy_weights(self.learner.weights())
        sampling = Sampling(max_tokens=self.settings["max_tokens"])
        prompts = [prompt_ids(self.tokenizer, prompt) for _, prompt in rows]
        answers = self.engine.generate(Request(ids, sampling) for ids in prompts)
        texts = [self.tokenizer.decode(answer.token_ids, skip_special_tokens=True) for answer in answers]
        rewards = [reward(facts, text) for (facts, _), text in zip(rows, texts, strict=True)]
        sampled = time.perf_counter()
        one_turn = torch.ones(len(rows), 1, dtype=torch.bool)
        groups = torch.arange(len(rows)) // self.settings["group"]
        advantages = leave_one_out_advantages(
            torch.tensor(rewards, dtype=torch.float64)[:, None], one_turn, groups, 1.0, divide_by_std=True
        ).float()
        responses = [answer.token_ids for answer in answers]
        turn_ids = pad([[1] * len(ids) for ids in responses])
        log_probs = pad([answer.log_probs for answer in answers])
        sampled_rows = SampledRows(prompts, responses, log_probs, turn_ids, advantages.expand(turn_ids.shape))
        self.learner.update(sampled_rows, len(rows))
        end = time.perf_counter()
        generated = sum(len(answer.token_ids) for answer in answers)
        return {
            "step_s": end - begin,
            "sample_s": sampled - begin,
            "cpu_s": time.process_time() - begin_cpu,
            "episodes": len(rows),
            "generated_tokens": generated,
            "trained_tokens": generated + sum(map(len, prompts)),
        }


def prompt_ids(tokenizer: Any, prompt: list[dict[str, str]]) -> list[int]:
    """Tokens of a prompt."""
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)


def reward(facts: str, text: str) -> float:
    """Grade of one answer."""
    return make_episode(json.loads(facts)).submit(text).reward


def trl_updates(folder: Path, settings: Mapping[str, Any]) -> list[Update]:
    """Updates of TRL's trainer, its precision and checkpointing set to what is fastest here."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = load_tokenizer(folder)
    rows = hands(settings["prompts"] * settings["updates"], seed=1)
    updates: list[Update] = []
    state = {"end": 0.0, "cpu": 0.0, "sample_s": 0.0}

    def grade(completions: Any, completion_ids: Any, facts: Any, prompt_tokens: Any, **_: Any) -> list[float]:
        generated = sum(map(len, completion_ids))
        trained = generated + sum(prompt_tokens)
        updates.append({"episodes": len(facts), "generated_tokens": generated, "trained_tokens": trained})
        return [reward(f, c[0]["content"]) for f, c in zip(facts, completions, strict=True)]

    class Timed(TrainerCallback):
        """Notes the seconds from the end of a step to that of the next."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            state.update(end=time.perf_counter(), cpu=time.process_time())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            end, cpu = time.perf_counter(), time.process_time()
            updates[-1] |= {"step_s": end - state["end"], "cpu_s": cpu - state["cpu"]}
            updates[-1] |= {"sample_s": state["sample_s"]}
            state.update(end=end, cpu=cpu, sample_s=0.0)

    class Trainer(GRPOTrainer):
        """TRL's trainer with a clock around what it samples and grades."""

        def _prepare_inputs(self, generation_batch: Any) -> Any:
            begin = time.perf_counter()
            inputs = super()._prepare_inputs(generation_batch)
            state["sample_s"] += time.perf_counter() - begin
            return inputs

    episodes = settings["prompts"] * settings["group"]
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=MICRO_ROWS,
            gradient_accumulation_steps=episodes // MICRO_ROWS,
            num_generations=settings["group"],
            max_completion_length=settings["max_tokens"],
            temperature=1.0,
            beta=0.0,
            learning_rate=settings["lr"],
            lr_scheduler_type="constant",
            max_steps=settings["updates"],
            shuffle_dataset=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        columns = [
            {"prompt": prompt, "facts": facts, "prompt_tokens": len(prompt_ids(tokenizer, prompt))}
            for facts, prompt in rows
        ]
        model = load_model(folder, torch.float32)
        trainer = Trainer(
            model=model,
            args=config,
            reward_funcs=grade,
            train_dataset=Dataset.from_list(columns),
            processing_class=tokenizer,
            callbacks=[Timed()],
        )
        trainer.train()
    return updates


def verl_update(folder: Path, updates: int) -> Update:
    """Median update of the recipe's own RL stage, from the given model, by the command line.

    Raises:
        SystemExit: with the end of the run's output, if it failed.
    """
    with tempfile.TemporaryDirectory() as out:
        words = ["run", "fig6_gp_l", "--scale", "laptop", "--run-dir", f"{out}/run", "--model", str(folder)]
        words += ["~arms.sft", "model.role=init", "expected=[]", "task.eval_splits=[id]", *SINGLE_TURN]
        words += [f"budget.rl.updates={updates}", f"budget.rl.save_every={updates}", "budget.eval.hands=2"]
        done = subprocess.run([sys.executable, "-m", "sftrl_ext.cli", *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-1000:])
        layout = RunLayout(Path(out, "run"))
        [stage] = [s["name"] for s in read_json(layout.state)["stages"] if s["kind"] == "rl"]
        steps = timed_steps(layout.metrics(stage), 1)
    generated = median(steps, "tokens/step_generated")
    trained = median(steps, "tokens/step_trained")
    rl = laptop_recipe().budget.rl
    return speeds(
        {
            "step_s": median(steps, "timing_s/step"),
            "sample_s": median(steps, "timing_s/gen"),
            "episodes": rl.episodes,
            "generated_tokens": generated,
            "trained_tokens": trained,
        }
    )


def speeds(update: Update) -> Update:
    """An update with its episodes and tokens per second."""
    rates = {
        f"{name}_per_s": round(update[name] / update["step_s"], 1)
        for name in ("episodes", "generated_tokens", "trained_tokens")
    }
    return {**{name: round(value, 3) for name, value in update.items()}, **rates}


def measure(settings: Mapping[str, Any]) -> Update:
    """The median update of one side; the first is left out."""
    folder = Path(settings["model"])
    if settings["side"] == "verl":
        return verl_update(folder, settings["updates"])
    rl = laptop_recipe().budget.rl
    sizes = {
        "prompts": rl.episodes // rl.group,
        "group": rl.group,
        "lr": rl.lr,
        "max_tokens": rl.max_turn_tokens,
    }
    torch.manual_seed(0)
    settings = {**sizes, **settings}
    if settings["side"] == "plain loop":
        updates = PlainLoop(folder, settings).run()[1:]
    else:
        updates = trl_updates(folder, settings)[1:]
    return speeds({name: statistics.median(update[name] for update in updates) for name in updates[0]})


if __name__ == "__main__":
    answer_settings(measure)
