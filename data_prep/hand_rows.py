"""Rows of the card game for the data stage and ``sftrl data``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from data_prep.general_points import Solutions, reasoned_rows, rl_rows, sft_rows, suboptimal_rows
from data_prep.given_hands import given_hand_rows
from data_prep.hand_card import HandCard
from data_prep.held_out import HeldOutCheck, check_held_out
from data_prep.sources import Source
from data_prep.splits import SPLITS, get_split
from data_prep.task_rows import Splits, Tables, TaskRows
from sftrl_ext.envs.general_points.answer import extract_answer
from sftrl_ext.envs.general_points.cards import Card, parse_card, parse_cards
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look, make_facts
from sftrl_ext.envs.general_points.families import FAMILIES, RuleFamily, find_rules
from sftrl_ext.envs.general_points.rules import RULES, Rule, bindings_of, held_out_bindings
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError, check_known, named


class HandRows(TaskRows):
    """Rows of hands.

    Attributes:
        settings: How the hands are played.
        held_out: Bindings that no row of the first stages states.
    """

    def __init__(self, config: TaskConfig, folder: Path, pretrain: bool = False) -> None:
        super().__init__(config, folder, pretrain)
        self.settings = hand_settings(config)
        self.held_out = held_out_bindings(config.held_out)
        solutions = cast(Solutions, config.solutions)  # the builders refuse any other
        answered: dict[str, Callable[..., Tables]] = {
            "sft": reasoned_rows if config.working else sft_rows,
            "reasoned": reasoned_rows,
            "suboptimal": partial(suboptimal_rows, reasoned=config.working),
        }
        solved = {kind: partial(builder, solutions=solutions) for kind, builder in answered.items()}
        self.builders = {"rl": rl_rows, **solved}

    @classmethod
    def split_names(cls) -> Collection[str]:
        """See `TaskRows`; the name of a rule or of a family is a split too."""
        return [*SPLITS, *RULES, *FAMILIES]

    @classmethod
    def card(cls) -> HandCard:
        """See `TaskRows`."""
        return HandCard()

    @classmethod
    def check(cls, config: TaskConfig, splits: Mapping[str, Sequence[str]]) -> None:
        """See `TaskRows`."""
        check_known("task.solutions", "choice of solutions", config.solutions, get_args(Solutions))
        with named("task"):
            make = cls(config, Path())
            for pretraining in (False, True):
                make.source("id", 0, pretraining=pretraining).resolved()
        for key, names in splits.items():
            with named(key):
                for name in names:
                    get_split(name).settings(make.settings)

    @classmethod
    def read_answer(cls, answer: str, config: TaskConfig) -> dict[str, Any]:
        """Facts of the hand an answer is about: its cards, and the first rule that gives them its numbers.

        Returns:
            What `make_facts` gives, or an empty dict if the answer does not say; of an image it would have to
            say the suits too.
        """
        claim = extract_answer(answer)
        if not claim.cards or not claim.number:
            return {}
        if config.modality == "image" and not all(card.suit for card in map(_card, claim.cards)):
            return {}
        settings = hand_settings(config)
        for name in RULES:
            facts = make_facts(claim.cards, name, config.target, settings)
            try:
                numbers = [RULES[name].number(card) for card in claim.cards]
            except SftrlError:
                continue
            if sorted(numbers) == sorted(claim.number):
                return facts
        return {}

    @classmethod
    def under_trained_rule(cls, facts: Mapping[str, Any], train_split: str) -> dict[str, Any] | None:
        """See `TaskRows`; also None where the trained rule is drawn, or has not all cards of the hand."""
        trained = find_rules(get_split(train_split).hands.rule)
        ranks = {card.rank for card in parse_cards(facts["cards"])}
        if (
            isinstance(trained, RuleFamily)
            or facts.get("rule") == trained.name
            or not ranks <= set(trained.ranks)
        ):
            return None
        return {**facts, "rule": trained.name}

    @classmethod
    def sample_texts(cls, rows: int) -> list[str]:
        """See `TaskRows`."""
        texts = []
        for modality in ("text", "image"):
            source = Source("id", settings=PlaySettings(modality=modality), hands={"suits": "black"})
            tables = (*sft_rows(source, rows), *suboptimal_rows(source, rows, mistakes=(1, 4)))
            for table in tables:
                texts += [message["content"] for row in table.to_pylist() for message in row["messages"]]
        return texts

    def source(
        self,
        splits: Splits,
        seed: int,
        attempts: int | None = None,
        *,
        train: bool = True,
        pretraining: bool = False,
    ) -> Source:
        """See `TaskRows`."""
        config = self.config
        suits = config.pretrain_suits if pretraining else None
        hands = {
            "suits": suits or config.suits,
            "draw": config.draw,
            "num_cards": config.cards,
            "target": config.target,
            "targets": config.targets,
        }
        settings = replace(self.settings, max_attempts=attempts or config.max_attempts)
        given = {name: value for name, value in hands.items() if value}
        return Source(splits, seed=seed, train=train, settings=settings, hands=given)

    def check_held_out(self, path: Path, init: bool = False) -> HeldOutCheck | None:
        """See `TaskRows`."""
        trained = find_rules(get_split(self.config.train_split).hands.rule)
        stated = frozenset(bindings_of(trained)) if init and isinstance(trained, Rule) else frozenset()
        held = [bindings for bindings in self.held_out if not bindings <= stated]
        return check_held_out(path, held, {} if init else self.config.exposure) if held else None

    def given(self, path: Path, name: str, seed: int, limit: int | None = None) -> Tables:
        """See `TaskRows`."""
        source = self.source("id", seed, train=False)
        return given_hand_rows(path, name, source, train_split=self.config.train_split, limit=limit)


def hand_settings(config: TaskConfig) -> PlaySettings:
    """Returns how the hands of a task are played."""
    return PlaySettings(
        max_attempts=config.max_attempts,
        profile=config.profile,
        template=config.template,
        modality=config.modality,
        look=as_look(config.look) if config.modality == "image" else None,
    )


def _card(text: str) -> Card:
    """A card of an answer; one that is none has no suit."""
    try:
        return parse_card(text)
    except SftrlError:
        return Card(text)
