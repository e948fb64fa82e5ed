"""Follows requests to the engines: which works on one, and when one that was left ends there."""

import asyncio
import time
from collections.abc import Callable, Sequence

from modelyard.conformance.bench import POLL_S, Bench, Question, Seen
from modelyard.conformance.check import Broken, expect
from modelyard.conformance.engines import Engine

CANCELLED_WITHIN_S = 1.0
GIVE_UP_S = 3.0
BULKY = f"fingerprint={'x' * 40_000}"
"""Words of a script that make each event 40 kB large."""


def milliseconds(seconds: float) -> str:
    """`12 ms`."""
    return f"{seconds * 1000:.0f} ms"


async def busy_engine(bench: Bench, question: Question) -> Engine:
    """The engine that works on a question; raises Broken when none does."""
    found = await bench.until_seen(question)
    return next(engine for engine in bench.engines if engine.name == found[-1].engine)


async def leave(bench: Bench, questions: Sequence[Question], go: Callable[[], None]) -> str:
    """Let a client go away, and see that the engines that it was asked of stop.

    Raises Broken when one works on, or stops only after more than a second.
    """
    left = time.monotonic()
    go()
    slowest_s = 0.0
    """Of our own looks: what is seen late because of them is not the gateway's delay."""
    while True:
        begun = time.monotonic()
        found = [seen for question in questions for seen in await bench.seen(question)]
        now = time.monotonic()
        slowest_s = max(slowest_s, now - begun)
        busy = [seen for seen in found if seen.entry.outcome == "open"]
        if not busy:
            break
        if now - left > GIVE_UP_S:
            raise Broken(f"{busy[0]}, {now - left:.1f} s after the client had left")
        await asyncio.sleep(POLL_S)
    took_s = now - left
    _expect_cancelled(found, len(questions))
    expect(
        took_s - slowest_s <= CANCELLED_WITHIN_S,
        f"the engine was to stop within {CANCELLED_WITHIN_S:g} s, it took {took_s:.1f} s",
    )
    where = " and ".join(sorted({seen.engine for seen in found if _cancelled(seen)}))
    plural = "s" if " and " in where else ""
    return f"cancelled after {milliseconds(took_s)} at engine{plural} {where}"


def _expect_cancelled(found: Sequence[Seen], count: int) -> None:
    """As many as were asked must have been cancelled; others may have failed before."""
    cancelled = sum(map(_cancelled, found))
    others = [seen for seen in found if not _cancelled(seen)]
    told = str(others[0]) if others else "no engine has seen it"
    expect(cancelled >= count, f"the engine was to see the client leave: {told}")


def _cancelled(seen: Seen) -> bool:
    return seen.entry.outcome == "cancelled"
