"""Clients that leave: the replica stops, the counts return to zero, the outcome is `cancelled`."""

import asyncio
import json

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, chat, eventually


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
