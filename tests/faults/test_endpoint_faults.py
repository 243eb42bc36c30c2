"""An evaluation behind an endpoint with every kind of fault: no episode lost, none twice, none miscounted.

``SFTRL_FAULT_EPISODES`` is their number: `make nightly` takes 20,000. One request in twenty meets a fault.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import sys
import threading
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_jsonl
from tests.experiments.evaluation.one_model.faulty_server import faulty_server
from tests.experiments.evaluation.one_model.test_endpoint import WRONG, answers, run
from tests.experiments.evaluation.one_model.test_endpoint import request as evaluation
from tests.serving import Seen

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SFTRL_FAULT_EPISODES", "200"))
SEED = int(os.environ.get("SFTRL_FAULT_SEED", "0"))
SHARE = 0.05
ATTEMPTS = 3
TIMEOUT_S = 10.0
SLOW = ("no answer", "dripping body")


def completion(text, **choice):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    return {"choices": [{"message": message, "finish_reason": "stop", **choice}], "usage": usage}


def send(handler, body, status=200, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"content-length": str(len(data)), "retry-after-ms": "5", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def error_status(status):
    return lambda handler: send(handler, {"error": {"message": "later", "code": None}}, status)


def broken_body(body):
    return lambda handler: send(handler, body)


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(int(TIMEOUT_S * 20)):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def cut_body(handler):
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


FAULTS = {
    **{f"status {status}": error_status(status) for status in (408, 409, 429, 500, 502, 503, 504)},
    **{
        f"body {body!s:.25}": broken_body(body)
        for body in (
            {"choices": "abc"},
            {"choices": [None]},
            {"choices": []},
            ["choices"],
            {"error": {"message": "overloaded"}},
            completion(17),
            completion([{"type": "text", "text": WRONG}]),
            completion(WRONG, message=None),
            completion(WRONG, finish_reason=3),
            completion(WRONG, finish_reason="error"),
            b"[" * 100_000,
            json.dumps(completion(WRONG)).encode()[:-20],
            b"",
            b"\xff\xfe\x00",
            b"<html>busy</html>",
        )
    },
    "gzip bomb": lambda handler: send(handler, BOMB, content_encoding="gzip"),
    "no gzip": lambda handler: send(handler, b"plain", content_encoding="gzip"),
    "unknown coding": lambda handler: send(handler, b"x", content_encoding="zip"),
    "redirect to itself": lambda handler: send(handler, b"", 307, location=handler.path),
    "connection closed": lambda handler: handler.connection.close(),
    "body cut off": cut_body,
    "no answer": lambda handler: time.sleep(2 * TIMEOUT_S),
    "dripping body": drip,
}
BOMB = gzip.compress(bytes(20 << 20))


class Server:
    """Solves row i at attempt ``i % 4``; some requests meet a fault, the first times they are made."""

    def __init__(self, rows, lasting=()):
        self.right, self.lasting = answers(rows), set(lasting)
        self.tries, self.met, self.lock = Counter(), Counter(), threading.Lock()
        self.answered = 0

    def __call__(self, handler):
        dialogue = [m for m in handler.body["messages"] if m["role"] != "system"]
        index, answer = self.right[dialogue[0]["content"]]
        attempt = len(dialogue) // 2
        with self.lock:
            self.tries[index, attempt] += 1
            number = self.tries[index, attempt]
        source = random.Random(f"{SEED}/{index}/{attempt}/{number}")
        if index in self.lasting or number <= 2 and source.random() < SHARE:
            kind = source.choice([name for name in FAULTS if index not in self.lasting or name not in SLOW])
            with self.lock:
                self.met[kind] += 1
            FAULTS[kind](handler)
            return
        self.answered += 1
        send(handler, completion(answer if attempt == index % 4 else WRONG))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of as many different prompts; hands are drawn with replacement."""
    path = tmp_path_factory.mktemp("rows") / "both.parquet"
    words = ["data", "rl", "--eval", "--split", "id,rule_ood", "--rows", 4 * COUNT]
    assert main([str(word) for word in (*words, "--max-attempts", ATTEMPTS, "--out", path)]) == 0
    table = pq.read_table(path)
    first = {}
    for number, prompt in enumerate(table["prompt"].to_pylist()):
        first.setdefault(prompt[-1]["content"], number)
    kept = table.take(sorted(first.values())[:COUNT]).to_pylist()
    assert len(kept) == COUNT
    for index, row in enumerate(kept):
        row["data_source"] = "gp_l/id"  # a file has one
        row["extra_info"] |= {"index": index, "split": "id"}
    pq.write_table(pa.Table.from_pylist(kept, table.schema), path)
    return path


def reading(server):
    """The server's answer to a request that is read."""

    def answer(handler):
        if handler.body:  # else the client has gone
            handler.body = json.loads(handler.body)
            server(handler)

    return answer


def play(server, rows, folder, retries):
    options = {"retries": retries, "concurrency": 32, "timeout_s": TIMEOUT_S}
    with faulty_server(reading(server)) as url:
        return run(evaluation(Seen(url), rows, folder, options=options))


def expected(indices):
    """(episodes, solved, solved at first, requests) of rows."""
    solved = [index % 4 for index in indices if index % 4 < ATTEMPTS]
    requests = sum(min(index % 4 + 1, ATTEMPTS) for index in indices)
    return len(indices), len(solved), solved.count(0), requests


def test_no_episode_is_lost_or_counted_twice_or_wrong(rows, tmp_path):
    indices = sorted(index for index, _ in answers(rows).values())
    # First some dialogues get no answer at all, then the same command goes on.
    unlucky = random.Random(SEED).sample(indices, max(1, len(indices) // 500))
    first, second = Server(rows, unlucky), Server(rows)
    started = time.monotonic()
    with pytest.raises(SftrlError):
        play(first, rows, tmp_path, retries=5)
    kept = sum(1 for _ in read_jsonl(tmp_path / "episodes.jsonl")) - 1
    assert kept <= len(indices) - len(unlucky)
    record, shown = play(second, rows, tmp_path, retries=12)
    seconds = time.monotonic() - started
    met = first.met + second.met
    sys.stdout.write(
        f"\n{len(indices):,} episodes, seed {SEED}: {first.answered + second.answered:,} answers, "
        f"{met.total():,} faults of {len(met)} kinds, {seconds:.0f} s\n"
        + "".join(f"  {number:>6,} {kind}\n" for kind, number in sorted(met.items()))
    )
    assert f"{kept} of {len(indices)} episodes were played before" in shown
    episodes, solved, solved_first, requests = expected(indices)
    assert (record["episodes"], record["solved"], record["solved_first"]) == (episodes, solved, solved_first)
    assert (record["usage"]["requests"], record["errors"]) == (requests, 0)
    assert record["usage"]["completion_tokens"] == 7 * requests
    assert record["outcomes"] == {"correct": solved, "wrong_numbers": requests - solved}
    lines = list(read_jsonl(tmp_path / "episodes.jsonl"))[1:]
    assert sorted(line["index"] for line in lines) == list(range(COUNT))
    assert len(met) >= min(len(FAULTS), COUNT // 20)
