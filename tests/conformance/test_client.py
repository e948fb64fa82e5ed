"""The raw client: URLs, framing, and where an answer ended too early."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from modelyard.conformance.client import Connection, Cut, Reply, origin, request
from modelyard.core.errors import InvalidConfig


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[Connection]:
    """A connection to a server that says `data` and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = await Connection.open(
        origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    )
    try:
        yield connection
    finally:
        connection.leave()
        server.close()
        await asyncio.sleep(0)


async def replied(data: bytes) -> Reply:
    async with answering(data) as connection:
        return await connection.reply()


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix", "authority"),
    [
        ("http://h:80/", "h", 80, "", "h:80"),
        ("http://h:8000/v1", "h", 8000, "", "h:8000"),
        ("https://h/llm/v1/", "h", 443, "/llm", "h:443"),
        ("http://[::1]:9/x", "::1", 9, "/x", "[::1]:9"),
    ],
)
def test_a_url_is_read(url: str, host: str, port: int, prefix: str, authority: str) -> None:
    place = origin(url)

    assert (place.host, place.port, place.prefix) == (host, port, prefix)
    assert place.authority == authority
    assert place.target("/v1/models") == f"{prefix}/v1/models"


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://h", "http://", "http://h:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig):
        origin(url)


def test_a_request_is_bytes() -> None:
    made = request(origin("http://h:1/p"), "/v1/x", b"{}", {"A": "b"})

    assert made == (
        b"POST /p/v1/x HTTP/1.1\r\nHost: h:1\r\nA: b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


async def test_a_body_of_known_length_ends() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as connection:
        reply = await connection.reply()
        assert await reply.body() == b"abc"
        assert await reply.part() is None
        assert await connection.closed()


async def test_chunks_are_put_together() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n"
    async with answering(data) as connection:
        assert await (await connection.reply()).body() == b"abc"


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n\r\nabc") as connection:
        assert await (await connection.reply()).body() == b"abc"


async def test_interim_answers_are_passed_over_and_headers_joined() -> None:
    reply = await replied(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 204 No\r\nX-A: 1\r\nx-a: 2\r\nContent-Type: A/B; c=d\r\n\r\n"
    )

    assert reply.status == 204
    assert reply.ended
    assert reply.headers["x-a"] == "1,2"
    assert reply.content_type == "a/b"


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "without any answer"),
        (b"HTTP/1.1 200", "after b'HTTP/1.1 200'"),
        (b"SSH-2.0\r\n\r\n", "begins with 'SSH-2.0'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "2 bytes short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "amid the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "amid the body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk's size is"),
    ],
)
async def test_an_answer_that_ends_too_early_is_cut(data: bytes, where: str) -> None:
    async with answering(data) as connection:
        with pytest.raises(Cut, match=where.replace("(", r"\(")):
            await (await connection.reply()).body()
