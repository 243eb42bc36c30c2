"""Tokens per second of sampling: our engine beside transformers' `generate`.

Every row stops after a number of tokens of its own, the same on both sides, so that both do equal work: 48
tokens each, or 8 to 88 spread evenly. Prompts are new in every round, so that no cache holds them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from benchmarks.peer_inputs import answer_settings, hands
from sftrl_ext.backends.hf.local_engine import LocalEngine
from sftrl_ext.hf_folder import load_model, load_tokenizer

Sampler = Callable[[Sequence[list[int]], Sequence[int]], list[list[int]]]
"""Continues prompts by given numbers of tokens; returns what it sampled."""

MEAN_TOKENS, SPREAD = 48, 40


def row_lengths(rows: int, varied: bool) -> list[int]:
    """Tokens to sample for each row; the same sum either way."""
    if not varied:
        return [MEAN_TOKENS] * rows
    low, steps = MEAN_TOKENS - SPREAD, max(rows - 1, 1)
    # A stride coprime to the number of rows mixes short and long rows.
    return [low + round(2 * SPREAD * (row * 7 % rows) / steps) for row in range(rows)]


def our_sampler(folder: Path) -> Sampler:
    """The engine of evaluation, asked for all rows at once; it gives log-probabilities too."""
    engine = LocalEngine(folder)

    def sample(prompts: Sequence[list[int]], lengths: Sequence[int]) -> list[list[int]]:
        async def all_rows() -> list[list[int]]:
            rows = zip(prompts, lengths, strict=True)
            calls = [engine.generate(ids, {"max_tokens": n, "ignore_eos": True}) for ids, n in rows]
            return [generation.token_ids for generation in await asyncio.gather(*calls)]

        return asyncio.run(all_rows())

    return sample


class RowLengths(StoppingCriteria):
    """Ends each row of `generate` after its own number of tokens."""

    def __init__(self, prompt: int, lengths: Sequence[int]) -> None:
        self.ends = prompt + torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """A mask of the rows that are done."""
        return self.ends <= input_ids.shape[1]


def transformers_sampler(folder: Path) -> Sampler:
    """One padded batch of `generate`, which ends with its longest row."""
    model, pad = load_model(folder, torch.float32).eval(), load_tokenizer(folder).pad_token_id

    def sample(prompts: Sequence[list[int]], lengths: Sequence[int]) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        config = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, max_new_tokens=max(lengths), pad_token_id=pad
        )
        # A start model's own settings name an end of sequence, which would end rows early.
        model.generation_config.eos_token_id = None
        stop = [RowLengths(width, lengths)]
        out = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=stop
        )
        return [row[width : width + n].tolist() for row, n in zip(out, lengths, strict=True)]

    return sample


SAMPLERS: dict[str, Callable[[Path], Sampler]] = {"ours": our_sampler, "transformers": transformers_sampler}


def measure(settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Speed of one side by batch size, with rows of equal and of varied length: the best of some rounds."""
    folder = Path(settings["model"])
    tokenizer = load_tokenizer(folder)
    sample = SAMPLERS[settings["side"]](folder)

    def prompts(rows: int, seed: int) -> list[list[int]]:
        return [
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
            for _, prompt in hands(rows, seed)
        ]

    sample(prompts(8, 0), [4] * 8)
    results = {}
    for batch in settings["batches"]:
        for varied in (False, True):
            best, least_cpu = float("inf"), float("inf")
            lengths = row_lengths(batch, varied)
            for seed in range(1, settings["rounds"] + 1):
                batch_prompts = prompts(batch, 1000 * batch + seed + 10 * varied)
                wall, cpu = time.perf_counter(), time.process_time()
                rows = sample(batch_prompts, lengths)
                best = min(best, time.perf_counter() - wall)
                least_cpu = min(least_cpu, time.process_time() - cpu)
                assert [len(row) for row in rows] == lengths
            tokens = sum(lengths)
            results[f"{batch} rows, {'varied' if varied else 'equal'} lengths"] = {
                "tokens_per_s": round(tokens / best),
                "tokens_per_cpu_s": round(tokens / least_cpu),
            }
    return results


if __name__ == "__main__":
    answer_settings(measure)
