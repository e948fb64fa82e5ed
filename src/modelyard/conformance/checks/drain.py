"""The gateway ends without harm: told to, it finishes what it has begun (G20, G21)."""

import asyncio
import contextlib
import os
import signal
import time

from modelyard.conformance.answers import Answer, Stream, checked, whole_stream
from modelyard.conformance.bench import Bench, Question, until
from modelyard.conformance.check import Broken, Check, Inapplicable, expect
from modelyard.conformance.client import Cut

STREAMS = 4
TOKENS = 300
"""A second and a half, at an engine's usual pace."""
REFUSED_WITHIN_S = 5.0
GONE_WITHIN_S = 30.0
HEALTH_PATHS = (
    "/livez", "/healthz", "/health/liveness", "/health/liveliness", "/health", "/ready", "/readyz",
)  # fmt: skip
"""Usual names; a page that asks the engines on purpose mostly has a sibling that does not."""


async def _health(bench: Bench) -> str:
    path = await _answering(bench, HEALTH_PATHS)
    if path is None:
        raise Inapplicable("it has no page of health under a usual name")
    before = await bench.arrived()
    took = []
    for _ in range(10):
        begun = time.monotonic()
        answer = await bench.get(path)
        took.append(time.monotonic() - begun)
        expect(answer.status == 200, f"{path}: 200 was expected, came: {answer.brief}")
    asked = await bench.arrived() - before
    expect(asked == 0, f"{path} made {asked} requests to engines")
    return f"{path} is 200 within {1000 * min(took):.1f} ms and asks no engine"


async def _answering(bench: Bench, paths: tuple[str, ...]) -> str | None:
    """The first path that is answered with 200."""
    for path in paths:
        with contextlib.suppress(Cut):
            if (await bench.get(path)).status == 200:
                return path
    return None


async def _terminated(bench: Bench) -> str:
    pid = bench.target.pid
    if pid is None:
        raise Inapplicable("its process is not known")
    questions = [bench.ask(f"tokens={TOKENS}") for _ in range(STREAMS)]
    streams = [await bench.stream(question) for question in questions]
    whole = bench.ask(f"tokens={TOKENS}")
    waiting = asyncio.ensure_future(bench.answer(await bench.post(whole)))
    for stream in streams:
        await stream.until_tokens(2)
    await bench.until_seen(whole)
    os.kill(pid, signal.SIGTERM)
    told = time.monotonic()
    try:
        refused = await _until_refused(bench)
        await _expect_finished(streams, questions, waiting, whole)
    finally:
        waiting.cancel()
    finished_s = time.monotonic() - told
    code = await _until_gone(bench, pid)
    return (
        f"{STREAMS + 1} requests in flight were finished {finished_s:.1f} s after SIGTERM, "
        f"new ones {refused}, {code}"
    )


async def _until_refused(bench: Bench) -> str:
    """How a new request is refused; raises Broken when it is taken all the time."""
    deadline = time.monotonic() + REFUSED_WITHIN_S
    while True:
        try:
            answer = await bench.whole(bench.ask("tokens=1"))
        except (OSError, Cut):
            return "got no connection"
        if answer.status == 503:
            return "got 503"
        if time.monotonic() > deadline:
            raise Broken(f"after SIGTERM new requests are still answered: {answer.brief}")


async def _expect_finished(
    streams: list[Stream],
    questions: list[Question],
    waiting: "asyncio.Future[Answer]",
    whole: Question,
) -> None:
    for stream, question in zip(streams, questions, strict=True):
        whole_stream(await stream.rest(), question.prompt)
    answer = await waiting
    expect(answer.status == 200, f"200 was expected for what was in flight: {answer.brief}")
    checked(answer.text(), whole.prompt)


async def _until_gone(bench: Bench, pid: int) -> str:
    """How the process ended, as far as can be known; raises Broken when it does not."""

    async def gone() -> bool:
        if bench.exit_code is not None:
            return bench.exit_code() is not None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await until(
        gone,
        bool,
        within_s=GONE_WITHIN_S,
        otherwise=lambda _: f"its process was still there {GONE_WITHIN_S:g} s later",
    )
    if bench.exit_code is None:
        return "then its process was gone"
    code = bench.exit_code()
    expect(code == 0, f"exit code 0 was expected, came: {code}")
    return "exit code 0"


CHECKS: tuple[Check, ...] = (
    Check(
        name="drain/health",
        meaning="the page of health answers at once and asks no engine",
        look=_health,
    ),
    Check(
        name="drain/sigterm",
        meaning="after SIGTERM what is in flight is finished, nothing new taken, the end is clean",
        look=_terminated,
        needs=("pid",),
        deadline_s=60.0,
        last=True,
    ),
)
