"""Draw ``episode-tokens.png``: how two episodes become tokens, masks, rewards and advantages.

``python docs/figures/draw_episode.py`` plays both with a model that says what it is told. Tokens, masks, turn
ids and rewards are those of `sftrl_ext.rollout.player`, advantages those of `sftrl_ext.training.credit`.
"""

from __future__ import annotations

import asyncio
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from sftrl_ext.envs import Episode, make_episode
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.episode import PlaySettings, make_facts, track_of
from sftrl_ext.envs.virl.routes import load_routes
from sftrl_ext.experiments.start_models.tiny_model import train_tokenizer
from sftrl_ext.rollout.player import Generation, Limits, PlayedEpisode, Segment, play
from sftrl_ext.rollout.tokens import chat_tokens
from sftrl_ext.training.credit import collect_turns, leave_one_out_advantages

OUT = Path(__file__).with_name("episode-tokens.png")
GAMMA = 0.9
HAND = {"task": "general_points", "cards": ["K", "5", "2", "4"], "template": "compact"}
RIGHT, VALUE, NUMBERS = "10+2*5+4=24", "10*2+5-4=24", "10*2+4=24"
HANDS = [[VALUE, RIGHT], [RIGHT], [VALUE, NUMBERS, RIGHT], [NUMBERS] * 5]
"""Formulas of four episodes of one hand; the first is drawn."""

PROMPT, FEEDBACK, TURNS = "#d5d9de", "#f3d9a4", ("#7fb3e6", "#5b8fd0")
GOOD, BAD, INK = "#2e7d4f", "#b3402e", "#22272e"


class Script:
    """An engine that says what it is told."""

    def __init__(self, tokenizer: Any, says: Sequence[str]) -> None:
        self.tokenizer, self.says = tokenizer, iter(says)

    async def __call__(self, prompt_ids: list[int], params: dict[str, Any], images: Any) -> Generation:
        """The next answer, with the token that ends a turn."""
        text = next(self.says)
        return Generation([*self.tokenizer.encode(text), self.tokenizer.eos_token_id])


def hand_answers(formulas: Sequence[str]) -> list[str]:
    """Answers, shorter than those the prompt asks for."""
    return [f'{{"formula": "{formula}"}}' for formula in formulas]


def route_facts() -> dict[str, Any]:
    """A route of a made-up city."""
    with tempfile.TemporaryDirectory() as folder:
        routes = build_city(Path(folder) / "city", routes=1, pictures=False, most_legs=2)
        route = load_routes(routes).routes[0]
    settings = PlaySettings(template="compact")
    return make_facts(track_of(route, settings), settings, rail_seed=3)


def route_answers(facts: dict[str, Any], failures: Sequence[int]) -> list[str]:
    """Right actions at every point, after one wrong one at some."""
    rail = make_episode(facts).rail  # type: ignore[attr-defined]
    says = []
    for number, point in enumerate(rail.points):
        says += ['{"action": "stop()"}'] * (number in failures) + [f'{{"action": "{point.action}"}}']
    return says


def play_all(episodes: Sequence[tuple[Episode, Sequence[str]]]) -> tuple[Any, list[PlayedEpisode]]:
    """Play episodes with a tokenizer that was made for their words."""
    corpus = [text for episode, says in episodes for text in (episode.messages()[0]["content"], *says)]
    corpus += ["wrong value", "wrong numbers", "wrong action", "wrong observation"]
    tokenizer = train_tokenizer(corpus * 20, 2000, 4096)
    chat = chat_tokens(create_continuous_token_builder(tokenizer, hf_model_type="llama"))
    limits = Limits(prompt=1000, response=1000, turn=100)
    return tokenizer, [
        asyncio.run(play(episode, Script(tokenizer, says), chat, limits)) for episode, says in episodes
    ]


def advantages(played: Sequence[PlayedEpisode]) -> list[list[list[float]]]:
    """RLOO advantages of a group: per episode and segment, one number per token."""
    rows = [(n, s, segment) for n, one in enumerate(played) for s, segment in enumerate(one.segments)]

    def padded(lists: Sequence[Sequence[float]]) -> torch.Tensor:
        tensors = [torch.tensor(values, dtype=torch.float64) for values in lists]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)

    turns = collect_turns(
        padded([segment.turn_ids for _, _, segment in rows]).long(),
        padded([segment.token_rewards() for _, _, segment in rows]),
        [n for n, _, _ in rows],
        [s for _, s, _ in rows],
    )
    group = torch.zeros(len(played), dtype=torch.int64)
    spread = turns.to_tokens(leave_one_out_advantages(turns.rewards, turns.alive, group, GAMMA))
    found: list[list[list[float]]] = [[] for _ in played]
    for (n, _, segment), values in zip(rows, spread.tolist(), strict=True):
        found[n].append(values[: len(segment.turn_ids)])
    return found


ROWS = ("response_mask", "turn_ids", "reward", "advantage")
TOKEN, LINE = 6.2, 1.3
"""Heights of the row of tokens and of each row below, in widths of a token."""
INCHES = 13.0
"""Width of the figure."""


def draw_segment(
    ax: Axes,
    tokenizer: Any,
    segment: Segment,
    gains: Sequence[float],
    top: float,
    left: float = 0,
    wide: int = 0,
) -> float:
    """Draw one segment, its prompt as one box ``wide`` tokens wide, or token by token; give its right end."""
    lines = [top - TOKEN - LINE * (number + 1) for number in range(len(ROWS))]
    start = left + (wide or len(segment.prompt_ids))
    if wide:
        _box(ax, left, top - TOKEN, wide, TOKEN, PROMPT)
        said = segment.messages[0]["content"]
        shown = [part for line in said.splitlines() for part in textwrap.wrap(line, 50)]
        words = {"fontsize": 7.6, "va": "center", "color": INK, "linespacing": 1.2}
        ax.text(left + 0.3, top - TOKEN / 2, "\n".join(shown), **words)
    else:
        for place, token in enumerate(segment.prompt_ids):
            _token(ax, left + place, top, tokenizer.decode([token]), PROMPT)
    for name, y in zip(ROWS, lines, strict=True):
        ax.text(start - 0.5, y + LINE / 2, name, ha="right", va="center", fontsize=8.5, family="monospace")
    rewards = segment.token_rewards()
    for at, (token, turn) in enumerate(zip(segment.response_ids, segment.turn_ids, strict=True)):
        place, colour = start + at, TURNS[(turn - 1) % 2] if turn else FEEDBACK
        _token(ax, place, top, tokenizer.decode([token]), colour)
        cells = [str(segment.response_mask[at]), str(turn), f"{rewards[at]:+g}" if rewards[at] else "", ""]
        for text, y in zip(cells, lines, strict=True):
            _box(ax, place, y, 1, LINE, colour if turn else "white", alpha=0.45 if turn else 1)
            bold = "bold" if text[:1] in "+-" and text else "normal"
            tone = (GOOD if text[0] == "+" else BAD) if bold == "bold" else INK if turn else "#9aa0a8"
            ax.text(
                place + 0.5, y + LINE / 2, text, ha="center", va="center", fontsize=8, color=tone, weight=bold
            )
    for turn in range(1, max(segment.turn_ids) + 1):
        places = [place for place, written in enumerate(segment.turn_ids) if written == turn]
        first, last, gain = places[0], places[-1], gains[places[0]]
        tone = GOOD if gain > 0 else BAD
        _box(ax, start + first, lines[-1], last - first + 1, LINE, tone, alpha=0.16)
        middle = start + (first + last + 1) / 2
        words = {"fontsize": 8.5, "ha": "center", "va": "center", "color": tone, "weight": "bold"}
        ax.text(middle, lines[-1] + LINE / 2, f"{gain:+.2f}", **words)
        ax.text(middle, top + 0.25, f"model, turn {turn}", ha="center", va="bottom", fontsize=9.5)
    if 0 in segment.turn_ids:
        said = [place for place, written in enumerate(segment.turn_ids) if not written]
        ax.text(
            start + sum(said) / len(said) + 0.5,
            top + 0.25,
            "feedback",
            ha="center",
            va="bottom",
            fontsize=9.5,
        )
    ax.text((left + start) / 2, top + 0.25, "prompt", ha="center", va="bottom", fontsize=9.5)
    return start + len(segment.response_ids)


def _token(ax: Axes, place: float, top: float, text: str, colour: str) -> None:
    _box(ax, place, top - TOKEN, 1, TOKEN, colour)
    shown = {"rotation": 90, "ha": "center", "va": "center", "family": "monospace", "color": INK}
    points = 0.94 * TOKEN * 72 * INCHES / (ax.get_xlim()[1] - ax.get_xlim()[0])
    # A letter of this family is 0.6 times as wide as it is high.
    size = min(9.0, points / (0.6 * len(text)))
    ax.text(place + 0.5, top - TOKEN / 2, text.replace(" ", "␣"), fontsize=size, **shown)


def _box(ax: Axes, x: float, y: float, w: float, h: float, colour: str, alpha: float = 1.0) -> None:
    ax.add_patch(Rectangle((x, y), w, h, facecolor=colour, edgecolor="white", linewidth=0.8, alpha=alpha))


def main() -> None:
    """Play, and draw."""
    facts = route_facts()
    hands = [(make_episode(HAND), hand_answers(formulas)) for formulas in HANDS]
    routes = [(make_episode(facts), route_answers(facts, failures)) for failures in ((1,), ())]
    tokenizer, played = play_all([*hands, *routes])
    of_hand, of_route = advantages(played[: len(hands)])[0], advantages(played[len(hands) :])[0]
    hand, route = played[0].segments[0], played[len(hands)].segments

    width = len(hand.prompt_ids) + len(hand.response_ids) + 0.5
    block, second = TOKEN + LINE * len(ROWS), -(TOKEN + LINE * len(ROWS) + 4.2)
    height = 2.8 + block - second
    fig, ax = plt.subplots(figsize=(INCHES, INCHES * height / width), dpi=140)
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set_xlim(-0.25, width - 0.25)
    ax.set_ylim(second - block, 2.8)
    draw_segment(ax, tokenizer, hand, of_hand[0], 0.0)
    end = -1.0
    for segment, gains in zip(route[:2], of_route, strict=False):
        end = draw_segment(ax, tokenizer, segment, gains, second, left=end + 1, wide=15)
    title = {"fontsize": 12, "weight": "bold", "va": "bottom"}
    ax.text(0, 1.6, "GeneralPoints: one prompt, one dialogue, one row of the batch", **title)
    text = "V-IRL: at each point a new prompt, and a row of its own (the first two points of a route)"
    ax.text(0, second + 1.6, text, **title)
    ax.axis("off")
    fig.savefig(OUT)
    plt.close(fig)


if __name__ == "__main__":
    main()
