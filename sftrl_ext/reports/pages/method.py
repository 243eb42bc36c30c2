"""The sentences of a report that are the same on both pages: the verdict's, and how the numbers are made."""

from __future__ import annotations

from sftrl_ext.envs.task import task_of_source
from sftrl_ext.reports.analysis.curves import paper_ends
from sftrl_ext.reports.analysis.equal_id import at_equal_id, equal_id_sentences
from sftrl_ext.reports.analysis.forgetting import has_divergence
from sftrl_ext.reports.analysis.run_analysis import Analysis, SplitVerdict
from sftrl_ext.reports.analysis.splits import ood_kind
from sftrl_ext.reports.pages.mismatch import NOTE, mismatch_table
from sftrl_ext.runs.compute import RL_TOKENS, buffer_ratio, readable
from sftrl_ext.runs.stats import (
    CLUSTER_FORMULA,
    PER_RESPONSE,
    SE_FORMULA,
    SMOOTHING_MIN_POINTS,
    SMOOTHING_ORDER,
)


def verdict_sentences(analysis: Analysis) -> list[str]:
    """The verdict, its findings, and its comparison with the one by the paper's formula."""
    return [sentence for group in verdict_groups(analysis) for sentence in group]


def verdict_groups(analysis: Analysis) -> list[list[str]]:
    """The sentences of every verdict, one list for each kind of out of distribution; headlines first.

    Where the numbers support no claim there is one list, with the reason.
    """
    if (reason := analysis.no_claim) is not None:
        return [[reason]]
    groups = [
        _sentences(analysis, split_verdict, first=index == 0)
        for index, split_verdict in enumerate(analysis.verdicts)
    ]
    if analysis.recognizes or len(groups) > 1:
        for group, split_verdict in zip(groups, analysis.verdicts, strict=True):
            group += _other_splits(analysis, split_verdict)
    return groups


def _other_splits(analysis: Analysis, split_verdict: SplitVerdict) -> list[str]:
    """One sentence on the further splits of a verdict's kind: in how many each arm loses, keeps or gains."""
    kind = ood_kind(split_verdict.split or "")
    splits = [s for s in analysis.curves.splits if ood_kind(s) == kind and s != split_verdict.split]
    sentences = []
    for arm, curve in analysis.picked.items():
        moved: dict[str, list[str]] = {"down": [], "same": [], "up": []}
        for split in splits:
            if change := curve.change(analysis.equal.chosen[curve.key], split):
                moved[change.direction].append(f"`{split}`")
        verbs = {"down": "loses", "same": "keeps (within 2 SE)", "up": "gains on"}
        parts = [f"{verbs[way]} {', '.join(names)}" for way, names in moved.items() if names]
        if parts:
            sentences.append(f"{analysis.arms.label(arm)} {'; '.join(parts)}")
    return [f"Its other splits: {'. '.join(sentences)}."] if sentences else []


def _sentences(analysis: Analysis, split_verdict: SplitVerdict, first: bool) -> list[str]:
    """One verdict, its findings, and its comparison with the one by the paper's formula."""
    verdict, other = split_verdict.verdict, split_verdict.other_axis
    sentences = [verdict.headline, *(f.in_words(in_distribution=first) for f in verdict.findings)]
    if split_verdict.split is not None:
        sentences += equal_id_sentences(analysis, split_verdict.split)
    if other is not None and split_verdict.between_axes is not None:
        sentences.append(split_verdict.between_axes.sentence)
        if other.difference is not None:
            sentences[-1] += f" By the paper's formula RL minus SFT: {other.difference}."
    return sentences


def axis_sentences(analysis: Analysis) -> list[str]:
    """The compute axes of the report, and which verdicts flip between them."""
    absent = analysis.curves.paper_absent
    sentences = []
    if "counted" in analysis.axes:
        sentences.append(
            "Headline axis: compute from counted tokens, with the critic and all passes that only compute "
            "log-probabilities or values."
        )
    if absent is not None:
        return [*sentences, f"The axis of the paper's formula is left out: {absent}."]
    if "paper" not in analysis.axes:
        return sentences
    sentences.append("Second axis: the paper's formula.")
    sentences += rl_tokens_sentences(analysis)
    compared = [verdict.between_axes for verdict in analysis.verdicts if verdict.between_axes is not None]
    flipped = [f"`{comparison.split}`" for comparison in compared if comparison.flips]
    if flipped:
        sentences.append(f"Verdicts that flip between the two axes: {', '.join(flipped)}.")
    elif compared:
        sentences.append("No verdict flips between the two axes.")
    return [*sentences, *(comparison.sentence for comparison in compared if comparison.differences)]


def rl_tokens_sentences(analysis: Analysis) -> list[str]:
    """Reading of the paper's D_RL on its axis, and the ends of RL by the other one."""
    reading = analysis.run.recipe.rl_tokens
    other = next(name for name in RL_TOKENS if name != reading)
    ends = [paper_ends(analysis.run, analysis.curves, name) for name in (reading, other)]
    moved = [
        f"{analysis.arms.label(arm)} ends at {readable(ends[1][arm], 'paper')} instead of "
        f"{readable(ends[0][arm], 'paper')}"
        for arm in ends[0]
        if arm in ends[1]
    ]
    text = f"Its D_RL counts a token {RL_TOKENS[reading]}, which the paper leaves open"
    if not moved:
        return [f"{text}."]
    return [f"{text}; counted {RL_TOKENS[other]} (`--rl-tokens {other}`), {', '.join(moved)}."]


def recognition_sentences(analysis: Analysis) -> list[str]:
    """Sentences on card recognition and its use, arm by arm, at the compared checkpoints."""
    return [reading.sentence for reading in analysis.recognition_changes]


_TESTS = {
    "unpaired": "{scope} taken as independent, SE = sqrt(SE_a^2 + SE_b^2), because the records do not hold "
    "the results of each instance. All checkpoints play the same instances, which makes this error too wide "
    "rather than too narrow.",
    "mcnemar": "{scope} compared instance by instance, by McNemar's exact test: one seed on each side; a "
    "change counts at p < 0.0455, the level of two standard errors.",
    "bootstrap": "{scope} compared instance by instance: SE of a bootstrap over instances, the same for both "
    "sides, and seeds, or of the spread between seeds if that is larger (marked `paired`).",
}
"""Test of a difference to its description."""


def _tests(analysis: Analysis) -> str:
    """Sentences on the tests behind the verdicts' differences, those from the start and between the arms."""
    between = [verdict.verdict.difference for verdict in analysis.verdicts]
    of_start = [
        moved
        for verdict in analysis.verdicts
        for finding in verdict.verdict.findings
        for moved in (finding.ood_change, finding.id_change)
    ]
    scopes: dict[str, list[str]] = {}
    for scope, changes in (("Arms", between), ("Arms and their start", of_start)):
        for method in {moved.method for moved in changes if moved is not None}:
            scopes.setdefault(method, []).append(scope)
    if len(scopes) < 2:
        scopes = {method: ["Checkpoints"] for method in scopes or ("unpaired",)}
    return " ".join(
        _TESTS[method].format(scope=f"{' as well as '.join(scopes[method])} are")
        for method in _TESTS
        if method in scopes
    )


def method_notes(analysis: Analysis) -> list[str]:
    """Definitions of success, error bars, compute and the verdict."""
    ratio = buffer_ratio(analysis.run.data_source)
    success = "Success: share of episodes solved within the allowed attempts."
    if analysis.metric == "steps":
        success = (
            "Per-step accuracy: right actions as a share of all responses, of all routes together; a further "
            "attempt at a point is a response of its own. A route is walked to the end if every point was "
            "right within the allowed attempts."
        )
    notes = [
        success,
        f"Error bars. {SE_FORMULA}",
        "Equal compute: the largest compute that every arm reached; of each seed, the last checkpoint at or "
        "below it. An arm that does not start from the shared start is compared at its last checkpoint, and "
        "with its own start. The learning rate of the verdict is chosen in distribution, never by an OOD "
        "split.",
        f"Verdict: a change counts if it is larger than two of its standard errors. {_tests(analysis)}",
        "Compute from counted tokens: 6 N a token that the actor is trained on, 6 M one that the critic is "
        "trained on, every epoch counted; 2 N a token generated, read as a prompt, or read for old and "
        "reference log-probabilities only, 2 M one read for values only; N and M are the parameters of the "
        "policy and the critic. Pre-training, evaluation and activation checkpointing are left out.",
        "Compute by the paper's formula: X_SFT = 6 N (D_init + D_SFT), X_RL = 6 N (D_init + D_RL) + 2 N "
        f"D_buffer with D_buffer = {ratio:g} D_RL, which holds for 4 epochs over each buffer; D_RL counts a "
        f"token {RL_TOKENS[analysis.run.recipe.rl_tokens]}. It has no value network and no passes for "
        "log-probabilities.",
        f"Curves of {SMOOTHING_MIN_POINTS} points or more carry a thin Savitzky-Golay line of order "
        f"{SMOOTHING_ORDER} over the raw points; no number is taken from it.",
    ]
    if at_equal_id(analysis):
        notes.insert(
            3,
            "Equal success in distribution: the largest ID success L that both curves reach, means over "
            "seeds, with straight lines between checkpoints; each curve is read where it first reaches L. "
            "Its error holds the interpolated SE of the OOD success and the distance it moves where the ID "
            "success is read one of its SE lower or higher; the two curves are taken as independent.",
        )
    if analysis.metric == "steps":
        notes.insert(2, f"Error bars of per-step accuracy. {CLUSTER_FORMULA}")
        if analysis.per_response:
            notes.insert(
                3,
                f"{PER_RESPONSE} marks errors per response: the records behind them hold no counts per "
                "route, so responses are taken as independent, which makes these errors too narrow.",
            )
    if any(record.samples > 1 for record in analysis.run.records):
        notes.append(
            "pass@k: the chance that one of k episodes of an instance is solved, 1 - C(n - c, k) / C(n, k) "
            "for c solved of n episodes (unbiased, arXiv 2107.03374), averaged over instances; SE over "
            "instances and seeds. Errors of success are clustered by instance. Solutions are distinct as "
            "functions of the instance's numbers: terms in another order are the same."
        )
    if analysis.recognizes:
        notes += [
            "Recognized: share of episodes whose first response names the cards shown, in any order, suits "
            "left aside. Numbers right: the same for what the cards count under the rule of the prompt.",
            "First responses, exactly: correct = recognized x (correct if recognized), for a response that "
            "names other cards is never correct. The recognized hands of two checkpoints need not be the "
            "same hands. Whether a recognized hand is solved in a later attempt, and whether right numbers "
            "and right cards stand in the same response, is not in the records; at most (numbers right) / "
            "recognized of the recognized hands have right numbers.",
        ]
    if has_divergence(analysis):
        notes.append(
            "Divergence, in nats per generated token: at every token that was generated, the exact KL "
            "between the two distributions of the next token, over all tokens that can be sampled and at the "
            "temperature of the evaluation; prompts and feedback are read and not counted. "
            "KL(start || checkpoint) is on episodes that the start played, KL(checkpoint || start) on the "
            "checkpoint's own, all of the split trained on. Error bars are over episodes, as of a ratio of "
            "nats to tokens, and over seeds as above."
        )
    if mismatch_table(analysis) is not None:
        notes.append(NOTE)
    task = task_of_source(analysis.task)
    shown = {} if task is None else task.looks
    looks = [f"`{split}`: {shown[split]}" for split in analysis.curves.splits if split in shown]
    if looks:
        notes.append(f"What the visual splits show. {'; '.join(looks)}.")
    prefixes = {"level": "", "at_most": "upper bound of ", "change": "change from the start in "}
    for entry in analysis.expected:
        notes.append(
            f"Numbers of the paper ({entry.source}; {prefixes[entry.says]}{entry.metric} on `{entry.split}`) "
            "come from the recipe."
        )
    return notes
