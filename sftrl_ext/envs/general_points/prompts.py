"""Prompt templates: every word a model reads in the game, in one YAML file.

Three come with the package, ``default``, ``compact`` and ``single_quotes``; the path of your own file works
wherever a name does, so a checkpoint that was trained on other prompts can be played with those. A file holds
these keys, each a text with ``$placeholders`` (a literal dollar is ``$$``):

==============  =========  ==========================================================================
key             needed     placeholders
==============  =========  ==========================================================================
prompt          yes        $cards $rule $target $num_cards $max_attempts
image_prompt    images     $image $rule $target $num_cards $max_attempts; $image once, where the picture goes
feedback        yes        a mapping from outcome to text: $target $numbers $cards $verdict $findings
findings        no         a mapping from remark of the ``authors`` grader to text: $used $unused $start
findings_join   no         none; what stands between two remarks in $findings
reply           no         $feedback $attempts_left $attempt $max_attempts $target; the message after failing
system          no         as prompt; a system message before the prompt
rule            no         $statement $jack $queen $king; how a rule is worded
rules           no         a mapping from rule name to text, for rules worded differently
card            no         $rank $symbol; one card in $cards
card_join       no         none; what stands between two cards
answer          no         $cards $numbers $working $formula $target; how expert rows write an answer
answer_card     no         $rank; one card in the answer
answer_join     no         none; what stands between two cards, numbers or steps of the answer
answer_working  no         $steps; what $working is in an answer that shows its working, nothing in others
answer_reading  no         $rank $number; the step that reads a card which is no number itself, as J
==============  =========  ==========================================================================

``feedback`` needs every outcome, or ``otherwise`` for those it leaves out. ``$verdict`` is the verifier's
own sentence. ``$findings`` are the remarks of the grader of the profile ``authors`` on the formula
(`sftrl_ext.envs.general_points.authors.FINDINGS`, with the fields of each), joined; a remark without a text
in ``findings`` is left out. Under ``exact`` and in files without ``findings`` it is the same as ``$verdict``.

Cards shown as an image are opened with ``image_prompt`` in the place of ``prompt``. No other text may name
them then: ``$cards`` and ``$numbers`` in ``system`` or ``feedback`` are refused. The fields of ``findings``
are allowed: ``$unused`` names numbers of the hand after an attempt, as the authors' code does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from sftrl_ext.envs.base import Message, Verdict
from sftrl_ext.envs.general_points.authors import FINDINGS
from sftrl_ext.envs.general_points.cards import Card
from sftrl_ext.envs.general_points.rules import Rule
from sftrl_ext.envs.template_file import TemplateForm, TextTemplate
from sftrl_ext.errors import SftrlError

OUTCOMES: tuple[str, ...] = (
    "correct",
    "wrong_value",
    "wrong_numbers",
    "illegal_formula",
    "unparsable",
    "cards_not_recognized",
)
"""Every outcome the verifier can give."""

_PROMPT = frozenset({"cards", "rule", "target", "num_cards", "max_attempts"})
_PLACEHOLDERS: dict[str, frozenset[str]] = {
    "prompt": _PROMPT,
    "image_prompt": _PROMPT - {"cards"} | {"image"},
    "system": _PROMPT,
    "feedback": frozenset({"target", "numbers", "cards", "verdict", "findings"}),
    "findings": frozenset({"used", "unused", "start"}),
    "findings_join": frozenset(),
    "reply": frozenset({"feedback", "attempts_left", "attempt", "max_attempts", "target"}),
    "rule": frozenset({"statement", "jack", "queen", "king"}),
    "rules": frozenset({"statement", "jack", "queen", "king"}),
    "card": frozenset({"rank", "symbol"}),
    "card_join": frozenset(),
    "answer": frozenset({"cards", "numbers", "working", "formula", "target"}),
    "answer_card": frozenset({"rank"}),
    "answer_join": frozenset(),
    "answer_working": frozenset({"steps"}),
    "answer_reading": frozenset({"rank", "number"}),
}
_NEEDED: dict[str, frozenset[str]] = {
    "prompt": frozenset({"cards"}),
    "image_prompt": frozenset({"image"}),
    "reply": frozenset({"feedback"}),
    "answer": frozenset({"formula"}),
    "answer_working": frozenset({"steps"}),
}
_DEFAULTS: dict[str, str] = {
    "reply": "$feedback",
    "rule": "$statement",
    "card": "$rank",
    "card_join": ", ",
    "findings_join": ", ",
    "answer": '{"cards": [$cards], $working"number": [$numbers], "formula": "$formula=$target"}',
    "answer_card": '"$rank"',
    "answer_join": ", ",
    "answer_working": '"working": "$steps", ',
    "answer_reading": "$rank counts as $number",
}
_FORM = TemplateForm(
    folder=Path(__file__).parent / "templates",
    outcomes=OUTCOMES,
    placeholders=_PLACEHOLDERS,
    needed=_NEEDED,
    defaults=_DEFAULTS,
    mappings=("feedback", "rules", "findings"),
    named={"findings": FINDINGS},
    hidden=("cards", "numbers"),
    hidden_noun="the cards",
    shown=("system", "image_prompt", "rule", "reply"),
)


class PromptTemplate(TextTemplate):
    """The words of the game; made by `load_template`."""

    @property
    def rules(self) -> Mapping[str, Template]:
        """Rule name to text, for rules worded differently from ``texts["rule"]``."""
        return self.mappings["rules"]

    def rule(self, rule: Rule) -> str:
        """Text that describes a rule."""
        text = self.rules.get(rule.name, self.texts["rule"])
        return text.substitute(statement=rule.statement, jack=rule.jack, queen=rule.queen, king=rule.king)

    def cards(self, cards: Sequence[Card]) -> str:
        """Text that shows a hand."""
        card_text, join = self.texts["card"], self.texts["card_join"].template
        return join.join([card_text.substitute(rank=card.rank, symbol=card.symbol) for card in cards])

    def opening(
        self, cards: Sequence[Card], rule: Rule, target: int, max_attempts: int, modality: str = "text"
    ) -> list[Message]:
        """The messages an episode starts with: the prompt, after a system message if there is one.

        Raises:
            SftrlError: if the modality is "image" and the template is not made for that.
        """
        values = {
            "rule": self.rule(rule),
            "target": target,
            "num_cards": len(cards),
            "max_attempts": max_attempts,
        }
        if modality != "image":
            values["cards"] = self.cards(cards)
        return self.first_messages(values, modality)

    def feedback_text(self, verdict: Verdict, *, cards: str, numbers: str, target: int) -> str:
        """Feedback on one attempt; cards and numbers as the prompt writes them."""
        text = self.feedback.get(verdict.outcome) or self.feedback["otherwise"]
        fields = {"verdict": verdict.feedback, "findings": self.findings_text(verdict)}
        return text.substitute(target=target, numbers=numbers, cards=cards, **fields)

    def findings_text(self, verdict: Verdict) -> str:
        """The remarks of the ``authors`` grader, joined; the verdict's own sentence where there are none."""
        texts = self.mappings["findings"]
        if verdict.findings is None or not texts:
            return verdict.feedback
        join = self.texts["findings_join"].template
        stated = [finding for finding in verdict.findings if finding.name in texts]
        return join.join([texts[finding.name].substitute(finding.fields) for finding in stated])

    def reply(self, feedback: str, attempt: int, max_attempts: int, target: int) -> str:
        """The user message that asks for the next attempt.

        Args:
            feedback: What `feedback_text` gave.
            attempt: How many attempts were made.
            max_attempts: How many there may be.
            target: The number to reach.
        """
        return self.texts["reply"].substitute(
            feedback=feedback,
            attempt=attempt,
            attempts_left=max_attempts - attempt,
            max_attempts=max_attempts,
            target=target,
        )

    def answer(
        self,
        cards: Sequence[Card],
        numbers: Sequence[int],
        formula: str,
        target: int,
        calculations: Sequence[object] | None = None,
    ) -> str:
        """The text of an answer with this formula, in the form the prompt asks for.

        Args:
            cards: The hand.
            numbers: What each card counts.
            formula: A solution.
            target: The number to reach.
            calculations: The working of the formula, which the answer shows after the readings of cards that
                are no numbers themselves; None: the answer shows no working.

        Raises:
            SftrlError: if working is asked for and the template has no place for it.
        """
        join = self.texts["answer_join"].template
        working = ""
        if calculations is not None:
            if not self.has("answer", "working"):
                raise SftrlError(
                    f"{self.name}: key 'answer' lacks the placeholder $working, which says where an answer "
                    "shows its working; expected it before $formula."
                )
            steps = [*self._readings(cards, numbers), *map(str, calculations)]
            working = self.texts["answer_working"].substitute(steps=join.join(steps))
        return self.texts["answer"].substitute(
            cards=join.join([self.texts["answer_card"].substitute(rank=card.rank) for card in cards]),
            numbers=join.join(map(str, numbers)),
            working=working,
            formula=formula,
            target=target,
        )

    def _readings(self, cards: Sequence[Card], numbers: Sequence[int]) -> list[str]:
        """Values of the cards, each rank once, without those whose rank is their value."""
        read = {card.rank: number for card, number in zip(cards, numbers, strict=True)}
        text = self.texts["answer_reading"]
        return [text.substitute(rank=rank, number=n) for rank, n in read.items() if rank != str(n)]


def expert_answer(
    template: PromptTemplate,
    cards: Sequence[Card],
    numbers: Sequence[int],
    formula: str,
    target: int = 24,
    calculations: Sequence[object] | None = None,
) -> str:
    """The text an expert answers with; the one place where expert answers are written.

    With ``default`` and ``compact`` it is one JSON object. The ``authors`` grader reads a JSON list of cards
    (double quotes) as wrong cards, which matters only for images; ``single_quotes`` satisfies it, and so does
    ``answer_card: "'$rank'"`` in a template of your own.

    Args:
        template: The words.
        cards: The hand.
        numbers: What each card counts.
        formula: A solution.
        target: The number to reach.
        calculations: The working of the formula (`sftrl_ext.envs.general_points.working`), to be shown before
            it; None: the answer shows no working.

    Raises:
        SftrlError: if working is asked for and the template has no place for it.
    """
    return template.answer(cards, numbers, formula, target, calculations)


TEMPLATES = _FORM.files
"""Template name to YAML file."""


def load_template(name_or_path: str | Path) -> PromptTemplate:
    """Load a template of the package by name, or a user's by the path of its YAML file.

    Raises:
        SftrlError: if there is no such template or file, or a key or placeholder in it is missing or unknown.
    """
    return _FORM.load(PromptTemplate, name_or_path)
