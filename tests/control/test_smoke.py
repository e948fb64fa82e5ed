"""Smoke tests are asked through gateways, whatever becomes of these; a candidate that breaks fails.

The gateways here are sockets that say one thing: what is at stake is what the tester makes of it.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.certificates import make_certificate

from modelyard.control import smoke
from modelyard.control.smoke import Candidate, SmokeTester
from modelyard.core.pinning import SLOT_HEADER
from modelyard.core.smoke import SmokeResult, SmokeTest

FOUR = SmokeTest(name="it adds", prompt="What is 2+2?", all_of=("4",))


HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"


def said(text: str, version: int = 2) -> bytes:
    delta = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n".encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        b"x-modelyard-version: small:%d\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
        % (version, len(body), body)
    )


class Speaker:
    """Answers each connection with the next of its answers; the last one stays."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        writer.close()


@asynccontextmanager
async def listening(
    speaker: Speaker, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    server = await asyncio.start_server(speaker, "127.0.0.1", port, ssl=tls)
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def asked(
    gateway: Callable[[], str], replica: str = "", test: SmokeTest = FOUR
) -> SmokeResult:
    candidate = Candidate(
        gateway=gateway, replica=replica, model="small", slot="green", version=2, chat=True
    )
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:  # noqa: S501
        [result] = await SmokeTester(http, "secret").run(candidate, [test])
    return result


async def test_the_controller_names_the_slot_and_shows_its_token() -> None:
    gateway = Speaker(said("It is 4."))
    async with listening(gateway) as url:
        result = await asked(lambda: url)
    assert result.passed, result.told
    assert f"{SLOT_HEADER}: green" in gateway.heads[0]
    assert "authorization: bearer secret" in gateway.heads[0]


async def test_a_gateway_that_speaks_tls_is_asked_too(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "gateway", serial=1)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made, tmp_path / "gateway.key")
    async with listening(Speaker(said("It is 4.")), tls=tls) as url:
        result = await asked(lambda: url)
    assert result.passed, result.told


async def test_a_gateway_that_is_started_again_does_not_speak_against_the_candidate() -> None:
    gateway = Speaker(HALF, said("It is 4."))
    async with listening(gateway) as url:
        broken = await asked(lambda: url)
    assert broken.passed, broken.told

    port = int(url.rpartition(":")[2])
    asking = asyncio.create_task(asked(lambda: url))
    await asyncio.sleep(0.2)  # nobody listens there
    assert not asking.done()
    async with listening(Speaker(said("It is 4.")), port):
        result = await asking
    assert result.passed, result.told


async def test_another_gateway_is_asked_when_one_is_gone() -> None:
    async with listening(Speaker(said("It is 4."))) as alive:
        urls = iter(["http://127.0.0.1:1"])
        result = await asked(lambda: next(urls, alive))
    assert result.passed, result.told


async def test_without_any_gateway_the_replica_is_asked_itself() -> None:
    replica = Speaker(said("It is 4.", version=0))
    async with listening(replica) as url:
        result = await asked(lambda: "", replica=url)
        gone = await asked(lambda: "", replica="http://127.0.0.1:1")
    assert result.passed, result.told
    assert "bearer" not in replica.heads[0]
    assert "no answer: ConnectError" in gone.told


async def test_what_another_version_answers_is_no_answer_of_the_candidate() -> None:
    async with listening(Speaker(said("It is 4.", version=1))) as url:
        result = await asked(lambda: url)
    assert "version 1 answered, 2 was asked" in result.told


async def test_who_does_not_come_back_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smoke, "_NOT_YET_S", 0.1)
    result = await asked(lambda: "http://127.0.0.1:1")
    assert "no answer: ConnectError" in result.told


@pytest.mark.parametrize(
    "expects",
    [
        {"regex": "^(a+)+$"},
        {"json_schema": {"type": "string", "pattern": "^(a+)+$"}},
    ],
)
async def test_a_regex_that_would_take_for_ever_fails_instead(expects: dict[str, Any]) -> None:
    test = SmokeTest(prompt="?", **expects)
    answer = "a" * 60 + "!"
    async with listening(Speaker(said(answer if test.regex else f'"{answer}"'))) as url:
        result = await asked(lambda: url, test=test)
    assert not result.passed
    assert "simplify its regex" in result.told
