"""Another engine is asked while nothing has reached the client, and never after (G5, G8, G9)."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from modelyard.conformance.answers import broken_stream, whole_stream
from modelyard.conformance.bench import Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Inapplicable, expect
from modelyard.conformance.following import milliseconds

AT_ONCE = 4
ROUNDS = 6
BOTH_OUT = 10
SOON_S = 5.0
ASIDE_S = 2
"""What an engine's Retry-After says."""
Ask = Callable[[Bench, Question], Awaitable[object]]


async def _good(bench: Bench, question: Question) -> None:
    await bench.good(question)


async def _good_stream(bench: Bench, question: Question) -> None:
    whole_stream(await (await bench.stream(question)).rest(), question.prompt)


def _over(script: str, ask: Ask = _good, *, again: int = 1) -> Callable[[Bench], Awaitable[str]]:
    """A check: engine A does what `script` says, and whoever comes to it is answered by B.

    `again`: how often A may be asked the same; twice where a kept connection may have been stale.
    """

    async def look(bench: Bench) -> str:
        await bench.a.fault(script)
        met: list[Question] = []
        asked = 0
        for _ in range(ROUNDS):
            questions = [bench.ask("tokens=5") for _ in range(AT_ONCE)]
            await together(ask(bench, question) for question in questions)
            asked += len(questions)
            met += [each for each in questions if await _expect_once_each(bench, each, again)]
            if met:
                return f"{len(met)} of {asked} requests met it at A, and B answered them"
        raise Inapplicable(f"engine A was asked nothing by {asked} requests")

    return look


async def _expect_once_each(bench: Bench, question: Question, again: int) -> bool:
    """Whether A was asked; raises Broken when an engine was asked more often than it should."""
    counts = {"A": 0, "B": 0}
    for seen in await bench.seen(question):
        counts[seen.engine] = counts.get(seen.engine, 0) + 1
    expect(
        counts["A"] <= again and counts["B"] <= 1,
        f"no engine was to be asked again, A was asked {counts['A']} and B {counts['B']} times",
    )
    return counts["A"] > 0


async def _never_after_first_byte(bench: Bench) -> str:
    questions = [bench.ask("tokens=40 truncate_after=3") for _ in range(3)]
    for question in questions:
        stream = await (await bench.stream(question)).rest()
        if not stream.tokens:
            raise Inapplicable(f"no token came before the cut: {stream.summary}")
        broken_stream(stream)
        count = len(await bench.seen(question))
        expect(count == 1, f"one request was expected at the engines, {count} came")
    return f"{len(questions)} streams that were cut after 3 tokens were asked for once each"


async def _each_once(bench: Bench) -> str:
    question = bench.ask("status=500")
    answer = await bench.whole(question)
    expect(answer.status >= 500, f"a 5xx was expected, came: {answer.brief}")
    found = await bench.seen(question)
    engines = [seen.engine for seen in found]
    repeated = len(engines) - len(set(engines))
    expect(not repeated, f"no engine was to be asked twice, asked were: {', '.join(engines)}")
    return f"{answer.status} after asking {' and '.join(engines)}, each once"


async def _both_out(bench: Bench) -> str:
    for engine in bench.engines[:2]:
        await engine.fault("refuse")
    took = []
    for _ in range(BOTH_OUT):
        begun = time.monotonic()
        try:
            async with asyncio.timeout(SOON_S):
                answer = await bench.whole(bench.ask("tokens=5"))
        except TimeoutError:
            raise Broken(f"with no engine there, nothing came in {SOON_S:g} s") from None
        took.append(time.monotonic() - begun)
        expect(answer.status >= 500, f"a 5xx was expected, came: {answer.brief}")
        answer.error()
    told = milliseconds(sorted(took)[len(took) // 2])
    return f"{BOTH_OUT} errors in OpenAI's form, the last {answer.status}; half within {told}"


async def _both_out_stream(bench: Bench) -> str:
    for engine in bench.engines[:2]:
        await engine.fault("status=503")
    stream = await (await bench.stream(bench.ask("tokens=5"))).rest()
    expect(
        stream.status >= 500,
        f"a 5xx before anything was sent was expected, came: {stream.summary}",
    )
    return f"status {stream.status}, no stream was begun"


async def _retry_after(bench: Bench) -> str:
    for engine in bench.engines[:2]:
        await engine.fault("refuse")
    for number in range(4 * BOTH_OUT):
        answer = await bench.whole(bench.ask("tokens=5"))
        if answer.status == 503:
            after = answer.headers.get("retry-after")
            expect(after is not None, f"503 without Retry-After: {answer.brief}")
            return f"request {number + 1} got 503 with Retry-After: {after}"
    raise Inapplicable(f"with no engine there, it says {answer.status} and never 503")


async def _comes_back(bench: Bench) -> str:
    await bench.a.fault("status=503")
    await together(bench.whole(bench.ask("tokens=2")) for _ in range(12))  # whatever they get
    await bench.a.clear()
    before = (await bench.a.state()).seen
    begun = time.monotonic()

    async def asked() -> int:
        await together(bench.whole(bench.ask("tokens=2")) for _ in range(AT_ONCE))
        return (await bench.a.state()).seen - before

    await until(
        asked,
        bool,
        within_s=bench.target.settle_s,
        otherwise=lambda _: f"engine A was not asked for {bench.target.settle_s:g} s",
    )
    return f"engine A was asked again {milliseconds(time.monotonic() - begun)} after it was well"


async def _busy_is_left_alone(bench: Bench) -> str:
    await bench.a.fault(f"status=429 retry_after_s={ASIDE_S}", times=1)
    for _ in range(AT_ONCE * ROUNDS):
        question = bench.ask("tokens=2")
        await bench.good(question)
        if any(seen.engine == "A" for seen in await bench.seen(question)):
            break
    else:
        raise Inapplicable("engine A was asked nothing")
    until_s = time.monotonic() + 0.75 * ASIDE_S
    asked = 0
    while time.monotonic() < until_s and asked < 20:
        question = bench.ask("tokens=2")
        await bench.good(question)
        late = time.monotonic() > until_s
        met = any(seen.engine == "A" for seen in await bench.seen(question))
        expect(late or not met, f"engine A said {ASIDE_S} s and was asked again before")
        asked += 1
    return f"B answered the one that A refused, and the next {asked}; A was left alone"


CHECKS: tuple[Check, ...] = (
    Check(
        name="failover/connection-reset",
        meaning="where an engine resets the connection, another answers",
        look=_over("refuse", again=2),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/connection-reset-stream",
        meaning="so it is for a stream",
        look=_over("refuse", _good_stream, again=2),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/status-500",
        meaning="where an engine answers 500, another answers; neither is asked twice",
        look=_over("status=500"),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/status-503-stream",
        meaning="where an engine answers 503 to a stream, another streams",
        look=_over("status=503", _good_stream),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/answer-cut",
        meaning="where an engine cuts a whole answer, another answers",
        look=_over("truncate_after=2"),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/cut-before-first-token",
        meaning="where a stream is cut before its first token, another engine streams",
        look=_over("truncate_after=0", _good_stream),
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/busy",
        meaning="an engine's 429 goes to another, and it is left alone for its Retry-After",
        look=_busy_is_left_alone,
        both=True,
        retrying="relies",
    ),
    Check(
        name="failover/never-after-first-byte",
        meaning="once tokens were sent on, no engine is asked again",
        look=_never_after_first_byte,
    ),
    Check(
        name="failover/each-once",
        meaning="no engine is asked twice for one request, and its error reaches the client",
        look=_each_once,
        both=True,
    ),
    Check(
        name="failover/comes-back",
        meaning="an engine that is well again is asked again",
        look=_comes_back,
        both=True,
        retrying="relies",
        deadline_s=30.0,
    ),
    Check(
        name="failover/both-out-stream",
        meaning="with every engine failing, a stream is refused by status, not begun",
        look=_both_out_stream,
    ),
    Check(
        name="failover/both-out",
        meaning="with no engine there, requests get errors at once, and never hang",
        look=_both_out,
        retrying="spends",
        deadline_s=60.0,
    ),
    Check(
        name="failover/retry-after",
        meaning="a 503 says when to come again",
        look=_retry_after,
        retrying="spends",
        deadline_s=30.0,
    ),
)
