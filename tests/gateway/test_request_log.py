"""The log of finished requests, and what is kept of prompts and answers: nothing by default."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.collector import Collector as Receiver
from tests.gateway.raw_replica import OK, Client, replica, whole
from tests.gateway.rig import (
    NOWHERE,
    Engine,
    Rig,
    StartRig,
    chat,
    eventually,
    model_route,
    write_snapshot,
)

from modelyard.core.home import Home
from modelyard.core.records import RequestRecord
from modelyard.core.routes import Breaking, Caching, Policy, Retries
from modelyard.core.telemetry import RequestLogOptions
from modelyard.gateway.records import MAX_REQUEST_BYTES
from modelyard.gateway.tokens import make_token

LOG = RequestLogOptions(file="requests.jsonl")
KEPT = msgspec.structs.replace(LOG, content=True)


def lines(home: Home) -> list[dict[str, Any]]:
    file = home.gateway / "requests.jsonl"
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


async def logged(rig: Rig, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await eventually(
        lambda: lines(rig.home), lambda found: len(found) >= count, 20
    )
    assert len(found) == count
    return found


# --- the log -------------------------------------------------------------------------------------


async def test_a_gateway_behind_a_controller_may_keep_a_log(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]), request_log=LOG)
    await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=2))
    await rig.client.post("/v1/chat/completions", json={"model": "nope", "messages": []})

    found = await logged(rig, 2)

    records = await rig.records(2)  # the controller's way is another one
    assert [msgspec.convert(line, RequestRecord, strict=False) for line in found] == records
    assert [line["outcome"] for line in found] == ["completed", "rejected"]
    assert all("content" not in line for line in found)
    mode = (rig.home.gateway / "requests.jsonl").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_there_is_none_unless_it_is_asked_for(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]))
    await rig.client.post("/v1/chat/completions", json=chat("x"))
    await rig.records(1)
    assert not list(rig.home.gateway.glob("*.jsonl*"))


async def test_a_log_that_can_not_be_written_stops_no_request(
    start_rig: StartRig, engines: list[Engine], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = msgspec.structs.replace(LOG, file="taken/requests.jsonl")
    rig: Rig = await start_rig(model_route([engines[0].url]), request_log=nowhere)
    (rig.home.gateway / "taken").write_text("a file where a folder should be")
    for count in (1, 2):
        reply = await rig.client.post("/v1/chat/completions", json=chat("x"))
        assert reply.status_code == 200
        name = "modelyard_gateway_request_log_dropped_total"
        await eventually(lambda name=name: rig.metric(name), lambda lost, n=count: lost == n, 20)
    assert caplog.text.count("requests can't be recorded") == 1


# --- prompts and answers, where the settings say so ----------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_content_is_kept_where_the_settings_say_so(
    start_rig: StartRig, engines: list[Engine], stream: bool
) -> None:
    policy = Policy(caching=Caching(mode="all"))
    rig: Rig = await start_rig(model_route([engines[0].url], policy=policy), request_log=KEPT)
    for _ in range(2):
        await rig.client.post(
            "/v1/chat/completions", json=chat("what is it?", max_tokens=3, stream=stream)
        )
    made, cached = await logged(rig, 2)
    asked = json.loads(made["content"]["request"])
    assert asked["messages"] == [{"role": "user", "content": "what is it?"}]
    assert made["content"]["answer"].startswith("t0:")
    assert len(made["content"]["answer"].split()) == 3
    assert (made["cache"], cached["cache"]) == ("miss", "hit")
    assert cached["content"]["answer"] == made["content"]["answer"]


async def test_content_of_the_simple_api_and_of_a_refusal(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]), request_log=KEPT)
    simple = await rig.client.post("/generate", json={"prompt": "hello", "max_length": 2})
    await rig.client.post("/v1/chat/completions", json=chat("no") | {"model": "nope"})
    await engines[0].fault("status=400", times=1)
    await rig.client.post("/v1/chat/completions", json=chat("faulty"))

    answered, unknown, refused = await logged(rig, 3)

    assert answered["content"]["answer"] == simple.json()["response"]
    assert "hello" in answered["content"]["request"]
    assert unknown["content"] == {"request": "", "request_cut": False, "answer": None}
    assert "faulty" in refused["content"]["request"]
    assert refused["content"]["answer"] is None


async def test_content_is_bounded(start_rig: StartRig, engines: list[Engine]) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]), request_log=KEPT)
    await rig.client.post("/v1/chat/completions", json=chat("é" * 100_000, max_tokens=1))
    (line,) = await logged(rig, 1)
    assert line["content"]["request_cut"] is True
    assert len(line["content"]["request"]) <= MAX_REQUEST_BYTES


# --- nothing of them anywhere, where they don't (promise O7) -------------------------------------

PROMPT, ANSWER = "zebrafinch-prompt", "quicksilver-answer"


async def _echo(client: Client) -> None:
    """Answers with the prompt in it, in the way that the prompt names."""
    body = await client.request()
    said = f"{ANSWER} to {PROMPT}".encode()
    chunk = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % said
    head = OK + b"content-type: text/event-stream\r\nconnection: close\r\n\r\n"
    usage = b'"usage":{"prompt_tokens":3,"completion_tokens":4}'
    error = b'{"error":{"message":"can\'t take %b","code":"%b"}}' % (said, ANSWER.encode())
    ways = {
        b"way-stream": head + chunk * 3 + b"data: [DONE]\n\n",
        b"way-cut": head + chunk,
        b"way-error-event": head + chunk + b"data: " + error + b"\n\n",
        b"way-400": whole(error, status=b"400 Bad Request"),
        b"way-500": whole(error, status=b"500 Oops"),
        b"way-503": whole(error, status=b"503 Busy"),
        b"way-401": whole(error, status=b"401 Who"),
        b"way-200-error": whole(error),
        b"way-garbage": whole(b"<html>" + said),
        b"way-no-http": said + b"\r\n\r\n",
    }
    plain = whole(b'{"choices":[{"message":{"content":"%b"},"finish_reason":"stop"}],%b}'
                  % (said, usage))  # fmt: skip
    way = next((answer for name, answer in ways.items() if name in body), plain)
    await client.say(way)


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async with replica(_echo) as url:
        yield url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


WAYS = (
    "whole", "way-stream", "way-cut", "way-error-event", "way-400", "way-500", "way-503", "way-401",
    "way-200-error", "way-garbage", "way-no-http",
)  # fmt: skip


async def _ask_everything(url: str) -> int:
    """Requests of every kind with the marker in them; return how many were recorded."""
    count = 0
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:

        async def ask(path: str, body: Any, **headers: str) -> None:
            nonlocal count
            kind = {"content": body} if isinstance(body, bytes) else {"json": body}
            try:
                reply = await client.post(path, headers=headers, **kind)
                assert reply.status_code in (200, 400, 401, 404, 422, 500, 501, 502, 503, 504)
            except httpx.HTTPError:
                pass  # a stream that was cut
            count += 1

        for way in WAYS:
            for stream in (False, True):
                text = f"{PROMPT} {way} {stream}"
                await ask("/v1/chat/completions", chat(text, stream=stream))
        for _ in range(2):  # the second one from the cache
            await ask("/v1/chat/completions", chat(f"{PROMPT} again", temperature=0))
            await ask("/v1/chat/completions", chat(f"{PROMPT} again", temperature=0, stream=True))
        tools = [{"type": "function", "function": {"name": PROMPT, "parameters": {}}}]
        await ask("/v1/chat/completions", chat(PROMPT, tools=tools, stop=[PROMPT]))
        await ask("/v1/completions", {"model": "m", "prompt": PROMPT})
        await ask("/v1/embeddings", {"model": "m", "input": PROMPT})
        await ask("/v1/responses", {"model": "m", "input": PROMPT})
        await ask("/v1/messages", {"model": "m", "messages": [], "system": PROMPT})
        await ask("/generate", {"prompt": f"{PROMPT} simple"})
        await ask("/generate", {"prompt": PROMPT, "temperature": 9})
        await ask("/batch_generate", [{"prompt": f"{PROMPT} in a batch"}])
        await ask("/v1/chat/completions", b'{"model": "m", "messages": [{"content": "' + PROMPT.encode())  # fmt: skip # noqa: E501
        await ask("/v1/chat/completions", {"model": "m", "messages": PROMPT})
        await ask("/v1/chat/completions", chat(PROMPT, max_tokens=PROMPT))
    return count


def _found(folder: Path, *words: str) -> set[str]:
    """Files below a folder that hold any of the words."""
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and any(word.encode() in file.read_bytes() for word in words)
    }


@pytest.mark.parametrize("content", [False, True])
async def test_prompts_and_answers_are_kept_nowhere_unless_that_is_asked_for(
    tmp_path: Path, home: Home, echo: str, receiver: Receiver, content: bool
) -> None:
    """With every span, every record and the log on: files, spans, metrics, the process's own log
    and what `explain` tells. With content on, the log has it, and nothing else has."""
    policy = Policy(
        caching=Caching(mode="deterministic"), retries=Retries(backoff_base_s=0.001),
        breaking=Breaking(failures=10_000, outlier_requests=10_000), fallbacks=("other",),
    )  # fmt: skip
    write_snapshot(
        home,
        model_route([echo, echo], policy=policy),
        model_route([echo], "other", msgspec.structs.replace(policy, fallbacks=())),
    )
    make_token(home.gateway_token)
    options = {
        "traces": {"endpoint": receiver.url, "sample": 1.0},
        "request_log": {"file": "requests.jsonl", "content": content},
    }
    process = _start(home, tmp_path / "log", options)
    try:
        record = home.run / "gateway.json"
        await eventually(record.exists, lambda there: there or process.poll() is not None, 30)
        assert process.poll() is None, (tmp_path / "log").read_text()
        url = json.loads(record.read_text())["url"]
        asked = await _ask_everything(url)
        told = await _told(url, home)
    finally:
        process.terminate()
        try:
            code = await asyncio.to_thread(process.wait, 30)
        finally:
            process.kill()
    assert code == 0

    assert len(lines(home)) == asked
    assert {line["outcome"] for line in lines(home)} >= {"completed", "failed", "rejected"}
    assert "hit" in {line["cache"] for line in lines(home)}
    assert len(receiver.spans) > asked / 2
    exported = b"".join(each.SerializeToString() for each in receiver.requests)
    for word in (PROMPT, ANSWER):
        assert word.encode() not in exported
        assert word not in told
        assert word not in (tmp_path / "log").read_text()
    kept = {"gateway/requests.jsonl"} if content else set()
    assert _found(home.root, PROMPT) == _found(home.root, ANSWER) == kept


def _start(home: Home, log: Path, telemetry: dict[str, Any]) -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
             "--listen", "127.0.0.1:0", "--controller", NOWHERE, "--drain-s", "5",
             "--telemetry", json.dumps(telemetry)],
            stdout=out, stderr=out,
        )  # fmt: skip


async def _told(url: str, home: Home) -> str:
    """Metrics, and all that the admin routes tell of the requests."""
    token = {"authorization": f"Bearer {home.gateway_token.read_text().strip()}"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        pages = [(await client.get("/metrics")).text, (await client.get("/health")).text]
        await eventually(lambda: lines(home), bool, 20)
        for line in lines(home):
            reply = await client.get(f"/admin/requests/{line['request_id']}", headers=token)
            assert reply.status_code == 200, reply.text
            pages.append(reply.text)
    return "".join(pages)
