"""The agent loop: from a row of the data set to what the trainer reads out of the queue."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf

from sftrl_ext.envs.task import TASKS, TaskSpec
from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import VARIABLE
from tests.rollout.tiny import Guess, Script, Walk, tiny_tokenizer

for name, make in {
    "test_guess": lambda facts: Guess(facts["word"]),
    "test_walk": lambda facts: Walk(),
}.items():
    if name not in TASKS:
        TASKS.add(name, TaskSpec(name, make))


class Server:
    """verl's client of the rollout servers, over a script."""

    def __init__(self, tokenizer, says, steps=7):
        self.engine, self.steps, self.requests = Script(tokenizer, says), steps, []

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None):
        self.requests.append((request_id, sampling_params))
        generation = await self.engine(prompt_ids, sampling_params)
        steps = self.steps + len(self.requests)
        return SimpleNamespace(
            token_ids=generation.token_ids,
            log_probs=generation.logprobs,
            extra_fields={"min_global_steps": steps, "max_global_steps": steps},
        )


def make_loop(server, prompt_length=100, response_length=300, **rollout):
    async def build():
        from verl.experimental.agent_loop.agent_loop import DictConfigWrap

        from sftrl_ext.rollout.verifier_loop import VerifierLoop

        config = OmegaConf.create(
            {
                "actor_rollout_ref": {
                    "rollout": {"prompt_length": prompt_length, "response_length": response_length}
                },
                "data": {},
                "sftrl": {"rollout": rollout},
            }
        )
        return VerifierLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=server.engine.tokenizer,
            processor=None,
            dataset_cls=None,
            data_config=DictConfigWrap(config.data),
            hf_model_type="llama",
        )

    return build


def run(server, row=None, **settings):
    async def go():
        loop = await make_loop(server, **settings)()
        return await loop.run({"temperature": 0.2}, **(row or guess_row()))

    return asyncio.run(go())


def guess_row(**changes):
    facts = json.dumps({"task": "test_guess", "word": "yes"})
    row = {
        "extra_info": {"index": 5, "facts": facts},
        "data_source": "unknown/x",
        "index": 5,
        "global_steps": 3,
    }
    return {**row, **changes}


def test_output_of_an_episode():
    server = Server(tiny_tokenizer(), ["no", "yes"])
    (output,) = run(server, max_turn_tokens=20)
    fields = output.as_dict()
    length = len(output.response_ids)
    for name in ("responses", "response_mask", "turn_ids", "rm_scores", "rollout_log_probs"):
        assert fields[name].shape == (length,), name
    assert fields["turn_ids"].dtype == torch.int64
    assert fields["rm_scores"].nonzero().flatten().tolist() == [2, length - 1]
    assert fields["rm_scores"][[2, length - 1]].tolist() == [-1.0, 5.0]
    assert output.reward_score == 4.0 and output.num_turns == 2
    info = fields["extra_fields"]["reward_extra_info"]
    assert info["acc"] == info["solved"] == 1.0 and info["turns"] == 2 and info["episode_error"] == 0.0
    assert info["generated_tokens"] == 7 and "reward" not in info
    assert all(isinstance(value, float) for value in info.values())
    assert fields["extra_fields"]["min_global_steps"] == 8 and fields["extra_fields"]["max_global_steps"] == 9
    # The policy that wrote each turn, as the engine counts them.
    assert fields["extra_fields"]["turn_versions"] == [[8, 8], [9, 9]]
    assert {request for request, _ in server.requests} == {server.requests[0][0]}
    assert server.requests[0][1] == {"temperature": 0.2, "max_tokens": 20}


def test_outputs_become_a_tensordict_with_a_row_each():
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    row = guess_row(extra_info={"facts": json.dumps({"task": "test_walk"})})
    outputs = run(Server(tiny_tokenizer(), ["a", "x", "b", "c"]), row)
    assert len(outputs) == 3
    batch = list_of_dict_to_tensordict([output.as_dict() for output in outputs])
    assert batch["turn_ids"].is_nested and batch["turn_ids"].offsets().diff().tolist()[0] == 2
    assert [scores.sum().item() for scores in batch["rm_scores"].unbind()] == [1.0, 0.0, 1.0]
    versions = [output.extra_fields["turn_versions"] for output in outputs]
    assert versions == [[[8, 8]], [[9, 9], [10, 10]], [[11, 11]]]
    # Every output carries the episode's numbers: verl reads those of the last one.
    assert len({str(output.extra_fields["reward_extra_info"]) for output in outputs}) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (guess_row(extra_info={"index": 1}), "extra_info.facts"),
        (guess_row(extra_info={"index": 1, "facts": "["}), "extra_info.facts"),
        (guess_row(extra_info={"facts": json.dumps({"task": "test_gues"})}), "test_guess"),
        (guess_row(raw_prompt=[{"role": "user", "content": "old"}]), "build them again"),
        (guess_row(), "crashed"),
    ],
)
def test_a_failed_episode_is_a_row_without_loss(row, says, caplog):
    (output,) = run(Server(tiny_tokenizer(), ["no", "crash"]), row)
    fields = output.as_dict()
    assert fields["responses"].shape == (1,) and len(output.prompt_ids) >= 1
    for name in ("response_mask", "turn_ids", "rm_scores", "rollout_log_probs"):
        assert fields[name].tolist() == [0], name
    assert says in fields["extra_fields"]["error"]
    info = fields["extra_fields"]["reward_extra_info"]
    assert info["episode_error"] == 1.0 and not {"acc", "solved", "turns"} & set(info)
    assert isinstance(fields["extra_fields"]["min_global_steps"], int)
    assert "Traceback" in caplog.text


def test_a_lost_engine_is_told_from_a_bad_row():
    from ray.exceptions import ActorDiedError

    class Dead(Server):
        async def generate(self, request_id, **unused):
            raise ActorDiedError()

    rows = ((Dead, guess_row()), (Server, guess_row(extra_info={"facts": "["})))
    outputs = [run(server(tiny_tokenizer(), ["no"]), row) for server, row in rows]
    assert [output.extra_fields["engine_lost"] for [output] in outputs] == [True, False]


def test_rewards_by_name_of_a_plugin_and_by_data_source(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    (output,) = run(Server(tokenizer, ["no", "yes"]), reward="binary")
    assert output.reward_score == 1.0
    file = tmp_path / "mine.py"
    file.write_text(
        "from sftrl_ext.reward_fns import register_reward\n"
        "@register_reward('h4_length', 'h4_test/*')\n"
        "def length(step, facts):\n"
        "    return len(step.attempt.response)\n"
    )
    monkeypatch.setenv(VARIABLE, str(file))
    (output,) = run(Server(tokenizer, ["no", "yes"]), reward="h4_length")
    assert output.reward_score == 5.0
    (output,) = run(Server(tokenizer, ["no", "yes"]), guess_row(data_source="h4_test/id"))
    assert output.reward_score == 5.0
    (output,) = run(Server(tokenizer, ["no", "yes"]), reward="h4_lenght")
    assert "h4_length" in output.extra_fields["error"]


def test_a_turn_longer_than_the_response_is_refused():
    with pytest.raises(SftrlError, match="fit"):
        run(Server(tiny_tokenizer(), ["yes"]), max_turn_tokens=500)


def test_default_turn_limit_leaves_room_for_five_attempts():
    server = Server(tiny_tokenizer(), ["yes"])
    run(server)
    assert server.requests[0][1]["max_tokens"] == 50


def test_an_episode_has_no_more_prompts_than_asked_for():
    row = guess_row(extra_info={"facts": json.dumps({"task": "test_walk"})})
    outputs = run(Server(tiny_tokenizer(), ["a", "x", "b", "c"]), row, max_turn_tokens=20, max_prompts=2)
    assert [output.num_turns for output in outputs] == [1, 2]
    for output in outputs:
        info = output.extra_fields["reward_extra_info"]
        assert (info["out_of_tokens"], info["episode_error"], info["acc"], info["turns"]) == (1, 0, 0, 3)
