"""Clients that leave: the replica stops, the counts return to zero, the outcome is `cancelled`."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.gateway.raw_replica import FIRST, OK, SSE, Client, replica
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually


async def _leave(url: str, body: dict[str, object], *, after_bytes: int, path: str) -> None:
    """Send a request, read so many bytes of the answer, and drop the connection."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + payload)
    await writer.drain()
    if after_bytes:
        await reader.readexactly(after_bytes)
    writer.transport.abort()


async def _until_running(engines: list[Engine], count: int) -> None:
    async def running() -> int:
        return sum([(await engine.state())["running"] for engine in engines])

    await eventually(running, lambda value: value == count)


WAITS = [
    ("streaming, before the first token", chat("[[fake: hang]]", stream=True), 0),
    ("streaming, in mid-stream", chat("[[fake: tokens=9999]]", max_tokens=9999, stream=True), 900),
    ("streaming, stalled", chat("[[fake: stall_after=9]]", max_tokens=50, stream=True), 900),
    ("not streaming", chat("[[fake: tokens=100000]]", max_tokens=100000), 0),
    ("not streaming, hanging", chat("[[fake: hang]]"), 0),
]  # fmt: skip


@pytest.mark.parametrize(("case", "body", "after_bytes"), WAITS, ids=[wait[0] for wait in WAITS])
async def test_leaving_cancels_upstream_within_a_second(
    rig: Rig, engines: list[Engine], case: str, body: dict[str, object], after_bytes: int
) -> None:
    """Promises G1, G2, G3."""
    await _leave(rig.url, body, after_bytes=after_bytes, path="/v1/chat/completions")

    async with asyncio.timeout(1.0):
        for engine in engines:
            await engine.until_idle()
    await rig.until_at_rest()
    (record,) = await rig.records(1)
    assert (record.outcome, record.status, record.error_code) == (
        "cancelled", 499, "client_closed_request",
    )  # fmt: skip
    if after_bytes:
        assert record.tokens_estimated
        assert record.completion_tokens
        assert record.completion_tokens > 0


@pytest.mark.parametrize("path", ["/generate", "/batch_generate"])
async def test_leaving_cancels_the_simple_api_too(
    rig: Rig, engines: list[Engine], path: str
) -> None:
    """Promise G1."""
    one: dict[str, object] = {"prompt": "[[fake: hang]]", "max_length": 9}
    body = [one, one, one] if path == "/batch_generate" else one
    host, port = rig.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    payload = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    await _until_running(engines, len(body) if isinstance(body, list) else 1)

    writer.transport.abort()

    async with asyncio.timeout(1.0):
        for engine in engines:
            await engine.until_idle()
    await rig.until_at_rest()


async def test_leaving_while_a_retry_waits_cancels(rig: Rig, engines: list[Engine]) -> None:
    """Promise G1: between retries. The first replica fails, the second one hangs."""
    await engines[0].fault("status=500")
    await engines[1].fault("status=500", times=1)
    await engines[1].fault("hang")
    async with httpx.AsyncClient(base_url=rig.url, trust_env=False) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=chat("x")))
        await asyncio.wait({asking}, timeout=0.2)
        asking.cancel()
        await asyncio.wait({asking})

    for engine in engines:
        await engine.until_idle()
    await rig.until_at_rest()


async def test_a_client_that_stays_is_not_disturbed_by_those_who_leave(
    rig: Rig, engines: list[Engine]
) -> None:
    staying = asyncio.create_task(
        rig.client.post("/v1/chat/completions", json=chat("stay", max_tokens=60))
    )
    for _ in range(10):
        await _leave(
            rig.url,
            chat("[[fake: tokens=5000]]", max_tokens=5000, stream=True),
            after_bytes=500,
            path="/v1/chat/completions",
        )

    reply = await staying

    assert reply.json()["usage"]["completion_tokens"] == 60
    await rig.until_at_rest()


BEGUN = {
    "/v1/chat/completions": FIRST,
    "/v1/completions": b'data: {"choices":[{"text":"a"}]}\n\n',
    "/v1/responses": b'event: response.created\ndata: {"type":"response.created"}\n\n',
    "/v1/messages": b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n',
}
"""The first event of each API's stream."""
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat("x"),
    "/v1/completions": {"model": "m", "prompt": "x"},
    "/v1/responses": {"model": "m", "input": "x"},
    "/v1/messages": chat("x", max_tokens=9),
    "/v1/embeddings": {"model": "m", "input": "x"},
}


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "in the middle"])
@pytest.mark.parametrize(
    ("path", "stream"),
    [*((path, stream) for path in BEGUN for stream in (False, True)), ("/v1/embeddings", False)],
)
async def test_leaving_ends_the_request_of_every_api(
    start_alone: StartRig, path: str, stream: bool, begun: bool
) -> None:
    """Promises G1 and G2, seen from the replica: its connection is closed."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def speak(client: Client) -> None:
        await client.request()
        if begun:
            whole = OK + b'content-length: 999\r\n\r\n{"id":'
            await client.say(SSE + b"\r\n" + BEGUN[path] if stream else whole)
        asked.set()
        try:
            await client.reader.read()
        finally:
            left.set()

    async with replica(speak) as url:
        rig: Rig = await start_alone({"models": [{"name": "m", "upstreams": [{"url": url}]}]})
        reader, writer = await asyncio.open_connection(*rig.url[7:].split(":"))
        payload = json.dumps(ASKED[path] | {"stream": stream}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        await asked.wait()
        if begun and stream:
            await reader.readuntil(BEGUN[path])
        writer.transport.abort()
        async with asyncio.timeout(1.0):
            await left.wait()
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
        assert (record.outcome, record.status) == ("cancelled", 499)
        assert [attempt.outcome for attempt in record.attempts] == ["cancelled"]
        assert [each["state"] for each in (await rig.admin("/admin/replicas"))["replicas"]] == [
            "closed"
        ]
        await rig.until_at_rest()


async def test_leaving_between_two_attempts_makes_no_other(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G1: the first replica failed, and the pause before the second one is long."""
    upstreams = [{"url": engine.url} for engine in engines]
    pause = {"backoff_base_s": 590.0, "backoff_max_s": 590.0}
    rig: Rig = await start_alone({"models": [
        {"name": "m", "upstreams": upstreams, "retries": pause}]})  # fmt: skip
    for engine in engines:
        await engine.fault("status=500")
    await _leave_when(rig, chat("x"), engines)

    (record,) = await eventually(rig.log, lambda found: len(found) == 1, 1.0)
    assert (record.outcome, record.status) == ("cancelled", 499)
    assert [attempt.outcome for attempt in record.attempts] == ["error_status"]
    await rig.until_at_rest()
    assert sum([(await engine.state())["seen"] for engine in engines]) == 1


async def _leave_when(rig: Rig, body: dict[str, object], engines: list[Engine]) -> None:
    """Send a request, and leave once an engine has answered it."""

    async def answered() -> int:
        states = [await engine.state() for engine in engines]
        return sum(state["seen"] - state["running"] for state in states)

    async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=60) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await eventually(answered, lambda count: count == 1)
        await eventually(
            lambda: rig.metric("modelyard_replica_requests_in_flight"), lambda count: count == 0
        )
        asking.cancel()
        await asyncio.wait({asking})


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_left_is_not_kept(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    """Promise G16."""
    model = {"name": "m", "upstreams": [{"url": engines[0].url}], "caching": {"mode": "all"}}
    rig: Rig = await start_alone({"models": [model]})
    body = chat("[[fake: tokens=60]]", stream=stream)
    leaving = asyncio.create_task(rig.client.post("/v1/chat/completions", json=body))
    await eventually(engines[0].state, lambda state: state["generation_tokens"] > 3)
    leaving.cancel()
    await asyncio.wait({leaving})
    await rig.until_at_rest()

    again = await rig.client.post("/v1/chat/completions", json=body)

    assert again.headers["x-modelyard-cache"] == "miss"
    assert "!60" in again.text
    records = await eventually(rig.log, lambda found: len(found) == 2)
    assert [record.outcome for record in records] == ["cancelled", "completed"]
