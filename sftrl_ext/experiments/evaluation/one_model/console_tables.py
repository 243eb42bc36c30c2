"""Tables that `sftrl eval` prints: success of each split, and the cost of an endpoint's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from sftrl_ext.plain_text import one_line
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.runs.stats import over_seeds, over_seeds_by_route


@dataclass(frozen=True)
class Prices:
    """Dollars, or whatever, for a million tokens; None if not known."""

    prompt: float | None = None
    completion: float | None = None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Cost of a number of tokens; None if no price is given."""
        if self.prompt is None and self.completion is None:
            return None
        return (prompt_tokens * (self.prompt or 0.0) + completion_tokens * (self.completion or 0.0)) / 1e6


def usage_of(played: Sequence[PlayedEpisode], prices: Prices) -> dict[str, float]:
    """Requests and tokens of finished episodes, as the endpoint counted them.

    Returns:
        ``requests``, ``retries`` (of requests that were answered in the end), ``prompt_tokens`` and
        ``completion_tokens`` of all requests, ``uncounted`` (answers without a count), and ``cost`` if there
        is a price.
    """
    extras = [extra for episode in played for extra in episode.extra]
    prompt = sum(episode.prefill_tokens for episode in played)
    completion = sum(episode.generated_tokens for episode in played)
    usage: dict[str, float] = {
        "requests": len(extras),
        "retries": sum(extra.get("retries", 0) for extra in extras),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "uncounted": sum(bool(extra.get("no_usage")) for extra in extras),
    }
    cost = prices.cost(prompt, completion)
    return usage if cost is None else {**usage, "cost": round(cost, 6)}


def success_table(records: Sequence[dict[str, Any]]) -> Table:
    """Success of each split; of routes also per-step accuracy, of hands in images the share recognised."""
    images = any("recognized_first" in record for record in records)
    steps = any("responses" in record for record in records)
    columns = [*(["per step %"] if steps else []), "success %", *(["recognised %"] if images else [])]
    table = Table("split", "routes" if steps else "hands", *columns, "attempts")
    for record in records:
        episodes = record["episodes"]
        shares = [_step_share(record)] if steps else []
        shares += [_share(record["solved"], episodes)]
        shares += [_share(record.get("recognized_first"), episodes)] if images else []
        table.add_row(
            _name(record["split"]),
            str(episodes),
            *shares,
            f"{record['attempts_mean']:.2f}",
        )
    return table


def city_table(record: Mapping[str, Any]) -> Table:
    """Routes walked to the end, and per-step accuracy, of each city of a split with ``by_city``."""
    table = Table("city", "routes", "walked to the end", "per step %", title=_name(record["split"]))
    for city, count in record["by_city"].items():
        numbers = str(count["episodes"]), str(count["solved"])
        table.add_row(_name(city), *numbers, _share(count["correct_actions"], count["responses"]))
    return table


def usage_table(records: Sequence[dict[str, Any]]) -> Table:
    """Requests, tokens and cost of each split, and of all if there are several."""
    usages = [(_name(record["split"]), record["usage"]) for record in records]
    if len(usages) > 1:
        keys = dict.fromkeys(key for _, usage in usages for key in usage)
        usages.append(("all", {key: sum(usage.get(key, 0) for _, usage in usages) for key in keys}))
    priced = any("cost" in usage for _, usage in usages)
    names = [
        "split",
        "requests",
        "retries",
        "prompt tokens",
        "completion tokens",
        *(["cost"] if priced else []),
    ]
    table = Table(*names)
    for split, usage in usages:
        counts = [f"{usage[key]:,}" for key in ("requests", "retries", "prompt_tokens", "completion_tokens")]
        table.add_row(split, *counts, *([f"{usage['cost']:.4f}"] if priced else []))
    return table


def remarks(records: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences about what the tables do not show."""
    sentences = []
    for record in records:
        split, usage = one_line(str(record["split"])), record.get("usage", {})
        if record["errors"]:
            sentences.append(
                f"{split}: {record['errors']} episodes ended with an error and count as not solved."
            )
        if record["out_of_tokens"]:
            sentences.append(
                f"{split}: {record['out_of_tokens']} episodes ran out of tokens before their end."
            )
        if usage.get("uncounted"):
            sentences.append(f"{split}: {usage['uncounted']} answers came without a count of their tokens.")
    return sentences


def _name(text: object) -> str:
    """A name of a data file as a cell, without markup of its own."""
    return escape(one_line(str(text)))


def _step_share(record: dict[str, Any]) -> str:
    """Per-step accuracy with its error clustered by route."""
    if record.get("step_counts") and record.get("responses"):
        return str(over_seeds_by_route([record["step_counts"]]))
    return _share(record.get("correct_actions"), record.get("responses"))


def _share(count: Any, episodes: Any) -> str:
    return "" if count is None or not episodes else str(over_seeds([(count, episodes)]))
