"""Audit of held-out bindings: no written row of a stage states one, in its facts or in its texts.

Texts are read without the template that made them: a wording that contradicts the facts, or that cannot be
read, is refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.schema import iter_rows, read_schema
from data_prep.splits import get_split
from sftrl_ext.envs.base import parse_facts
from sftrl_ext.envs.general_points.families import find_rules
from sftrl_ext.envs.general_points.rules import LETTERS, RULES, Binding, Bindings, Rule, bindings_of
from sftrl_ext.errors import SftrlError, named

_RANK = r"['\"]?(?:\b[AJQK]\b|\b(?i:aces?|jacks?|queens?|kings?)\b)['\"]?"
_NUMBER = r"['\"]?[0-9]+['\"]?"
_BETWEEN = r"\s*(?:,\s*and\b|,|\band\b|&|/)\s*"
_COUNTS = r"\s*(?:=|:|\bis\b|\bare\b|(?:\beach\s+)?\bcounts?\b(?:\s+as)?)\s*"
_STATED = re.compile(
    rf"(?P<ranks>{_RANK}(?:{_BETWEEN}{_RANK})*){_COUNTS}(?P<numbers>{_NUMBER}(?:{_BETWEEN}{_NUMBER})*)"
)
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class HeldOutCheck:
    """A file that passed the audit.

    Attributes:
        file: Its name without the ending.
        rows: Rows that were read.
        held: What none of them states, but for the exposed ones.
        exposed: Split to its rows, which may state their own rule.
    """

    file: str
    rows: int
    held: Sequence[Bindings]
    exposed: Mapping[str, int] = field(default_factory=dict)


@lru_cache(maxsize=1 << 14)
def stated_bindings(text: str) -> frozenset[Binding]:
    """Bindings of J, Q and K that a text states.

    It reads ``J=10``, ``J counts as 10``, ``'J', 'Q' and 'K' each count as 10`` and ``jacks, queens and kings
    count as 11, 12 and 13``.
    """
    stated: set[Binding] = set()
    for match in _STATED.finditer(text):
        ranks = [word[0].upper() for word in _WORD.findall(match["ranks"]) if word.lower() != "and"]
        numbers = [int(number) for number in re.findall(r"[0-9]+", match["numbers"])]
        if len(ranks) == 1 or len(numbers) != len(ranks):
            numbers = numbers[:1] * len(ranks)
        stated.update(map(Binding, ranks, numbers))
    return frozenset(binding for binding in stated if binding.rank in LETTERS)


def check_held_out(
    path: Path, held: Sequence[Bindings], exposure: Mapping[str, float] | None = None
) -> HeldOutCheck:
    """Read a file back and refuse a row that states what is held out.

    Args:
        path: The parquet file.
        held: Bindings that no row may state together.
        exposure: Splits whose rows may state their own rule, each to its share of the rows.

    Raises:
        SftrlError: naming file, row and bindings; also where the prompt does not state the rule of the facts.
    """
    read_schema(path)
    shares = {split: share for split, share in (exposure or {}).items() if share}
    exposed = dict.fromkeys(shares, 0)
    without_own = {split: _except_of(split, held) for split in shares}
    rows = 0
    for row in iter_rows(path, ["prompt", "messages", "extra_info"]):
        split = row["extra_info"]["split"]
        with named(f"{path}: row {rows}"):
            _check_row(row, without_own[split] if split in exposed else held)
        if split in exposed:
            exposed[split] += 1
        rows += 1
    for split, count in exposed.items():
        # Answers and dialogues are rounded apart.
        if abs(count - shares[split] * rows) > 1:
            raise SftrlError(
                f"{path}: found {count} rows of split {split!r}; expected {shares[split]:g} of {rows} "
                "(task.exposure)."
            )
    return HeldOutCheck(path.stem, rows, held, exposed)


def _except_of(split: str, held: Sequence[Bindings]) -> Sequence[Bindings]:
    """Bindings that rows of a split may not state, if they may state the rule of the split."""
    rule = find_rules(get_split(split).hands.rule)
    if not isinstance(rule, Rule):
        raise SftrlError(
            f"task.exposure: split {split!r} has rules that are drawn; expected a split with one rule, or "
            "the split in task.pretrain_splits."
        )
    own = frozenset(bindings_of(rule))
    return [bindings for bindings in held if not bindings <= own]


def _check_row(row: Mapping[str, Any], held: Iterable[Bindings]) -> None:
    facts = parse_facts(row["extra_info"]["facts"], "extra_info.facts")
    if "rule" not in facts:
        raise SftrlError(f"extra_info.facts has {', '.join(facts) or 'nothing'}; expected the fact 'rule'.")
    ruled = frozenset(bindings_of(RULES[facts["rule"]]))
    prompt = _stated_in(row["prompt"])
    for where, stated in (
        ("extra_info.facts", ruled),
        ("prompt", prompt),
        ("messages", _stated_in(row["messages"])),
    ):
        for bindings in held:
            if bindings <= stated:
                raise SftrlError(
                    f"column {where!r} states the held-out {bindings_text(bindings)}; expected a row without "
                    "it (task.held_out)."
                )
        unlike = stated != ruled if where == "prompt" else not stated <= ruled
        if unlike:
            raise SftrlError(
                f"column {where!r} states {bindings_text(stated) or 'no binding'}; expected "
                f"{bindings_text(ruled)}, the rule {facts['rule']!r} of its facts, in a form such as 'J=10', "
                "'J counts as 10' or 'J, Q and K each count as 10'."
            )


def _stated_in(messages: Iterable[Mapping[str, str]]) -> frozenset[Binding]:
    return frozenset().union(*(stated_bindings(message["content"]) for message in messages))


def bindings_text(bindings: Collection[Binding]) -> str:
    """Bindings as recipes write them: ``J=5 Q=5 K=5``."""
    ordered = sorted(bindings, key=lambda binding: (LETTERS.index(binding.rank), binding.number))
    return " ".join(map(str, ordered))


def held_out_text(checks: Sequence[HeldOutCheck]) -> str:
    """A section of the dataset card; empty if nothing is held out."""
    if not checks:
        return ""
    lines = [
        "## Held-out bindings",
        "",
        "Every row of these files was read back: its prompt states the rule of its facts, and none of the",
        "bindings that are held out, each of them or, with blanks, together. Rows of an exposed split state",
        "their own rule.",
        "",
        "| file | rows checked | held out | exposed |",
        "|---|---:|---|---|",
    ]
    for check in checks:
        held = ", ".join(f"`{bindings_text(bindings)}`" for bindings in check.held)
        exposed = [f"{count:,} rows of `{split}`" for split, count in check.exposed.items()]
        lines.append(f"| {check.file} | {check.rows:,} | {held} | {', '.join(exposed) or 'none'} |")
    return "\n".join(lines) + "\n"
