"""A caller's fault is no reason to leave an engine alone; an engine's own is (G7)."""

import time
from collections.abc import Awaitable, Callable

from modelyard.conformance.bench import Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Inapplicable, expect
from modelyard.conformance.client import Cut
from modelyard.conformance.following import milliseconds

REFUSALS = 30
REQUESTS = 60
AT_ONCE = 4
LEFT_ALONE = REQUESTS // 4
"""At most so many still reach an engine that fails: half would, were it not taken out."""


async def _passes(bench: Bench) -> str:
    for status in (400, 404, 422):
        question = bench.ask(f"status={status}")
        answer = await bench.whole(question)
        expect(answer.status == status, f"{status} was expected, came: {answer.brief}")
        said = answer.error().message
        expect(f"error {status}" in said, f"the engine's own words were expected, came: {said!r}")
    return "400, 404 and 422 came with the engine's own message"


async def _not_retried(bench: Bench) -> str:
    statuses = (400, 404, 413, 422)
    for status in statuses:
        question = bench.ask(f"status={status}")
        answer = await bench.whole(question)
        count = len(await bench.seen(question))
        expect(count <= 1, f"{status}: one request was expected at the engines, {count} came")
        expect(count == 1, f"after a few 4xx no engine is asked any more: {answer.brief}")
    return f"{', '.join(map(str, statuses))}: one engine was asked, once"


async def _refusals_keep(bench: Bench) -> str:
    questions = [bench.ask("status=400") for _ in range(REFUSALS)]
    answers = await together(bench.whole(question) for question in questions)
    other = next((answer for answer in answers if answer.status != 400), None)
    expect(other is None, f"400 was expected, came: {other.brief if other else ''}")
    return f"after {REFUSALS} 400s of the engines, {await bench.expect_both_asked()}"


async def _refused_engine_keeps(bench: Bench) -> str:
    await bench.a.fault("status=400")
    for _ in range(REFUSALS // AT_ONCE):
        await together(bench.whole(bench.ask()) for _ in range(AT_ONCE))
    refused = (await bench.a.state()).seen
    if not refused:
        raise Inapplicable("engine A was asked nothing")
    await bench.a.clear()
    return f"after {refused} 400s of A alone, {await bench.expect_both_asked()}"


def _takes_out(script: str, *, stream: bool) -> Callable[[Bench], Awaitable[str]]:
    """A check: engine A fails as `script` says, and is asked ever less."""

    async def look(bench: Bench) -> str:
        await bench.a.fault(script)
        for _ in range(REQUESTS // AT_ONCE):
            await together(_ask(bench, bench.ask("tokens=3"), stream) for _ in range(AT_ONCE))
        asked = (await bench.a.state()).seen
        if not asked:
            raise Inapplicable("engine A was asked nothing")
        expect(
            asked <= LEFT_ALONE,
            f"engine A failed and was asked by {asked} of {REQUESTS} requests all the same",
        )
        return f"{asked} of {REQUESTS} requests reached A before it was left alone"

    return look


async def _ask(bench: Bench, question: Question, stream: bool) -> None:
    """Ask, whatever comes of it."""
    try:
        if stream:
            await (await bench.stream(question)).rest()
        else:
            await bench.whole(question)
    except Cut:
        return


async def _comes_back(bench: Bench) -> str:
    await bench.a.fault("status=500")
    for _ in range(REQUESTS // AT_ONCE):
        await together(_ask(bench, bench.ask("tokens=1"), stream=False) for _ in range(AT_ONCE))
    await bench.a.clear()
    await bench.a.reset()
    begun = time.monotonic()

    async def asked() -> int:
        await together(_ask(bench, bench.ask("tokens=1"), stream=False) for _ in range(AT_ONCE))
        return (await bench.a.state()).seen

    await until(
        asked,
        bool,
        within_s=bench.target.settle_s,
        otherwise=lambda _: f"engine A was not asked for {bench.target.settle_s:g} s",
    )
    took = milliseconds(time.monotonic() - begun)
    return f"engine A was asked again {took} after it was well; {await _until_both(bench)}"


async def _until_both(bench: Bench) -> str:
    """Wait until both engines share the work as before."""
    deadline = time.monotonic() + bench.target.settle_s
    while True:
        try:
            return await bench.expect_both_asked()
        except Broken:
            if time.monotonic() > deadline:
                raise


CHECKS: tuple[Check, ...] = (
    Check(
        name="breakers/4xx-passes",
        meaning="an engine's 4xx reaches the client with its status and words",
        look=_passes,
    ),
    Check(
        name="breakers/4xx-not-retried",
        meaning="an engine's 4xx is no reason to ask another",
        look=_not_retried,
    ),
    Check(
        name="breakers/4xx-of-both",
        meaning=f"{REFUSALS} refusals by both engines take neither out",
        look=_refusals_keep,
        both=True,
    ),
    Check(
        name="breakers/4xx-of-one",
        meaning="refusals by one engine do not take it out",
        look=_refused_engine_keeps,
        both=True,
    ),
    Check(
        name="breakers/5xx",
        meaning="an engine that answers 500 again and again is left alone",
        look=_takes_out("status=500", stream=False),
        both=True,
        retrying="spends",
        deadline_s=30.0,
    ),
    Check(
        name="breakers/cut-streams",
        meaning="an engine that cuts its streams again and again is left alone",
        look=_takes_out("truncate_after=1", stream=True),
        both=True,
        deadline_s=30.0,
    ),
    Check(
        name="breakers/comes-back",
        meaning="an engine that was left alone is asked again when it is well",
        look=_comes_back,
        both=True,
        retrying="spends",
        deadline_s=60.0,
    ),
)
