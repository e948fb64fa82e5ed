"""Bytes on the wire: what a client may send, and what it may not make the gateway hold."""

import asyncio
import contextlib
import json

import pytest
from tests.gateway.rig import Rig, StartRig, chat, eventually, model_route

POST = b"POST /generate HTTP/1.1\r\nhost: x\r\n"


async def _talk(rig: Rig, payload: bytes, *, until_closed: bool = True) -> bytes:
    host, port = rig.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(payload)
    try:
        async with asyncio.timeout(5):
            return await (reader.read() if until_closed else reader.readuntil(b"\r\n\r\n"))
    finally:
        writer.close()


def _post(body: dict[str, object], *headers: str, version: str = "1.1") -> bytes:
    payload = json.dumps(body).encode()
    lines = [
        f"POST /v1/chat/completions HTTP/{version}",
        "host: x",
        f"content-length: {len(payload)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    lengths = [20, 1, 5]
    payload = b"".join(_post(chat(f"p{n}", max_tokens=n)) for n in lengths[:-1])
    payload += _post(chat("p5", max_tokens=5), "connection: close")

    answer = await _talk(rig, payload)

    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [json.loads(body)["usage"]["completion_tokens"] for body in bodies] == lengths
    await rig.until_at_rest()


async def test_what_follows_a_pipelined_request_in_pieces_is_not_lost(rig: Rig) -> None:
    payload = _post(chat("a", max_tokens=10)) + _post(chat("b", max_tokens=2), "connection: close")
    host, port = rig.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for begin in range(0, len(payload), 37):
        writer.write(payload[begin : begin + 37])
        await writer.drain()

    answer = await reader.read()

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    writer.close()


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /health\r\n\r\n", 400),
        (POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
        (POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"content-length: -1\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nhost: x\r\na: " + b"b" * 100_000 + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
async def test_what_is_not_http_is_refused_and_the_connection_closed(
    rig: Rig, payload: bytes, status: int
) -> None:
    answer = await _talk(rig, payload)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b'{"error":{"message":' in answer
    assert b"connection: close" in answer


async def test_a_chunked_request_body_is_read(rig: Rig) -> None:
    body = json.dumps(chat("x", max_tokens=2)).encode()
    payload = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        + b"0\r\n\r\n"
    )

    assert (await _talk(rig, payload)).startswith(b"HTTP/1.1 200 OK")


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(start_rig: StartRig) -> None:
    rig = await start_rig(max_body_bytes=1000)
    payload = b"POST /generate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

    answer = await _talk(rig, payload + b"400\r\n" + b"x" * 1024 + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(rig: Rig) -> None:
    answer = await _talk(rig, _post(chat("x", max_tokens=3, stream=True), version="1.0"))

    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_waits_to_send_its_body_is_told_to(rig: Rig) -> None:
    head = _post(chat("x"), "expect: 100-continue").split(b"\r\n\r\n")[0] + b"\r\n\r\n"

    assert await _talk(rig, head, until_closed=False) == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_an_upgrade_is_not_taken_up(rig: Rig) -> None:
    """A server may answer as if none was offered (RFC 9110, 7.8)."""
    answer = await _talk(rig, b"GET /health HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\n"
                              b"connection: upgrade\r\n\r\n", until_closed=False)  # fmt: skip

    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_head_requests_get_no_body(rig: Rig) -> None:
    payload = b"HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    head, body = (await _talk(rig, payload)).split(b"\r\n\r\n", 1)

    assert b"content-length: " in head
    assert body == b""


async def test_a_slow_client_slows_the_replica_and_grows_no_memory(start_rig: StartRig) -> None:
    """Promise G10 under backpressure: the stream waits for its reader, in the gateway too."""
    event = b"data: {" + b" " * 65_000 + b"}\n\n"
    written = 0

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                writer.write(event)
                await writer.drain()
                written += len(event)
        writer.close()

    async with await asyncio.start_server(stream, "127.0.0.1", 0) as replica:
        port = replica.sockets[0].getsockname()[1]
        rig = await start_rig(model_route([f"http://127.0.0.1:{port}"]))
        host, gateway_port = rig.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(gateway_port), limit=4096)
        writer.write(_post(chat("x", stream=True)))
        await reader.readuntil(b"\r\n\r\n")
        connection = next(iter(rig.service.gateway.connections))

        await eventually(lambda: connection.writable, lambda writable: not writable)
        assert connection.buffered_bytes < 1024 * 1024
        assert written < 64 * 1024 * 1024  # of 130 MB: the rest waits in the replica
        writer.transport.abort()
        await rig.until_at_rest()
