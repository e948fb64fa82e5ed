"""No check passes both with a gateway that grants everything and with one that refuses all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.conformance.test_meddling import CHECKS

from modelyard.conformance.bench import Bench
from modelyard.conformance.check import Broken, Check, Inapplicable, Result
from modelyard.conformance.client import Cut
from modelyard.conformance.engines import Engine
from modelyard.conformance.target import LIMIT_KINDS, LimitedKey, Target
from modelyard.conformance.yard import EngineProcess

YES = b'{"model":"m","object":"list","data":[],"choices":[]}'
NO = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'
DEADLINE_S = 3.0


@contextlib.asynccontextmanager
async def always(status: int, body: bytes) -> AsyncIterator[str]:
    """Answers every connection's first head so, and closes."""
    answer = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status, len(body), body,
    )  # fmt: skip

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def findings(url: str, engines: Sequence[EngineProcess]) -> dict[str, tuple[Result, str]]:
    """Drive all checks of these themes, with all that they may need said to be there."""
    target = Target(
        url=url,
        model="m",
        engines=tuple(engine.url for engine in engines),
        key="sk-one",
        other_tenant_key="sk-two",
        single_model="single",
        cached_model="cached",
        fallback_model="fallback",
        forbidden_model="forbidden",
        max_body_bytes=1_000_000,
        headers="modelyard",
        limited_keys=tuple(
            LimitedKey(f"sk-{kind}-{number}", {kind: 4})
            for kind in LIMIT_KINDS
            for number in range(6)
        ),
    )
    bench = Bench(target, tuple(Engine(each.name, each.url) for each in engines))
    found = {}
    for check in CHECKS:
        for engine in bench.engines:
            await engine.reset()
        found[check.name] = await outcome(check, bench)
        await bench.close()
    for engine in bench.engines:
        engine.close()
    return found


async def outcome(check: Check, bench: Bench) -> tuple[Result, str]:
    """Run one check without the runner, which asks that a model answers before it begins."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return "passed", await check.look(bench)
    except Inapplicable as reason:
        return "not_applicable", str(reason)
    except (Broken, Cut, OSError, TimeoutError) as broken:
        return "failed", str(broken)


@pytest.mark.timeout(240)
async def test_every_check_can_fail(engines: list[EngineProcess]) -> None:
    async with always(200, YES) as yes, always(400, NO) as no:
        granted = await findings(yes, engines)
        refused = await findings(no, engines)

    never = {
        name: (granted[name], refused[name])
        for name in granted
        if "failed" not in (granted[name][0], refused[name][0])
    }
    assert not never, "\n".join(map(str, never.items()))
