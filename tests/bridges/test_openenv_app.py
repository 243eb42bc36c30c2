"""Server and client of OpenEnv: sessions play episodes of their own at the same time."""

from __future__ import annotations

import asyncio

import pytest

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from tests.serving import served

pytestmark = pytest.mark.bridges


def rows(**options):
    return find_rows(task="general_points", split="rule_ood", rows=4, max_attempts=3, **options).facts


async def play(url, index, answers):
    from sftrl_ext.bridges.openenv_app import Answer, EpisodeClient

    async with EpisodeClient(base_url=url) as env:
        results = [await env.reset(index=index)]
        for answer in answers:
            await asyncio.sleep(0.01)  # another session is served in between
            results.append(await env.step(Answer(response=answer)))
        return results, await env.state()


def sessions(facts, *players):
    from sftrl_ext.bridges.openenv_app import make_server

    async def together(url):
        return await asyncio.gather(*(play(url, *player) for player in players), return_exceptions=True)

    with served(make_server(facts, sessions=8)) as seen:
        return asyncio.run(together(seen.url.removesuffix("/v1")))


def test_sessions_do_not_share_an_episode():
    facts = rows()
    answers = [[f"answer {index}"] * 3 for index in range(4)]
    played = sessions(facts, *enumerate(answers))
    for index, (results, state) in enumerate(played):
        episode = make_episode(facts[index])
        first, *later = results
        assert (first.observation.messages, first.observation.index) == (episode.messages(), index)
        for answer, result in zip(answers[index], later, strict=True):
            step = episode.submit(answer)
            assert (result.reward, result.done) == (step.reward, step.done)
            assert result.observation.messages == episode.messages()
            assert result.observation.outcome == step.attempt.verdict.outcome
        assert later[-1].done and state.step_count == 3


def test_images_travel_as_data_urls():
    [(results, _)] = sessions(rows(modality="image", image_size="64x48"), (0, []))
    (picture,) = results[0].observation.images
    assert picture.startswith("data:image/png;base64,")


def test_an_unknown_row_is_refused():
    [error] = sessions(rows(), (9, []))
    assert "expected 0 to 3" in str(error)
