"""Texts of the card game's rows: openings, expert answers and mistakes, each made once for equal hands.

Every text comes from the `PromptTemplate` and the verifier that the episode uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from data_prep.mistakes import spoiled
from data_prep.sources import Part, Source, image_seeds
from data_prep.splits import Split
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.cards import Card, suits_of
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, as_look, make_facts
from sftrl_ext.envs.general_points.families import find_rules
from sftrl_ext.envs.general_points.hands import HandArrays
from sftrl_ext.envs.general_points.prompts import expert_answer, load_template
from sftrl_ext.envs.general_points.rules import Rule
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.envs.general_points.working import calculations
from sftrl_ext.errors import SftrlError

POOL = 8
"""Most mistakes that are kept of a hand."""

Key = tuple[int, ...]
"""Indices of a hand's ranks, then those of its suits where a text shows suits, then its choices."""

# Characters that no template holds: they stand for the formula and its steps in an answer that is kept.
_FORMULA, _STEPS = "\x00", "\x01"


class HandWords:
    """Texts of one split's hands, each made once per key."""

    def __init__(self, split: Split, source: Source) -> None:
        settings = split.settings(source.settings)
        spec = split.hands
        self.split = split
        self.seed = source.seed
        self.settings = settings
        self.template = load_template(settings.template)
        self._letters = suits_of(spec.suits)
        self._ranks = find_rules(spec.rule).ranks
        self._names = [[rank + suit for suit in self._letters] for rank in self._ranks]
        self._spec = spec
        self._shows_suits = "symbol" in self.template.texts["card"].template
        self.image = settings.modality == "image"
        if self.image:
            from sftrl_ext.envs.general_points.render.decks import check_cards  # text needs no Pillow

            check_cards(as_look(settings.look).deck, self._ranks, self._letters)
        self.data_source = split.data_source(settings.modality)
        # The facts of rows with the same choices differ in the cards and the seed of the picture, which come
        # last: a row's JSON is this head and those.
        self._facts_head: Callable[[Key], str] = lru_cache(1 << 16)(self._head)
        self.opening: Callable[[Key], tuple[str, ...]] = lru_cache(1 << 16)(self._opening)
        self.expert: Callable[[Key, bool], tuple[Sequence[str], str]] = lru_cache(1 << 16)(self._expert)
        self.steps: Callable[[str], str] = lru_cache(1 << 16)(self._steps)
        self.mistakes: Callable[[Key, bool], list[tuple[str, str]]] = lru_cache(1 << 15)(self._mistakes)
        self.reply: Callable[[str, int, int], str] = lru_cache(1 << 12)(self._reply)
        cards, choices = np.zeros((1, spec.num_cards), dtype=int), np.ones((1, spec.width), dtype=int)
        some = HandArrays(spec, cards, cards, choices)
        self.roles = [message["role"] for message in self._messages(*self.keys(some))]

    def keys(self, hands: HandArrays) -> list[Key]:
        """Cache keys of the texts of some hands: ranks, suits if they are shown, and choices."""
        columns = [hands.ranks, hands.suits] if self._shows_suits else [hands.ranks]
        return list(map(tuple, np.hstack([*columns, hands.choices]).tolist()))

    def cards(self, key: Key) -> list[Card]:
        """The cards of a key; where it has no suits no text shows them, and any suit will do."""
        count = self._spec.num_cards
        suits = key[count : 2 * count] if self._shows_suits else (0,) * count
        return [Card(self._ranks[r], self._letters[s]) for r, s in zip(key[:count], suits, strict=True)]

    def rule_and_target(self, key: Key) -> tuple[Rule, int]:
        """The rule and the target of a key."""
        return self._spec.rule_and_target(key[len(key) - self._spec.width :])

    def facts(self, part: Part) -> list[str]:
        """The same texts as `facts_text` of `make_facts`, made faster."""
        names = self._names
        arrays = (part.hands.ranks, part.hands.suits, part.hands.choices)
        hands = [
            self._facts_head(tuple(choices))
            + '", "'.join([names[r][s] for r, s in zip(ranks, suits, strict=True)])
            for ranks, suits, choices in zip(*(array.tolist() for array in arrays), strict=True)
        ]
        if not self.image:
            return [f'{hand}"]}}' for hand in hands]
        seeds = image_seeds(self.seed, part.index).tolist()
        return [f'{hand}"], "image_seed": {seed}}}' for hand, seed in zip(hands, seeds, strict=True)]

    def answer(self, key: Key, chance: float, solutions: str, reasoned: bool = False) -> str:
        """An expert's answer; ``chance`` in [0, 1) chooses the solution, ``reasoned`` shows its working."""
        formulas, text = self.expert(key, reasoned)
        fixed = {"first": 0, "last": -1}
        formula = formulas[fixed[solutions] if solutions in fixed else int(chance * len(formulas))]
        text = text.replace(_FORMULA, formula)
        return text.replace(_STEPS, self.steps(formula)) if reasoned else text

    def _head(self, choices: Key) -> str:
        """The text of the facts up to the first card."""
        rule, target = self._spec.rule_and_target(choices)
        head, _, _ = facts_text(make_facts([], rule.name, target, self.settings)).rpartition('"cards": [')
        return head + '"cards": ["'

    def _messages(self, key: Key) -> list[dict[str, str]]:
        play = self.settings
        rule, target = self.rule_and_target(key)
        return self.template.opening(self.cards(key), rule, target, play.max_attempts, play.modality)

    def _opening(self, key: Key) -> tuple[str, ...]:
        return tuple([message["content"] for message in self._messages(key)])

    def _expert(self, key: Key, reasoned: bool) -> tuple[Sequence[str], str]:
        """Solutions of a hand, and its answer with a mark where the formula goes, and one for its steps."""
        cards = self.cards(key)
        rule, target = self.rule_and_target(key)
        numbers = rule.numbers(cards)
        steps = [_STEPS] if reasoned else None
        text = expert_answer(self.template, cards, numbers, _FORMULA, target, steps)
        return solutions_of(tuple(sorted(numbers)), target, self.settings.profile), text

    def _steps(self, formula: str) -> str:
        return self.template.texts["answer_join"].template.join(map(str, calculations(formula)))

    def _wrong_answer(self, key: Key, formula: str, reasoned: bool) -> str:
        """An answer with a formula that is no solution; without working where the formula has none."""
        if reasoned:
            try:
                steps = self.steps(formula)
            except SftrlError:
                pass
            else:
                return self.expert(key, True)[1].replace(_FORMULA, formula).replace(_STEPS, steps)
        return self.expert(key, False)[1].replace(_FORMULA, formula)

    def _mistakes(self, key: Key, reasoned: bool) -> list[tuple[str, str]]:
        """Wrong answers of a hand, all different, each with the feedback it gets."""
        cards = self.cards(key)
        rule, target = self.rule_and_target(key)
        numbers = tuple(sorted(rule.numbers(cards)))
        pool = wrong_formulas(numbers, target, self.seed)
        episode = GeneralPointsEpisode(make_facts(cards, rule.name, target, self.settings))
        mistakes: list[tuple[str, str]] = []
        # Hands of equal numbers share a pool; each begins at a place of its own, so that they differ in
        # mistakes.
        start = sum(part * 31**position for position, part in enumerate(key))
        for i in range(len(pool)):
            answer = self._wrong_answer(key, pool[(start + i) % len(pool)], reasoned)
            verdict = episode.grade(answer)
            if not verdict.correct:
                mistakes.append((answer, verdict.feedback))
            if len(mistakes) == POOL:
                break
        return mistakes

    def _reply(self, feedback: str, attempt: int, target: int) -> str:
        return self.template.reply(feedback, attempt, self.settings.max_attempts, target)


@lru_cache(maxsize=1 << 15)
def solutions_of(numbers: tuple[int, ...], target: int, profile: str = "exact") -> Sequence[str]:
    """Solutions of sorted numbers, solved once; under ``authors`` only those that grader accepts."""
    solutions = solve(numbers, target)
    if profile == "exact":
        return solutions

    def accepted(formula: str) -> bool:
        answer = json.dumps({"formula": f"{formula}={target}"})
        return grade_response(answer, cards=(), numbers=numbers, target=target, profile=profile).correct

    return [formula for formula in solutions if accepted(formula)]


@lru_cache(maxsize=1 << 15)
def wrong_formulas(numbers: tuple[int, ...], target: int, seed: int) -> list[str]:
    """Different formulas for sorted numbers, most of them wrong, a pure function of the arguments."""
    rng = np.random.default_rng([seed, target, *numbers])
    return list(dict.fromkeys(spoiled(rng, solutions_of(numbers, target), numbers, tries=8 * POOL)))
