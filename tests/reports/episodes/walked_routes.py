"""A made-up city and episodes on its routes, as evaluation stores them. No model has walked them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.envs.virl.city.build import MAP, VIEWS
from sftrl_ext.envs.virl.episode import NavigationEpisode, PlaySettings, make_facts, track_of
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.rail import FORWARD, STOP
from sftrl_ext.envs.virl.routes import load_routes
from sftrl_ext.runs.run_folder import load_run
from tests.reports.synthetic_run import make_run


def small_city(folder: Path, *, pictures: bool = False) -> Path:
    """A city of three streets across and six routes; its panoramas are of one colour each, other ones."""
    build_city(folder, "brick", 3, 6, streets=3, pictures=False)
    if pictures:
        (folder / VIEWS).mkdir()
        for number, pano_id in enumerate(PanoramaMap.load(folder / MAP).places.values()):
            colour = (97 * number % 256, 57 * number % 256, 31 * number % 256)
            Image.new("RGB", (64, 32), colour).save(folder / VIEWS / f"{pano_id}.jpg")
            told = {"rotation": 0.0, "width": 64, "height": 32}
            (folder / VIEWS / f"{pano_id}.metadata.json").write_text(json.dumps(told))
    return folder


def route_facts(city: Path, index: int = 0, **settings: Any) -> dict[str, Any]:
    """The facts of an episode on a route of the city."""
    if settings.get("modality") == "image":
        settings = {"street_views": str(city / VIEWS), "image_size": 96, **settings}
    play = PlaySettings(**settings)
    route = load_routes(city / "route_infos.json").routes[index]
    return make_facts(track_of(route, play, PanoramaMap.load(city / MAP)), play, rail_seed=1)


def answer(episode: NavigationEpisode, right: bool = True) -> str:
    """An answer at the episode's point: the expert's, or one with a wrong action."""
    if right:
        return episode.expert_answer()
    action = STOP if episode.point.action == FORWARD else FORWARD
    return json.dumps({"current observation": "nothing", "current instruction": "go", "action": action})


def walked(
    facts: Mapping[str, Any], tries: Sequence[bool], *, old: bool = False, **of: Any
) -> dict[str, Any]:
    """The line of ``episodes.jsonl`` of an episode.

    Args:
        facts: The route.
        tries: Whether the answers are right, one after the other; all further ones are.
        old: Leave out what older runs do not store.
        of: Changes to stage, arm, seed, step and split.
    """
    episode = make_episode(facts)
    assert isinstance(episode, NavigationEpisode)
    segments: list[dict[str, Any]] = []
    attempts = []
    left = iter(tries)
    while not episode.done:
        point, before = episode.position, episode.messages()
        text = answer(episode, next(left, True))
        step = episode.submit(text)
        said = [*before, {"role": "assistant", "content": text}]
        attempts.append({"outcome": step.attempt.verdict.outcome, "reward": step.reward})
        if not old:
            attempts[-1] |= {"point": point, "response": text}
        if not segments or segments[-1]["point"] != point:
            segments.append({"point": point})
        segments[-1]["messages"] = said
    stored = {
        "stage": "rl-s0", "arm": "rl", "seed": 0, "step": 8, "split": "rule_ood", **of, "facts": facts,
        "messages": segments[-1]["messages"], "attempts": attempts, "solved": episode.solved,
    }  # fmt: skip
    return stored if old or len(segments) < 2 else stored | {"segments": segments}


def route_run(folder: Path, lines: Sequence[Mapping[str, Any]], **settings: Any) -> Path:
    """A synthetic run whose stored episodes are these."""
    make_run(folder, points=2, splits=("id", "rule_ood"), training=False, **settings)
    (folder / "eval" / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def load_one(folder: Path, line: Mapping[str, Any]) -> Any:
    """A stored line as the reports read it."""
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    (folder / "eval" / "episodes.jsonl").write_text(json.dumps(line) + "\n")
    (episode,) = load_run(folder).episodes
    return episode
