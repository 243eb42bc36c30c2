from __future__ import annotations

import json
import os
import re
from collections import Counter

import gymnasium
import pyarrow as pa
import pytest

from data_prep.general_points import reasoned_rows, rl_rows, sft_rows, suboptimal_rows
from data_prep.sources import Source
from data_prep.splits import SPLITS, get_split, register_split
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.hands import is_held_out
from sftrl_ext.envs.general_points.rules import RULES, Rule, register_rule
from sftrl_ext.envs.general_points.working import calculations
from sftrl_ext.errors import SftrlError
from tests.rows import bare

COMPACT = PlaySettings(template="compact")


def _rows(tables) -> list[dict]:
    return pa.concat_tables(tables).to_pylist()


def _multisets(rows: list[dict]) -> set:
    episodes = [make_episode(json.loads(row["extra_info"]["facts"])) for row in rows]
    return {(tuple(sorted(episode.numbers)), episode.target) for episode in episodes}


@pytest.mark.parametrize("template", ["default", "compact"])
@pytest.mark.parametrize("builder", [rl_rows, sft_rows, reasoned_rows, suboptimal_rows])
@pytest.mark.parametrize("split", ["id", "rule_ood", "ood_five_cards", "ood_target_36", "ood_large"])
def test_row_episode_and_environment_have_the_same_prompt(builder, split, template):
    for row in _rows(builder(Source(split, settings=PlaySettings(template=template)), 30)):
        facts = json.loads(row["extra_info"]["facts"])
        episode = make_episode(facts)
        assert facts_text(episode.facts) == row["extra_info"]["facts"] == row["reward_model"]["ground_truth"]
        assert row["prompt"] == episode.messages()
        env = gymnasium.make(
            "sftrl/GeneralPoints-v0",
            rule=facts["rule"],
            target=facts["target"],
            num_cards=len(facts["cards"]),
            template=template,
        )
        obs, info = env.reset(seed=0, options={"cards": facts["cards"]})
        assert obs["messages"] == row["prompt"]
        assert [rank + suit for rank, suit in zip(info["cards"], info["suits"], strict=True)] == facts[
            "cards"
        ]


@pytest.mark.parametrize("builder", [sft_rows, reasoned_rows])
@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_expert_answers_solve_at_once(profile, builder):
    hands = set()
    for row in _rows(builder(Source("face_10", settings=PlaySettings(profile=profile)), 4000)):
        (turn,) = row["train_turns"]
        assert turn == len(row["messages"]) - 1 == 1
        episode = make_episode(json.loads(row["extra_info"]["facts"]))
        assert episode.submit(row["messages"][turn]["content"]).terminated
        hands.add(tuple(sorted(episode.numbers)))
    assert ((3, 3, 8, 8) in hands) == (profile == "exact" and not is_held_out((3, 3, 8, 8)))


def test_expert_answers_vary_unless_the_first_is_asked_for():
    source = Source("id", settings=COMPACT)

    def formulas(**options):
        answers = {}
        for row in _rows(sft_rows(source, 3000, **options)):
            key = row["prompt"][0]["content"]
            answers.setdefault(key, set()).add(json.loads(row["messages"][-1]["content"])["formula"])
        return answers

    assert max(map(len, formulas().values())) > 1
    assert max(map(len, formulas(solutions="first").values())) == 1


@pytest.mark.parametrize("template", ["default", "compact", "single_quotes"])
@pytest.mark.parametrize("splits", [["id", "all_5", "all_7"], "ood_five_cards"])
def test_reasoned_rows_are_the_expert_rows_with_their_working(splits, template):
    source = Source(splits, seed=2, settings=PlaySettings(template=template))
    pairs = zip(_rows(sft_rows(source, 300)), _rows(reasoned_rows(source, 300)), strict=True)
    for plain, reasoned in pairs:
        *opening, answer = plain.pop("messages")
        *same, shown = reasoned.pop("messages")
        assert (plain, opening) == (reasoned, same)
        working = re.search(r'"working": "([^"]*)", ', shown["content"])
        assert shown["content"].replace(working[0], "") == answer["content"]
        formula = re.search(r'"formula": "([^"]*)=24"', answer["content"])
        assert working.start() < shown["content"].index(formula[0])
        episode = make_episode(json.loads(plain["extra_info"]["facts"]))
        steps = working[1].split(", ")
        assert steps[1 - len(episode.cards) :] == [str(step) for step in calculations(formula[1])]
        read = {re.match("[AJQK]", step)[0] for step in steps[: 1 - len(episode.cards)]}
        assert read == {card.rank for card in episode.cards} & set("AJQK")


def test_reasoned_rows_need_a_place_for_the_working(tmp_path):
    path = tmp_path / "mine.yaml"
    text = "prompt: $cards\nfeedback: {otherwise: nope}\n"
    path.write_text(text + 'answer: \'{"formula": "$formula"}\'\n')
    source = Source("id", settings=PlaySettings(template=str(path)))
    assert len(_rows(sft_rows(source, 3))) == 3
    with pytest.raises(SftrlError, match=r"mine\.yaml: key 'answer' lacks the placeholder \$working"):
        list(reasoned_rows(source, 3))
    path.write_text(text + "answer: '$working{\"formula\": \"$formula\"}'\nanswer_working: 'So $steps. '\n")
    os.utime(path, ns=(1, 1))
    for row in _rows(reasoned_rows(source, 3)):
        assert re.fullmatch(r'So .*=24\. {"formula": "[^"]*"}', row["messages"][-1]["content"])
    path.write_text(text + "answer: '$working$formula'\n")
    os.utime(path, ns=(2, 2))
    for builder in (sft_rows, reasoned_rows):
        with pytest.raises(SftrlError, match=r"mine\.yaml.*own answer.*expected an answer"):
            list(builder(source, 3))


def test_suboptimal_dialogues_are_what_the_episode_gives():
    lengths: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()
    for row in _rows(suboptimal_rows(Source("rule_ood"), 300)):
        episode = make_episode(json.loads(row["extra_info"]["facts"]))
        assert bare(row["messages"][:1]) == episode.messages()
        for turn in range(1, len(row["messages"]), 2):
            episode.submit(row["messages"][turn]["content"])
            assert bare(row["messages"][: turn + 2]) == episode.messages()
        assert episode.solved
        assert row["train_turns"] == [len(row["messages"]) - 1]
        lengths[len(episode.attempts)] += 1
        outcomes.update(attempt.verdict.outcome for attempt in episode.attempts[:-1])
        assert len({attempt.response for attempt in episode.attempts}) == len(episode.attempts)
    assert set(lengths) == {2, 3, 4, 5}
    assert min(lengths.values()) > 40
    assert set(outcomes) == {"wrong_value", "wrong_numbers", "illegal_formula"}


def test_reasoned_dialogues_are_the_same_dialogues_with_their_working():
    plain = _rows(suboptimal_rows(Source("rule_ood"), 200))
    reasoned = _rows(suboptimal_rows(Source("rule_ood"), 200, reasoned=True))
    shown = without = 0
    for row, other in zip(plain, reasoned, strict=True):
        assert row["extra_info"] == other["extra_info"]
        assert len(row["messages"]) == len(other["messages"])
        for said, message in zip(row["messages"], other["messages"], strict=True):
            if message["role"] == "user":
                assert said == message
                continue
            answer = json.loads(message["content"])
            working = answer.pop("working", None)
            assert answer == json.loads(said["content"])
            shown += working is not None
            without += working is None
            formula = answer["formula"].partition("=")[0]
            if working is not None:
                assert working.endswith(", ".join(map(str, calculations(formula))))
            else:
                with pytest.raises(SftrlError, match="has no working"):
                    calculations(formula)
        assert "working" in json.loads(other["messages"][-1]["content"])
    assert shown > 300 and without > 20


def test_suboptimal_settings():
    source = Source("id", settings=PlaySettings(max_attempts=10))
    assert {len(row["messages"]) for row in _rows(suboptimal_rows(source, 20, mistakes=(2, 2)))} == {6}
    assert max(len(row["messages"]) for row in _rows(suboptimal_rows(source, 200))) == 18
    with pytest.raises(SftrlError, match="max_attempts is 5"):
        list(suboptimal_rows(Source("id"), 1, mistakes=(1, 5)))
    with pytest.raises(SftrlError, match="Did you mean 'first'"):
        list(suboptimal_rows(Source("id"), 1, solutions="frst"))


@pytest.mark.parametrize("builder", [rl_rows, sft_rows, reasoned_rows, suboptimal_rows])
@pytest.mark.parametrize("splits", ["id", ("id", "ood_five_cards")])
def test_a_longer_file_starts_with_the_same_rows(builder, splits):
    short, long = (_rows(builder(Source(splits, seed=4), rows)) for rows in (100, 700))
    assert long[:100] == short
    assert [row["extra_info"]["index"] for row in long] == list(range(700))


def test_seeds_and_streams_give_other_hands():
    first, other, evaluation = (
        _rows(rl_rows(source, 50))
        for source in (Source("id"), Source("id", seed=1), Source("id", train=False))
    )
    assert first[0]["prompt"] != other[0]["prompt"]
    assert first[0]["prompt"] != evaluation[0]["prompt"]


def test_training_and_unseen_splits_share_no_number_multiset():
    training = _multisets(_rows(rl_rows(Source(["face_10", "face_11_12_13", "id", "rule_ood"]), 8000)))
    for split in ("id_unseen", "rule_ood_unseen"):
        unseen = _multisets(_rows(rl_rows(Source(split, train=False), 1000)))
        assert len(unseen) > 30
        assert not training & unseen
        assert all(is_held_out(*multiset) for multiset in unseen)
    assert not any(is_held_out(*multiset) for multiset in training)


def test_the_further_splits_hold_what_they_say():
    for split, want in {
        "rule_ood": lambda e: e.rule.name == "face_11_12_13" and {"J", "Q", "K"} & {c.rank for c in e.cards},
        "ood_all_5": lambda e: e.rule.king == 5 and {"J", "Q", "K"} & {c.rank for c in e.cards},
        "ood_all_7": lambda e: e.rule.king == 7,
        "ood_all_12": lambda e: e.rule.king == 12,
        "ood_large": lambda e: max(e.numbers) >= 14,
        "ood_five_cards": lambda e: len(e.cards) == 5 and e.rule.name == "face_10",
        "ood_target_36": lambda e: e.target == 36,
        "ood_target_100": lambda e: e.target == 100,
    }.items():
        rows = _rows(rl_rows(Source(split, train=False), 60))
        assert {row["data_source"] for row in rows} == {f"gp_l/{split}"}
        assert all(want(make_episode(json.loads(row["extra_info"]["facts"]))) for row in rows)


def test_mixtures_have_the_shares_asked_for():
    rows = _rows(sft_rows(Source(["face_10", "face_11_12_13"], weights=[3, 1]), 2000))
    counts = Counter(row["data_source"] for row in rows)
    assert 0.7 < counts["gp_l/face_10"] / 2000 < 0.8
    assert counts.total() == 2000


def test_hands_can_be_changed():
    rows = _rows(rl_rows(Source("rule_ood", hands={"draw": "deck", "suits": "red"}), 200))
    for row in rows:
        cards = json.loads(row["extra_info"]["facts"])["cards"]
        assert len(set(cards)) == 4
        assert {card[-1] for card in cards} <= {"H", "D"}


def test_a_rule_and_a_split_are_a_line_each(monkeypatch):
    monkeypatch.setattr(RULES, "_items", dict(RULES._items))
    monkeypatch.setattr(SPLITS, "_items", dict(SPLITS._items))
    register_rule(Rule("all_3", 3, 3, 3))
    register_split("ood_all_3", rule="all_3", need_face=True, part="seen")
    (row,) = _rows(sft_rows(Source("ood_all_3", settings=COMPACT), 1))
    assert row["prompt"][0]["content"].startswith("J=3 Q=3 K=3 cards ")
    assert (
        make_episode(json.loads(row["extra_info"]["facts"])).submit(row["messages"][-1]["content"]).terminated
    )


def test_a_template_with_a_system_message(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("system: Play.\nprompt: $cards\nfeedback: {otherwise: nope}\n")
    for builder in (sft_rows, reasoned_rows, suboptimal_rows):
        for row in _rows(builder(Source("id", settings=PlaySettings(template=str(path))), 20)):
            assert [message["role"] for message in row["prompt"]] == ["system", "user"]
            assert bare(row["messages"][:2]) == row["prompt"]
            assert row["messages"][row["train_turns"][0]]["role"] == "assistant"


@pytest.mark.parametrize("builder", [rl_rows, sft_rows, reasoned_rows, suboptimal_rows])
def test_a_template_that_shows_suits(builder, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: $cards\ncard: $symbol\nfeedback: {otherwise: not with $cards}\n")
    for row in _rows(builder(Source("id", settings=PlaySettings(template=str(path))), 40)):
        episode = make_episode(json.loads(row["extra_info"]["facts"]))
        assert row["prompt"] == episode.messages()
        for message in row["messages"][1::2]:
            episode.submit(message["content"])
        assert (bare(row["messages"]) or episode.messages()) == episode.messages()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"splits": "id_unsen"}, "Did you mean 'id_unseen'"),
        ({"splits": "ood_target_"}, "unknown split"),
        ({"splits": []}, "expected one weight"),
        ({"splits": ["id"], "weights": [1, 2]}, "expected one weight"),
        ({"hands": {"suit": "red"}}, "Did you mean 'suits'"),
        ({"hands": {"suits": "rde"}}, "Did you mean 'red'"),
    ],
)
def test_wrong_sources(source, words):
    with pytest.raises(SftrlError, match=words):
        list(rl_rows(Source(**source), 1))


def test_wrong_rows():
    with pytest.raises(SftrlError, match="rows is -1"):
        list(rl_rows(Source("id"), -1))
    assert get_split("id").data_source() == "gp_l/id"


@pytest.mark.parametrize("builder", [rl_rows, sft_rows, reasoned_rows, suboptimal_rows])
@pytest.mark.parametrize("settings", [COMPACT, PlaySettings(modality="image")])
def test_rows_of_a_family_have_a_rule_and_a_target_each(builder, settings):
    source = Source("other_faces", settings=settings, hands={"num_cards": 3, "targets": [1, 30]})
    short, long = (_rows(builder(source, rows)) for rows in (40, 600))
    assert long[:40] == short
    games = set()
    for row in short:
        facts = json.loads(row["extra_info"]["facts"])
        episode = make_episode(facts)
        assert facts_text(episode.facts) == row["extra_info"]["facts"]
        assert row["prompt"] == episode.messages()
        if row["messages"]:
            for turn in range(1, len(row["messages"]), 2):
                episode.submit(row["messages"][turn]["content"])
                assert bare(row["messages"][: turn + 2]) == episode.messages()
            assert episode.solved
        games.add((facts["rule"], facts["target"]))
    assert len(games) > 30


def test_a_split_about_its_target_or_its_cards_keeps_them():
    hands = {"num_cards": 3, "targets": (1, 30)}
    resolved = Source(["id", "ood_target_36", "ood_five_cards"], hands=hands).resolved()
    found = [(split.hands.num_cards, list(split.hands.all_targets)) for split in resolved]
    assert found == [(3, list(range(1, 31))), (3, [36]), (5, list(range(1, 31)))]
    with pytest.raises(SftrlError, match="faces_3_7'"):
        get_split("faces_3_7")
