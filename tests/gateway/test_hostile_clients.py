"""Clients that break the rules, or their own connections: refused, bounded, and never forgotten."""

import asyncio
import json
import tracemalloc

import httpx
import pytest
from tests.gateway.raw_replica import END, FIRST, SSE, Client, always, replica, whole
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route

from modelyard.gateway import connection as connections
from modelyard.gateway.request import ConnectionLimits

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n"


async def connect(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = rig.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def post(body: object, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    payload = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(payload)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


async def talk(rig: Rig, payload: bytes) -> bytes:
    """Send, and read until the gateway closes."""
    reader, writer = await connect(rig)
    writer.write(payload)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of a moment, for the gateways that a test starts."""
    short = ConnectionLimits(linger_s=0.2, idle_timeout_s=30, head_timeout_s=0.3)
    init = connections.Connection.__init__
    monkeypatch.setattr(
        connections.Connection, "__init__", lambda self, handler, _: init(self, handler, short)
    )


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nhost: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_end_is_refused_before_it_fills_memory(rig: Rig, begin: bytes) -> None:
    reader, writer = await connect(rig)
    writer.write(begin)
    answering = asyncio.create_task(reader.read())
    sent = 0
    while sent < 32 << 20 and not answering.done():
        writer.write(b"a" * 65536)
        sent += 65536
        await writer.drain()

    assert (await answering).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_leaving_is_seen_behind_pipelined_bytes_over_the_bound(
    rig: Rig, engines: list[Engine]
) -> None:
    """Promise G1: what a client sends ahead must not blind the gateway to its leaving."""
    _, writer = await connect(rig)
    writer.write(post(chat("[[fake: hang]]")))
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda value: value == 1)
    writer.write(b"x" * (1 << 20))
    await writer.drain()

    writer.transport.abort()

    async with asyncio.timeout(1.0):
        for engine in engines:
            await engine.until_idle()
    await rig.until_at_rest()


async def test_a_client_that_never_reads_is_let_go(start_rig: StartRig, limits: None) -> None:
    flood = whole(b'{"choices":[],"x":"' + b"x" * (24 << 20) + b'"}')
    async with replica(always(flood)) as url:
        rig = await start_rig(model_route([url]))
        reader, writer = await connect(rig)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post(chat("x"), "connection: close"))

        await eventually(lambda: len(rig.service.gateway.connections), lambda count: count == 1)
        await eventually(lambda: len(rig.service.gateway.connections), lambda count: count == 0)
        writer.transport.abort()


async def test_a_slow_head_on_a_kept_connection_has_the_heads_time(
    start_rig: StartRig, engines: list[Engine], limits: None
) -> None:
    """Promise G22: slowloris after a first honest request."""
    rig = await start_rig(model_route([engines[0].url]))

    answer = await talk(rig, GET + b"\r\n" + GET[:20])

    assert b"HTTP/1.1 408 " in answer


async def test_a_refused_body_is_answered_while_it_is_still_being_sent(rig: Rig) -> None:
    """Promise G19: a reset while the client sends would take the answer away."""
    head = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (64 << 20)
    reader, writer = await connect(rig)
    writer.write(head)
    for _ in range(256):
        writer.write(b"x" * 65536)
        await writer.drain()
    answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()


@pytest.mark.parametrize("path", [b"/nothing", b"/generate", b"/health"])
async def test_no_answer_to_a_head_request_has_a_body(rig: Rig, path: bytes) -> None:
    payload = b"HEAD " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    answer = await talk(rig, payload)

    assert answer.endswith(b"\r\n\r\n")


async def test_trailers_are_no_headers_and_do_not_count_the_body(rig: Rig) -> None:
    body = json.dumps(chat("x" * 100_000, max_tokens=1)).encode()
    payload = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\ntraceparent: x\r\n\r\n"
    ) % (len(body), body)

    assert (await talk(rig, payload)).startswith(b"HTTP/1.1 200 OK")


async def test_an_offered_upgrade_does_not_lose_the_body(rig: Rig) -> None:
    """Java's client offers h2c with every request it sends in clear text."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIA")
    answer = await talk(
        rig, post(chat("a", max_tokens=1), *offer) + GET + b"connection: close\r\n\r\n"
    )

    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_target_that_is_a_whole_url_is_understood(rig: Rig) -> None:
    """RFC 9112, 3.2.2: a server must accept what is sent to proxies."""
    end = b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    for target in (b"http://x/health", b"http://x:8000/health?a=http://b/c"):
        assert (await talk(rig, b"GET " + target + end)).startswith(b"HTTP/1.1 200 OK")
    for target in (b"http://x", b"x/health"):
        answer = await talk(rig, b"GET " + target + end)
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))


async def test_http_1_0_is_closed_after_its_answer(rig: Rig) -> None:
    answer = await talk(rig, b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")

    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "smuggling",
    [
        b"GET /health HTTP/1.1\nhost: x\n\n",
        GET + b"a: b\nc: d\r\n\r\n",
        GET + b" folded: x\r\n\r\n",
        GET + b"a : b\r\n\r\n",
        GET + b"a: b\x00\r\n\r\n",
        GET + b"content-length: 1\r\ncontent-length: 1\r\n\r\nx",
        GET + b"content-length: +1\r\n\r\nx",
        GET + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n",
        GET + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        GET + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        GET + b"host: other\r\n\r\n",
    ],
)
async def test_smuggling_vectors_are_refused(rig: Rig, smuggling: bytes) -> None:
    """Promise G22. What follows on the connection is never taken for a request."""
    answer = await talk(rig, smuggling + GET + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_two_thousand_requests_on_one_connection(rig: Rig) -> None:
    reader, writer = await connect(rig)
    for _ in range(50):
        writer.write((GET + b"\r\n") * 40)
        for _ in range(40):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
    writer.close()


async def test_a_trace_header_that_is_none_neither_breaks_nor_passes(
    rig: Rig, engines: list[Engine]
) -> None:
    """It once broke the end of the request: no record, no answer."""
    for value in ("\xff" * 60, "00-zz", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"):
        answer = await talk(
            rig,
            post(chat("x", max_tokens=1), "connection: close").replace(
                b"host: x", b"host: x\r\ntraceparent: " + value.encode("latin-1")
            ),
        )
        assert answer.startswith(b"HTTP/1.1 200 OK")

    assert [record.trace_id for record in await rig.records(3)] == [None] * 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", b'{"prompt": "x", "max_length": 1000000000000000000000000000000}'),
        ("/generate", b'{"prompt": "\\ud800"}'),
        ("/generate", b'{"prompt": "\xff"}'),
        ("/v1/chat/completions", b'{"model": "m", "messages": [{}], "stream": "yes"}'),
        ("/v1/chat/completions", b'{"model": "\xff", "messages": [{}]}'),
        ("/v1/chat/completions", b'\xef\xbb\xbf{"model": "m", "messages": [{}]}'),
        ("/v1/chat/completions", b'{"model": "m", "messages": ' + b"[" * 9999 + b"]" * 9999 + b"}"),
        ("/v1/chat/completions", b'{"model": "m", "messages": [{}], "x": NaN}'),
    ],
)
async def test_strange_bodies_are_the_callers_fault(rig: Rig, path: str, body: bytes) -> None:
    """Promise G19."""
    reply = await rig.client.post(path, content=body)

    assert reply.status_code == 400
    (record,) = await rig.records(1)
    assert record.outcome == "rejected"


async def test_error_messages_hold_only_the_head_of_what_was_sent(rig: Rig) -> None:
    long = "z" * 100_000
    for path, body in (
        ("/v1/chat/completions", chat("x") | {"model": long}),
        ("/generate", {"prompt": "x", long: 1}),
    ):
        reply = await rig.client.post(path, json=body)
        assert reply.status_code in (400, 404)
        assert len(reply.content) < 1000


async def test_what_a_strange_request_holds_reaches_the_engine_as_it_came(
    start_rig: StartRig,
) -> None:
    """Bodies that have to be changed are changed where they must be, and nowhere else."""
    seen = bytearray()

    async def speak(client: Client) -> None:
        seen.extend(await client.request())
        await client.say(SSE + b"\r\n" + FIRST + END)

    odd = b'"seed": 123456789012345678901234567890, "messages": [{"content": "\\ud83d\\ude00"}]'
    asked = b'"stream_options": {"include_usage": false, "continuous_usage_stats": true}'
    async with replica(speak) as url:
        rig = await start_rig(model_route([url]))
        body = b' {"model": "m", "stream": true, ' + odd + b", " + asked + b"}"
        reply = await rig.client.post("/v1/chat/completions", content=body)

    assert reply.status_code == 200
    assert b'"\\ud83d\\ude00"' in seen
    assert b"123456789012345678901234567890" in seen
    assert json.loads(seen)["stream_options"] == {
        "include_usage": True, "continuous_usage_stats": True,
    }  # fmt: skip


async def test_a_client_that_closes_at_once_is_still_counted_once(rig: Rig) -> None:
    for _ in range(5):
        _, writer = await connect(rig)
        writer.write(post(chat("x", max_tokens=500, stream=True)))
        await writer.drain()
        writer.transport.abort()

    records = await rig.records(5)

    assert {record.outcome for record in records} == {"cancelled"}
    await rig.until_at_rest()
    async with httpx.AsyncClient(base_url=rig.url, trust_env=False) as client:
        assert (await client.get("/health")).status_code == 200


async def test_a_body_in_tiny_chunks_takes_no_more_than_its_size(rig: Rig) -> None:
    tracemalloc.start()
    _, writer = await connect(rig)
    writer.write(b"POST /generate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(40):
        writer.write(b"2\r\nxy\r\n" * 5000)
        await writer.drain()
    connection = await eventually(
        lambda: next(iter(rig.service.gateway.connections)),
        lambda found: found._size == 400_000,
    )

    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 4_000_000
    connection.cut()
    writer.close()
