"""The sentences of a report that are the same on both pages: the verdict's, and how the numbers are made."""

from __future__ import annotations

from sftrl_ext.reports.analysis import Analysis
from sftrl_ext.reports.compute import buffer_ratio
from sftrl_ext.reports.stats import SE_FORMULA, SMOOTHING_MIN_POINTS, SMOOTHING_ORDER


def verdict_sentences(found: Analysis) -> list[str]:
    """The verdict, its findings, and whether counting tokens instead of the paper's formula changes it."""
    sentences = list(found.verdict.sentences)
    other = found.other_axis
    if other is not None and other.difference is not None:
        if other.pattern == found.verdict.pattern:
            sentences.append(
                f"With compute counted from tokens the outcome is the same; RL minus SFT: {other.difference}."
            )
        else:
            sentences.append(f"With compute counted from tokens the outcome is another one. {other.headline}")
    return sentences


def method_notes(found: Analysis) -> list[str]:
    """How success, error bars, compute and the verdict are worked out."""
    ratio = buffer_ratio(found.run.records[0].data_source if found.run.records else "")
    notes = [
        "Success: share of episodes solved within the allowed attempts.",
        f"Error bars. {SE_FORMULA}",
        "Equal compute: the largest compute that every arm reached; of each seed, the last checkpoint at or "
        "below it. The learning rate of the verdict is chosen in distribution, never by an OOD split.",
        "Verdict: a change counts if it is larger than two of its standard errors, sqrt(SE_a^2 + SE_b^2). "
        "All checkpoints play the same episodes, which makes this error too wide rather than too narrow.",
        "Compute by the paper's formula: X_SFT = 6 N (D_init + D_SFT), X_RL = 6 N (D_init + D_RL) + 2 N "
        f"D_buffer with D_buffer = {ratio:g} D_RL. From counted tokens: 6 N trained + 2 N "
        "(generated + read). Both leave out pre-training, evaluation, the value network, and the passes that "
        "only compute log-probabilities.",
        f"Curves of {SMOOTHING_MIN_POINTS} points or more carry a thin Savitzky-Golay line of order "
        f"{SMOOTHING_ORDER} over the raw points; no number is taken from it.",
    ]
    for entry in found.expected:
        notes.append(
            f"Numbers of the paper ({entry.source}; {entry.metric} on `{entry.split}`) come from the recipe."
        )
    return notes
