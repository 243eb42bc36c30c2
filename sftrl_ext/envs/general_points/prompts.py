"""Prompt templates: every word a model reads in the game, in one YAML file.

Three come with the package, ``default``, ``compact`` and ``single_quotes``; the path of your own file works
wherever a name does, so a checkpoint that was trained on other prompts can be played with those. A file holds
these keys, each a text with ``$placeholders`` (a literal dollar is ``$$``):

=============  =========  ==========================================================================
key            needed     placeholders
=============  =========  ==========================================================================
prompt         yes        $cards $rule $target $num_cards $max_attempts
image_prompt   images     $image $rule $target $num_cards $max_attempts; $image once, where the picture goes
feedback       yes        a mapping from outcome to text: $target $numbers $cards $verdict
reply          no         $feedback $attempts_left $attempt $max_attempts $target; the message after a failure
system         no         as prompt; a system message before the prompt
rule           no         $statement $jack $queen $king; how a rule is worded
rules          no         a mapping from rule name to text, for rules worded differently
card           no         $rank $symbol; one card in $cards
card_join      no         none; what stands between two cards
answer         no         $cards $numbers $formula $target; how expert rows write an answer
answer_card    no         $rank; one card in the answer
answer_join    no         none; what stands between two cards or numbers of the answer
=============  =========  ==========================================================================

``feedback`` needs every outcome, or ``otherwise`` for those it leaves out. ``$verdict`` is the verifier's
own sentence.

Cards shown as an image are opened with ``image_prompt`` in the place of ``prompt``. No other text may name
them then: ``$cards`` and ``$numbers`` in ``system`` or ``feedback`` are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

import yaml

from sftrl_ext.envs.base import IMAGE_MARKER, Message, Verdict
from sftrl_ext.envs.general_points.cards import Card
from sftrl_ext.envs.general_points.rules import Rule
from sftrl_ext.errors import SftrlError, unknown_name

OUTCOMES: tuple[str, ...] = (
    "correct",
    "wrong_value",
    "wrong_numbers",
    "illegal_formula",
    "unparsable",
    "cards_not_recognized",
)
"""Every outcome the verifier can give."""

_FOLDER = Path(__file__).parent / "templates"
_OWN = frozenset(path.stem for path in _FOLDER.glob("*.yaml"))
_PROMPT = frozenset({"cards", "rule", "target", "num_cards", "max_attempts"})
_PLACEHOLDERS: dict[str, frozenset[str]] = {
    "prompt": _PROMPT,
    "image_prompt": _PROMPT - {"cards"} | {"image"},
    "system": _PROMPT,
    "feedback": frozenset({"target", "numbers", "cards", "verdict"}),
    "reply": frozenset({"feedback", "attempts_left", "attempt", "max_attempts", "target"}),
    "rule": frozenset({"statement", "jack", "queen", "king"}),
    "rules": frozenset({"statement", "jack", "queen", "king"}),
    "card": frozenset({"rank", "symbol"}),
    "card_join": frozenset(),
    "answer": frozenset({"cards", "numbers", "formula", "target"}),
    "answer_card": frozenset({"rank"}),
    "answer_join": frozenset(),
}
_NEEDED: dict[str, frozenset[str]] = {
    "prompt": frozenset({"cards"}),
    "image_prompt": frozenset({"image"}),
    "reply": frozenset({"feedback"}),
    "answer": frozenset({"formula"}),
}
_DEFAULTS: dict[str, str] = {
    "reply": "$feedback",
    "rule": "$statement",
    "card": "$rank",
    "card_join": ", ",
    "answer": '{"cards": [$cards], "number": [$numbers], "formula": "$formula=$target"}',
    "answer_card": '"$rank"',
    "answer_join": ", ",
}
_MAPPINGS = frozenset({"feedback", "rules"})


@dataclass(frozen=True, eq=False)
class PromptTemplate:
    """The words of the game; made by `load_template`.

    Attributes:
        name: The name or path it was loaded by.
        texts: Key to text, for every key that is not a mapping.
        feedback: Outcome to text.
        rules: Rule name to text, for rules worded differently from ``texts["rule"]``.
        image_problem: Why cards cannot be shown as an image with it; empty if they can.
    """

    name: str
    texts: Mapping[str, Template]
    feedback: Mapping[str, Template]
    rules: Mapping[str, Template]
    image_problem: str = ""

    def rule(self, rule: Rule) -> str:
        """How this template words a rule."""
        text = self.rules.get(rule.name, self.texts["rule"])
        return text.substitute(statement=rule.statement, jack=rule.jack, queen=rule.queen, king=rule.king)

    def cards(self, cards: Sequence[Card]) -> str:
        """How this template writes a hand."""
        one, join = self.texts["card"], self.texts["card_join"].template
        return join.join([one.substitute(rank=card.rank, symbol=card.symbol) for card in cards])

    def opening(
        self, cards: Sequence[Card], rule: Rule, target: int, max_attempts: int, modality: str = "text"
    ) -> list[Message]:
        """The messages an episode starts with: the prompt, after a system message if there is one.

        Raises:
            SftrlError: if the modality is "image" and the template is not made for that.
        """
        words = {
            "rule": self.rule(rule),
            "target": target,
            "num_cards": len(cards),
            "max_attempts": max_attempts,
        }
        if modality == "image":
            self.check_image()
            words["image"] = IMAGE_MARKER
        else:
            words["cards"] = self.cards(cards)
        roles = (("system", "system"), ("user", "image_prompt" if modality == "image" else "prompt"))
        return [
            {"role": role, "content": self.texts[key].substitute(words)}
            for role, key in roles
            if key in self.texts
        ]

    def check_image(self) -> None:
        """Refuse a template that does not say how to show cards as an image, or that names them.

        Raises:
            SftrlError: naming the file and the key.
        """
        if self.image_problem:
            raise SftrlError(self.image_problem)

    def feedback_text(self, verdict: Verdict, *, cards: str, numbers: str, target: int) -> str:
        """What the model is told about one attempt; cards and numbers as the prompt writes them."""
        text = self.feedback.get(verdict.outcome) or self.feedback["otherwise"]
        return text.substitute(target=target, numbers=numbers, cards=cards, verdict=verdict.feedback)

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

    def answer(self, cards: Sequence[Card], numbers: Sequence[int], formula: str, target: int) -> str:
        """The text of an answer with this formula, in the form the prompt asks for."""
        join = self.texts["answer_join"].template
        return self.texts["answer"].substitute(
            cards=join.join([self.texts["answer_card"].substitute(rank=card.rank) for card in cards]),
            numbers=join.join(map(str, numbers)),
            formula=formula,
            target=target,
        )


def expert_answer(
    template: PromptTemplate, cards: Sequence[Card], numbers: Sequence[int], formula: str, target: int = 24
) -> str:
    """The text an expert answers with; the one place where expert answers are written.

    With ``default`` and ``compact`` it is one JSON object. The ``authors`` grader reads a JSON list of cards
    (double quotes) as wrong cards, which matters only for images; ``single_quotes`` satisfies it, and so does
    ``answer_card: "'$rank'"`` in a template of your own.
    """
    return template.answer(cards, numbers, formula, target)


def template_names() -> frozenset[str]:
    """Names of the templates in the package."""
    return _OWN


def load_template(name_or_path: str | Path) -> PromptTemplate:
    """Load a template of the package by name, or a user's by the path of its YAML file.

    Raises:
        SftrlError: if there is no such template or file, or a key or placeholder in it is missing or unknown.
    """
    name = str(name_or_path)
    if name in _OWN:
        return _load(name, _FOLDER / f"{name}.yaml", 0)
    path = Path(name).expanduser()
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or "/" in name:
            raise SftrlError(f"prompt template file {name} does not exist.")
        raise unknown_name("prompt template", name, _OWN)
    return _load(name, path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _load(name: str, path: Path, mtime_ns: int) -> PromptTemplate:
    """Read and check one file; ``mtime_ns`` makes an edited file load again."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SftrlError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(data, dict):
        raise SftrlError(f"{path}: expected a mapping with the keys prompt, feedback, ..., found {data!r}.")
    for key in data:
        if key not in _PLACEHOLDERS:
            raise SftrlError(f"{path}: {unknown_name('key', key, _PLACEHOLDERS)}")
    for key in ("prompt", "feedback"):
        if key not in data:
            raise SftrlError(
                f"{path}: key {key!r} is missing; found {', '.join(map(str, data)) or 'no keys'}."
            )
    merged = _DEFAULTS | data
    texts = {key: _text(path, key, key, value) for key, value in merged.items() if key not in _MAPPINGS}
    feedback = _texts(path, "feedback", data["feedback"])
    missing = [outcome for outcome in OUTCOMES if outcome not in feedback]
    if missing and "otherwise" not in feedback:
        raise SftrlError(
            f"{path}: key 'feedback' has no text for {', '.join(missing)}; expected every outcome "
            f"({', '.join(OUTCOMES)}) or the key 'otherwise'."
        )
    for key in feedback:
        if key not in (*OUTCOMES, "otherwise"):
            raise SftrlError(f"{path}: {unknown_name('outcome in feedback', key, (*OUTCOMES, 'otherwise'))}")
    rules = _texts(path, "rules", data.get("rules") or {})
    return PromptTemplate(name, texts, feedback, rules, _image_problem(path, texts, feedback, rules))


def _image_problem(
    path: Path, texts: Mapping[str, Template], feedback: Mapping[str, Template], rules: Mapping[str, Template]
) -> str:
    """What keeps a template from showing cards as an image, as an error message."""
    if "image_prompt" not in texts:
        return f"{path}: key 'image_prompt' is missing; with modality 'image' it takes the place of 'prompt'."
    read = {key: texts[key] for key in ("system", "image_prompt", "rule", "reply") if key in texts}
    read |= {f"feedback.{name}": text for name, text in feedback.items()}
    read |= {f"rules.{name}": text for name, text in rules.items()}
    for key, text in read.items():
        for name in _placeholders(path, key, text.template):
            if name in ("cards", "numbers"):
                return (
                    f"{path}: key {key!r} has the placeholder ${name}, which gives the cards away; "
                    "not allowed with modality 'image'."
                )
        if IMAGE_MARKER in text.template:
            return f"{path}: key {key!r} holds the text {IMAGE_MARKER}; write $image in 'image_prompt' only."
    return ""


def _texts(path: Path, key: str, value: Any) -> dict[str, Template]:
    if not isinstance(value, dict):
        raise SftrlError(f"{path}: key {key!r} must be a mapping of names to texts, found {value!r}.")
    return {str(name): _text(path, f"{key}.{name}", key, text) for name, text in value.items()}


def _text(path: Path, where: str, key: str, value: Any) -> Template:
    """Check one text's placeholders."""
    if not isinstance(value, str):
        raise SftrlError(f"{path}: key {where!r} must be a text, found {value!r}.")
    names = list(_placeholders(path, where, value))
    found = set(names)
    allowed = _PLACEHOLDERS[key]
    if key == "image_prompt" and "cards" in found:
        raise SftrlError(f"{path}: key {where!r} has the placeholder $cards, which gives the cards away.")
    for name in sorted(found - allowed):
        known = " ".join(f"${word}" for word in sorted(allowed)) or "none"
        raise SftrlError(f"{path}: key {where!r} has the placeholder ${name}; allowed there: {known}.")
    for name in sorted(_NEEDED.get(key, frozenset()) - found):
        raise SftrlError(f"{path}: key {where!r} lacks the placeholder ${name}.")
    if names.count("image") > 1:
        raise SftrlError(f"{path}: key {where!r} has the placeholder $image more than once.")
    return Template(value)


def _placeholders(path: Path, where: str, value: str) -> Iterable[str]:
    for match in Template.pattern.finditer(value):
        if match.group("invalid") is not None:
            raise SftrlError(
                f"{path}: key {where!r} has a '$' that starts no placeholder, at character {match.start()}; "
                "write '$$' for a dollar."
            )
        name = match.group("named") or match.group("braced")
        if name:
            yield name
