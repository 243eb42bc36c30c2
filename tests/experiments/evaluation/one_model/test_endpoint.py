"""`sftrl eval --endpoint` against small servers: grading, retries, refusals, resuming, and the key."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from fastapi.responses import JSONResponse, Response
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.envs.general_points import solve
from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.one_model.console_tables import Prices
from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions
from sftrl_ext.experiments.evaluation.one_model.evaluate_one import evaluate_model
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest
from sftrl_ext.experiments.evaluation.targets import load_eval_set
from sftrl_ext.files import read_jsonl
from tests.serving import canned, error, served

ROWS = 6
KEY = "sk-very-secret-17"
WRONG = '{"cards": [], "number": [], "formula": "1+1=24"}'


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "id.parquet"
    words = ["data", "rl", "--eval", "--rows", ROWS, "--max-attempts", 3, "--out", path]
    assert main([str(word) for word in words]) == 0
    return path


def answers(path):
    """First prompt of each row to (its number, a right answer)."""
    found = {}
    for index, facts in enumerate(load_eval_set(path).facts):
        episode = make_episode(facts)
        formula = solve(episode.numbers, episode.target)[0]
        found[episode.messages()[-1]["content"]] = (index, json.dumps({"formula": f"{formula}=24"}))
    return found


def knows(path):
    """A model that solves row i at attempt i, so rows 0, 1 and 2 within three attempts."""
    right = answers(path)

    def reply(body):
        asked = [m for m in body["messages"] if m["role"] != "system"]
        index, answer = right[asked[0]["content"]]
        return answer if len(asked) // 2 == index else WRONG

    return reply


def request(seen, rows, tmp_path, **more):
    options = {"retries": 2, "concurrency": 3, **more.pop("options", {})}
    endpoint = EndpointOptions(seen.url, **options)
    told = {"model": "m", "episodes": tmp_path / "episodes.jsonl", **more}
    return EvalRequest(files=[rows], endpoint=endpoint, **told)


def run(asked):
    """The one record, and what was printed."""
    shown = io.StringIO()
    (record,) = evaluate_model(asked, Console(file=shown, width=200))
    return record, shown.getvalue()


def test_success_tokens_and_cost(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(canned(knows(rows))) as seen:
        record, shown = run(request(seen, rows, tmp_path, prices=Prices(2.0, 10.0), temperature=0.7))
    assert (record["episodes"], record["solved"], record["solved_first"]) == (6, 3, 1)
    requests = 1 + 2 + 3 + 3 * 3
    assert record["usage"] == {
        "requests": requests,
        "retries": 0,
        "prompt_tokens": 100 * requests,
        "completion_tokens": 7 * requests,
        "uncounted": 0,
        "cost": pytest.approx((200 * requests + 70 * requests) / 1e6),
    }
    assert "50.0" in shown and "1,500" in shown and "0.0040" in shown
    body = seen.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.7, 512)
    assert len({body["seed"] for body in seen.requests}) == requests
    # The key went to the server and nowhere else.
    assert seen.keys == {f"Bearer {KEY}"}
    assert KEY not in shown
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_limit_plays_the_first_rows_of_a_file(rows, tmp_path):
    with served(canned(knows(rows))) as seen:
        record, _ = run(request(seen, rows, tmp_path, limit=2))
    assert (record["episodes"], record["solved"]) == (2, 2)
    with pytest.raises(SftrlError, match="--limit 0: expected 1 or more"):
        request(seen, rows, tmp_path, limit=0)


def test_the_dialogue_grows_by_response_and_feedback(rows, tmp_path):
    with served(canned(knows(rows))) as seen:
        run(request(seen, rows, tmp_path, options={"concurrency": 1}))
    sent = [body["messages"] for body in seen.requests]
    third = next(m for m in sent if [message["role"] for message in m].count("assistant") == 2)
    episode = make_episode(load_eval_set(rows).facts[2])
    assert third[: len(episode.messages())] == episode.messages()
    for _ in range(2):
        episode.submit(WRONG)
    assert third == episode.messages()
    assert [message["role"] for message in third[-4:]] == ["assistant", "user"] * 2
    assert seen.most_in_flight == 1


def test_a_route_is_walked_point_by_point(tmp_path):
    city, path = tmp_path / "city", tmp_path / "routes.parquet"
    assert main(["data", "virl-city", "--rows", "6", "--out", str(city)]) == 0
    words = ["data", "rl", "--eval", "--task", "virl", "--routes", city, "--rows", "3", "--out", path]
    assert main([str(word) for word in words]) == 0
    prompts, points = {}, []
    for facts in load_eval_set(path).facts:
        episode = make_episode(facts)
        points.append(0)
        while not episode.done:
            prompts[episode.messages()[-1]["content"]] = episode.expert_answer()
            episode.submit(episode.expert_answer())
            points[-1] += 1
    last = list(prompts)[points[0] - 1]  # where the first route ends

    def reply(body):
        first, *tries = body["messages"]
        if first["content"] == last:
            return WRONG
        # Everywhere else the second try is right.
        return prompts[first["content"]] if tries else WRONG

    with served(canned(reply)) as seen:
        record, shown = run(request(seen, path, tmp_path))
    steps = sum(points)
    assert (record["episodes"], record["solved"]) == (3, 2)
    assert (record["correct_actions"], record["responses"]) == (steps - 1, 2 * steps)
    assert "per step %" in shown
    assert {len(body["messages"]) for body in seen.requests} == {1, 3}
    assert record["usage"]["requests"] == 2 * steps


@pytest.mark.parametrize(
    ("choice", "outcome", "solved"),
    [
        ({"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}, "unparsable", 0),
        (
            {"message": {"role": "assistant", "content": "{}"}, "finish_reason": "content_filter"},
            "unparsable",
            0,
        ),
        (error(400, "filtered", code="content_filter"), "unparsable", 0),
        ("length", "correct", 6),
    ],
)
def test_no_text_is_a_failed_attempt_and_cut_text_is_graded(rows, tmp_path, choice, outcome, solved):
    right = answers(rows)

    def reply(body):
        if choice != "length":
            return choice
        first = next(m["content"] for m in body["messages"] if m["role"] == "user")
        text = right[first][1] + " and then"
        return {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}

    with served(canned(reply)) as seen:
        record, _ = run(request(seen, rows, tmp_path))
    assert record["outcomes"] == {outcome: 6 if solved else 18}
    assert (record["solved"], record["errors"]) == (solved, 0)


def test_a_flaky_server_is_asked_again(rows, tmp_path):
    good, statuses, tries = knows(rows), iter([429, 500, 503, 408, 409]), []

    def reply(body):
        tries.append(body)
        status = next(statuses, None)
        return good(body) if status is None else error(status, "later")

    with served(canned(reply)) as seen:
        record, _ = run(request(seen, rows, tmp_path, options={"retries": 5}))
    assert (record["solved"], record["usage"]["retries"]) == (3, 5)
    assert len(tries) == record["usage"]["requests"] + 5


def choice(**fields):
    return json.dumps({"choices": [{"message": {"content": WRONG}, "finish_reason": "stop", **fields}]})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"choices": "abc"}', "not a chat completion"),
        ('{"choices": [null]}', "not a chat completion"),
        ('{"choices": []}', "not a chat completion"),
        ('["choices"]', "not a chat completion"),
        ('{"error": {"message": "overloaded"}}', "overloaded"),
        (choice(message=None), "not a chat completion"),
        (choice(message={}), "not a chat completion"),
        (choice(message={"content": 17}), "content is '17'"),
        (choice(message={"content": [{"type": "text", "text": WRONG}]}), "expected a text or null"),
        (choice(finish_reason=3), "finish_reason is '3'"),
        (choice(finish_reason="error"), "the server broke off"),
        ("[" * 100_000, "broken JSON"),
        (choice()[:-20], "broken JSON"),
        ("", "broken JSON"),
        (b"\xff\xfe\x00", "broken JSON"),
    ],
)
def test_an_answer_that_is_no_completion_is_a_fault_of_the_server(rows, tmp_path, body, reason):
    broken = Response(body, media_type="application/json")
    with served(canned(lambda _: broken)) as seen, pytest.raises(SftrlError, match=reason) as caught:
        run(request(seen, rows, tmp_path, options={"retries": 0}))
    assert seen.url in str(caught.value)
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 1  # the settings
    if body == '{"choices": "abc"}':  # nothing of the fault is left
        with served(canned(knows(rows))) as seen:
            record, shown = run(request(seen, rows, tmp_path))
        assert (record["solved"], record["errors"]) == (3, 0) and "played before" not in shown


@pytest.mark.parametrize("junk", ["\ud800", "\udfff\ud83d", "\x00", "\x1b[2J\x1b]0;x\x07", "\u202e\ufeff"])
def test_model_text_is_graded_whatever_it_holds(rows, tmp_path, junk):
    right = answers(rows)

    def reply(body):
        first, *tries = (m["content"] for m in body["messages"] if m["role"] != "system")
        return Response(choice(message={"content": junk + (right[first][1] if tries else WRONG) + junk}))

    with served(canned(reply)) as seen:
        record, _ = run(request(seen, rows, tmp_path))
        again, shown = run(request(seen, rows, tmp_path))
    assert record["outcomes"] == {"correct": 6, "wrong_numbers": 6}
    assert again == record and "6 of 6 episodes were played before" in shown
    said = seen.requests[-1]["messages"][-2]["content"]
    if junk.isprintable():
        assert junk in said


def test_a_malformed_answer_is_asked_for_again(rows, tmp_path):
    good, bodies = knows(rows), iter(['{"choices": [null]}', "<html>"])

    def reply(body):
        broken = next(bodies, None)
        return good(body) if broken is None else Response(broken)

    with served(canned(reply)) as seen:
        record, _ = run(request(seen, rows, tmp_path))
    assert (record["solved"], record["usage"]["retries"], record["errors"]) == (3, 2, 0)


@pytest.mark.parametrize(
    "usage", ["many", {"prompt_tokens": "x"}, {"prompt_tokens": -1}, {"prompt_tokens": 10**400}, None]
)
def test_an_unusable_count_of_tokens_is_no_count(rows, tmp_path, usage):
    body = json.loads(choice()) | {"usage": usage}
    with served(canned(lambda _: JSONResponse(body))) as seen:
        record, _ = run(request(seen, rows, tmp_path, prices=Prices(2.0, 10.0)))
    assert record["usage"]["uncounted"] == record["usage"]["requests"] == 18
    assert record["usage"]["prompt_tokens"] == 0


def test_stored_episodes_with_an_error_are_played_again(rows, tmp_path):
    path = tmp_path / "episodes.jsonl"
    with served(canned(knows(rows))) as seen:
        whole, _ = run(request(seen, rows, tmp_path))
        head, *lines = path.read_text().splitlines()
        failed = {"responses": [], "attempts": [], "solved": False, "error": "TypeError: 'str' object"}
        first = json.dumps(json.loads(lines[0]) | failed)
        path.write_text("\n".join([head, first, *lines[1:], ""]))
        for message in ("5 of 6 episodes were played before", "6 of 6 episodes were played before"):
            record, shown = run(request(seen, rows, tmp_path))
            assert message in shown
            assert record == whole


def test_a_refusal_after_the_first_answer_is_not_stored(rows, tmp_path):
    good, answered = knows(rows), []

    def reply(body):
        if len(answered) == 4:
            return error(402, "the credit is used up")
        answered.append(body)
        return good(body)

    with served(canned(reply)) as seen, pytest.raises(SftrlError, match="the credit is used up"):
        run(request(seen, rows, tmp_path, options={"concurrency": 1}))
    stored = list(read_jsonl(tmp_path / "episodes.jsonl"))[1:]
    assert len(stored) == 2 and all(line["error"] is None for line in stored)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(401, f"no such key: {KEY}"), ["refuses the key", "no such key: ***", "OPENAI_API_KEY"]),
        (error(403, "not for you"), ["does not allow", "'m'", "not for you"]),
        (error(404, "no such model"), ["no model 'm'", "/v1"]),
        (error(400, "seed is not supported"), ["seed is not supported", "--extra"]),
    ],
)
def test_what_cannot_succeed_is_said_once(rows, tmp_path, monkeypatch, answer, words):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(canned(lambda body: answer)) as seen, pytest.raises(SftrlError) as caught:
        run(request(seen, rows, tmp_path))
    told = str(caught.value)
    assert seen.url in told
    assert all(word in told for word in words), told
    assert KEY not in told
    assert KEY not in (tmp_path / "episodes.jsonl").read_text()


@pytest.mark.parametrize(
    ("echo", "shown"),
    [
        (KEY, "***"),
        (f"{KEY[:7]}*****{KEY[-4:]}", "********"),
        (f"..{KEY[-6:]} of 17", "..*** of 17"),
        (f"{KEY[:-1]}", "***"),
    ],
)
def test_parts_of_the_key_are_not_repeated(rows, tmp_path, monkeypatch, echo, shown):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    answer = error(401, f"Incorrect API key: {echo}")
    with served(canned(lambda body: answer)) as seen, pytest.raises(SftrlError) as caught:
        run(request(seen, rows, tmp_path))
    told = str(caught.value)
    assert (
        re.search(r"Incorrect API key: (.*)\. The key is read", told)[1].replace("*" * 11, "*" * 8) == shown
    )
    assert not any(KEY[start : start + 4] in told for start in range(len(KEY) - 3))


def test_an_unreachable_server_is_named(rows, tmp_path):
    with served(canned(knows(rows))) as seen:
        pass
    with pytest.raises(SftrlError, match=f"{seen.url} cannot be reached"):
        run(request(seen, rows, tmp_path, options={"retries": 0}))


def test_an_episode_without_answer_is_left_for_the_next_start(rows, tmp_path):
    good, right = knows(rows), answers(rows)

    def reply(body):
        first = next(m["content"] for m in body["messages"] if m["role"] == "user")
        return error(500, "burnt") if right[first][0] == 4 else good(body)

    with served(canned(reply)) as seen, pytest.raises(SftrlError, match="1 episodes got no answer.*burnt"):
        run(request(seen, rows, tmp_path, options={"retries": 1}))
    with served(canned(good)) as seen:
        record, shown = run(request(seen, rows, tmp_path))
    assert len(seen.requests) == 3
    assert (record["episodes"], record["solved"]) == (6, 3)
    assert "5 of 6 episodes were played before" in shown


def test_a_server_out_of_order_is_not_asked_for_every_row(rows, tmp_path):
    with served(canned(lambda body: error(503, "closed"))) as seen:
        with pytest.raises(SftrlError, match="failed 1 times.*closed"):
            run(request(seen, rows, tmp_path, options={"retries": 0}))
        assert len(seen.requests) < ROWS


def test_a_dialogue_beyond_the_context_ends_its_episode(rows, tmp_path):
    def reply(body):
        long = len(body["messages"]) > 4
        return error(400, "This model's maximum context length is 9 tokens.") if long else WRONG

    with served(canned(reply)) as seen:
        record, shown = run(request(seen, rows, tmp_path))
    assert (record["out_of_tokens"], record["errors"], record["attempts_mean"]) == (6, 0, 2.0)
    assert "6 episodes ran out of tokens" in shown


def test_extra_keys_replace_and_remove(rows, tmp_path):
    options = {"extra": {"seed": None, "max_tokens": None, "max_completion_tokens": 9, "stop": ["x"]}}
    with served(canned(knows(rows))) as seen:
        run(request(seen, rows, tmp_path, options=options))
    keys = {"model", "messages", "temperature", "max_completion_tokens", "stop"}
    assert all(set(body) == keys for body in seen.requests)


def test_a_file_of_other_settings_data_or_nature_is_refused_and_kept(rows, tmp_path):
    with served(canned(knows(rows))) as seen:
        run(request(seen, rows, tmp_path))
        whole = (tmp_path / "episodes.jsonl").read_text()
        other = tmp_path / "other.parquet"
        assert main(["data", "rl", "--eval", "--rows", "6", "--seed", "9", "--out", str(other)]) == 0
        for wrong, words in (
            ({"model": "n"}, 'model = "m"; now it is "n"'),
            ({"temperature": 0.9}, "temperature"),
            ({"options": {"extra": {"a": 1}}}, "extra"),
            ({"files": [other]}, "data"),
        ):
            files = wrong.pop("files", [rows])
            with pytest.raises(SftrlError, match=words):
                run(request(seen, files[0], tmp_path, **wrong))
        foreign = tmp_path / "notes.txt"
        foreign.write_text("my notes without a last newline")
        with pytest.raises(SftrlError, match="not a file of episodes"):
            run(request(seen, rows, tmp_path, episodes=foreign))
    assert foreign.read_text() == "my notes without a last newline"
    assert (tmp_path / "episodes.jsonl").read_text() == whole


def test_a_number_that_is_no_index_is_named(rows, tmp_path):
    path = tmp_path / "episodes.jsonl"
    with served(canned(knows(rows))) as seen:
        run(request(seen, rows, tmp_path))
        path.write_text(path.read_text().replace('"index": 0', '"index": Infinity'))
        with pytest.raises(SftrlError, match=r"episodes\.jsonl, line \d+: no episode of this evaluation"):
            run(request(seen, rows, tmp_path))


def test_a_torn_line_is_played_again_and_a_finished_file_asks_nothing(rows, tmp_path):
    path = tmp_path / "episodes.jsonl"
    with served(canned(knows(rows))) as seen:
        first, _ = run(request(seen, rows, tmp_path))
        whole = path.read_text()
        path.write_text(whole[:-30])
        before = len(seen.requests)
        again, _ = run(request(seen, rows, tmp_path))
        assert 1 <= len(seen.requests) - before <= 3
        assert again == first
        before = len(seen.requests)
        assert run(request(seen, rows, tmp_path))[0] == first
        assert len(seen.requests) == before
    assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())
    # A first line cut short is a file that never began.
    path.write_text(whole[:20])
    with served(canned(knows(rows))) as seen:
        assert run(request(seen, rows, tmp_path))[0] == first | {"endpoint": seen.url}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_evaluation_goes_on(rows, tmp_path, stop):
    import asyncio

    good = knows(rows)

    async def slowly(body):
        if len(list(read_jsonl(path, torn_tail=True))) > 2:  # the head and two episodes
            await asyncio.sleep(3600)
        return good(body)

    path = tmp_path / "episodes.jsonl"
    words = ["eval", "--model", "m", "--data", rows, "--episodes", path, "--concurrency", 2, "--endpoint"]
    with served(canned(slowly)) as seen:
        command = [sys.executable, "-m", "sftrl_ext.cli", *map(str, words), seen.url]
        process = subprocess.Popen(
            command,
            env={**os.environ, "OPENAI_API_KEY": KEY},
            stderr=subprocess.PIPE,
            text=True,
            # A shell without job control starts its background jobs with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            deadline = time.monotonic() + 300
            while len(list(read_jsonl(path, torn_tail=True))) < 3:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
            process.send_signal(stop)
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
    kept = len(list(read_jsonl(path, torn_tail=True))) - 1
    if stop == signal.SIGINT:
        assert f"{kept} finished episodes are kept in" in " ".join(told.split())
    with served(canned(good)) as seen:
        asked = request(seen, rows, tmp_path)
        record, shown = run(asked)
    assert f"{kept} of 6 episodes were played before" in shown
    assert record["solved"] == 3
    places = [(line["set"], line["index"]) for line in list(read_jsonl(path))[1:]]
    assert sorted(places) == [(0, index) for index in range(ROWS)]


def test_the_command_line(rows, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTHER_KEY", raising=False)
    with served(canned(knows(rows))) as seen:
        words = ["eval", "--endpoint", seen.url, "--model", "owner/m", "--data", str(rows)]
        assert main([*words, "--price-in", "1", "--out", "records.jsonl"]) == 0
        assert "every episode: evals/owner-m-" in capsys.readouterr().out
        assert main([*words, "--key-variable", "OTHER_KEY", "--seed", "3"]) == 2
        assert "OTHER_KEY is not set" in capsys.readouterr().err
        assert main([*words, "--concurrency", "0"]) == 2
    (record,) = read_jsonl(tmp_path / "records.jsonl")
    assert (record["model"], record["engine"], record["solved"]) == ("owner/m", "endpoint", 3)
    assert record["usage"]["cost"] == pytest.approx(0.0015)
    names = [path.name.rpartition("-")[0] for path in (tmp_path / "evals").iterdir()]
    assert names == ["owner-m"]  # nothing is left of an evaluation that could not begin
    assert main(["eval", "--endpoint", "http://me:secret@host/v1", "--model", "m", "--data", str(rows)]) == 2
    told = capsys.readouterr().err
    assert "password" in told and "secret@" not in told
    assert main(["eval", "--endpoint", "localhost:1", "--model", "m", "--data", str(rows)]) == 2


def test_names_of_a_data_file_are_no_markup(rows, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pq.read_table(rows)
    foreign = [
        row | {"extra_info": row["extra_info"] | {"split": ":x: [/b]\x1b[2J"}} for row in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(foreign, schema=table.schema), ":x:[b].parquet")
    with served(canned(knows(rows))) as seen:
        words = ["eval", "--endpoint", seen.url, "--model", ":x:", "--data", ":x:[b].parquet"]
        assert main([*words, "--episodes", ":x:[b].jsonl"]) == 0
    shown = capsys.readouterr().out
    assert ":x: [/b]␛[2J" in shown and "every episode: :x:[b].jsonl" in shown
    assert main(["validate", ":x:[c].parquet"]) == 2
    assert ":x:[c].parquet: no such file" in capsys.readouterr().err


def test_no_torch_is_needed(rows, tmp_path):
    blocked = "import sys\nfor name in ('torch', 'verl', 'ray', 'transformers', 'matplotlib'):\n"
    blocked += "    sys.modules[name] = None\nfrom sftrl_ext.cli import main\nsys.exit(main(sys.argv[1:]))"
    with served(canned(knows(rows))) as seen:
        words = ["eval", "--endpoint", seen.url, "--model", "m", "--data", str(rows)]
        done = subprocess.run(
            [sys.executable, "-c", blocked, *words, "--episodes", str(tmp_path / "e.jsonl")],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert "50.0" in done.stdout
