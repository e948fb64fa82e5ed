"""Requests that a gateway has to refuse, sent byte for byte, and what a refusal has to be."""

import asyncio
from collections.abc import Collection, Mapping

from modelyard.conformance.answers import Answer
from modelyard.conformance.bench import CHAT, Bench
from modelyard.conformance.check import Broken, expect
from modelyard.conformance.client import Connection, Cut, request

_WITHIN_S = 5.0
_FEW = 5
"""So many statuses are named; more of them are a class."""


async def told(
    bench: Bench,
    body: bytes | None,
    *,
    path: str = CHAT,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a well-formed request with any body; `headers` take the place of the key's.

    Raises Cut.
    """
    connection = await bench.connect()
    shown = bench.headers() if headers is None else dict(headers)
    await connection.send(request(bench.place, path, body, shown, method))
    answer = await bench.answer(connection)
    connection.leave()
    return answer


def expect_refusal(answer: Answer, statuses: Collection[int], what: str) -> None:
    """Raise Broken unless it has one of the statuses and is an error in OpenAI's form."""
    few = len(statuses) <= _FEW
    wanted = " or ".join(map(str, sorted(statuses))) if few else f"a {min(statuses) // 100}xx"
    expect(answer.status in statuses, f"{what}: {wanted} was expected, came: {answer.brief}")
    kind = answer.headers.get("content-type", "")
    expect(
        kind.partition(";")[0].strip().lower() == "application/json",
        f"{what}: application/json was expected, came {answer.status} with {kind or 'no type'!r}",
    )
    answer.error()


async def refused(connection: Connection, what: str, *, may_wait: bool = False) -> str | None:
    """Whether the request that was sent is refused: how, or None where it is answered.

    A connection that is closed without an answer is a refusal too. Raises Broken where nothing
    comes: something was read as the beginning of more. `may_wait`: it is such a beginning.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            reply = await connection.reply()
            await reply.body()
    except Cut:
        return "closed"
    except TimeoutError:
        if may_wait:
            return "waited for"
        raise Broken(f"{what}: it was neither refused nor answered for {_WITHIN_S:g} s") from None
    return str(reply.status) if 400 <= reply.status < 500 or reply.status == 501 else None


async def expect_unasked(bench: Bench, what: str) -> None:
    """Raise Broken when any request reached an engine since the check began."""
    count = await bench.arrived()
    expect(count == 0, f"{what}: no engine should be asked, {count} requests arrived")
