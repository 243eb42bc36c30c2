"""The rollout server while weights change: interrupted responses, waiting and rejected requests."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from sftrl_ext.backends.hf_in_verl.server import HFServer
from tests.backends.tiny import save_folder

TOKENS = 200
PARAMS = {"temperature": 1.0, "ignore_eos": True, "max_tokens": TOKENS}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = save_folder(tmp_path_factory.mktemp("model"))
    config = OmegaConf.create(
        {
            "dtype": "float32",
            "max_num_seqs": 8,
            "seed": 0,
            "max_model_len": None,
            "ignore_eos": False,
            "response_length": TOKENS,
            "prompt_length": 20,
        }
    )
    return HFServer(config, str(folder), 0)


async def started(server, count=3):
    """Responses that are being generated."""
    await server.resume_generation()
    before = server.batcher.engine.generated_count
    tasks = [asyncio.create_task(server.generate([2, 3 + i], dict(PARAMS), f"r{i}")) for i in range(count)]
    while server.batcher.engine.generated_count < before + 5 * count:
        await asyncio.sleep(0.002)
    return tasks


def test_a_pause_ends_responses_with_what_they_have_and_keeps_others_waiting(server):
    async def scenario():
        tasks = await started(server)
        aborted = await server.abort_all_requests()
        outputs = await asyncio.gather(*tasks)
        late = asyncio.create_task(server.generate([4], dict(PARAMS), "late"))
        await asyncio.sleep(0.2)
        waited, idle = not late.done(), not server.batcher.engine.busy
        await server.resume_generation()
        return aborted, outputs, waited, idle, await late

    aborted, outputs, waited, idle, late = asyncio.run(scenario())
    assert aborted["aborted_count"] == 3 and waited and idle
    for output in outputs:
        assert output.stop_reason == "aborted" and 5 <= len(output.token_ids) < TOKENS
        assert len(output.log_probs) == len(output.token_ids)
    assert late.stop_reason == "completed" and len(late.token_ids) == TOKENS


def test_a_request_is_aborted_even_before_its_first_step(server):
    async def scenario():
        await server.resume_generation()
        task = asyncio.create_task(server.generate([2], dict(PARAMS), "r"))
        await asyncio.sleep(0)
        await server.abort_all_requests()
        return await asyncio.wait_for(task, 5)

    for _ in range(5):
        assert asyncio.run(scenario()).stop_reason == "aborted"


def test_a_server_that_leaves_the_rotation_rejects(server):
    async def scenario():
        await server.abort_all_requests(reject_request=True)
        return await asyncio.wait_for(server.generate([2], dict(PARAMS), "r"), 5)

    output = asyncio.run(scenario())
    assert output.stop_reason == "aborted" and output.token_ids == []


def test_verls_client_continues_an_interrupted_response_under_the_next_policy(server):
    from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient

    class Client(FullyAsyncLLMServerClient):
        """verl's, with the server in this process instead of behind a load balancer."""

        async def _acquire_server(self, request_id, **extra):
            return "0", SimpleNamespace(generate=SimpleNamespace(remote=server.generate))

        def _release_server(self, server_id, request_id=None):
            pass

    async def scenario():
        rollout = {"name": "hf", "full_determinism": False}
        client = Client(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}}))
        await server.resume_generation()
        await server.set_global_steps(4)
        before = server.batcher.engine.generated_count
        task = asyncio.create_task(client.generate("r", prompt_ids=[2, 3], sampling_params=dict(PARAMS)))
        while server.batcher.engine.generated_count < before + 10:
            await asyncio.sleep(0.002)
        await server.abort_all_requests()
        await server.set_global_steps(5)
        await server.resume_generation()
        return await task

    output = asyncio.run(scenario())
    assert len(output.token_ids) == len(output.log_probs) == TOKENS
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (4, 5)
