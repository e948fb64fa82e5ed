"""A client that leaves ends the work for it at once, and harms nobody (G1, G2, G3)."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

from modelyard.conformance.answers import whole_stream
from modelyard.conformance.bench import CHAT, COMPLETIONS, Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Inapplicable, expect
from modelyard.conformance.client import Connection, Cut
from modelyard.conformance.following import BULKY, busy_engine, leave

LONG = "tokens=4000"
"""Twenty seconds, at an engine's usual pace."""
LEAVERS = 30
OTHERS = 6
ROUNDS = 8
AT_LEAST = 6
SETTLED_S = 0.3
"""For a request that must not come."""


async def _before_first_token(bench: Bench) -> str:
    question = bench.ask("first_token_s=60")
    connection = await bench.post(question.but(stream=True))
    await bench.until_seen(question)
    return await leave(bench, [question], connection.leave)


async def _midway(bench: Bench) -> str:
    return await _leave_stream(bench, bench.ask(LONG))


async def _midway_completions(bench: Bench) -> str:
    return await _leave_stream(bench, bench.ask(LONG, path=COMPLETIONS))


async def _leave_stream(bench: Bench, question: Question) -> str:
    stream = await bench.stream(question)
    await stream.until_tokens(3)
    return f"{await leave(bench, [question], stream.leave)}, after {stream.tokens} tokens"


async def _whole_answer(bench: Bench) -> str:
    return await _leave_whole(bench, CHAT)


async def _whole_answer_completions(bench: Bench) -> str:
    return await _leave_whole(bench, COMPLETIONS)


async def _leave_whole(bench: Bench, path: str) -> str:
    question = bench.ask(LONG, path=path)
    connection = await bench.post(question)
    await bench.until_seen(
        question,
        lambda found: any(seen.entry.tokens for seen in found),
        otherwise="no engine has begun",
    )
    return await leave(bench, [question], connection.leave)


async def _queued(bench: Bench) -> str:
    count = await _fill(bench)
    question = bench.ask("tokens=5")
    connection = await bench.post(question.but(stream=True))
    try:
        await bench.until_seen(question)
    except Broken:
        raise Inapplicable("the gateway sends nothing to engines that are full") from None
    seen = await leave(bench, [question], connection.leave)
    return f"{seen}, while {count} others held every slot"


async def _fill(bench: Bench) -> int:
    """Take every slot of both engines with requests that never end; how many."""
    engines = bench.engines[:2]
    count = 0
    for _ in range(ROUNDS):
        states = [await engine.state() for engine in engines]
        free = sum(max(0, len(state.slots) - state.running) for state in states)
        if not free:
            return count
        more = max(free, AT_LEAST)  # a gateway that draws lots sends some to the one that is full
        await together(bench.post(bench.ask("hang").but(stream=True)) for _ in range(more))
        count += more
        await _until_arrived(bench, count)
    raise Inapplicable("the gateway sends everything to one engine")


async def _until_arrived(bench: Bench, count: int) -> None:
    try:
        await until(
            bench.arrived,
            lambda found: found >= count,
            within_s=5.0,
            otherwise=lambda found: f"{found} of {count} requests at once were sent on",
        )
    except Broken as why:
        raise Inapplicable(f"the engines can't be filled: {why}") from None


async def _after_failover(bench: Bench) -> str:
    await bench.a.fault("status=503")
    await bench.b.fault("hang")
    questions = [bench.ask(LONG) for _ in range(8)]
    connections = await together(bench.post(question.but(stream=True)) for question in questions)
    twice: list[Question] = []

    async def asked_again() -> int:
        arrived = {question.tag: await bench.seen(question) for question in questions}
        twice[:] = [q for q in questions if len({seen.engine for seen in arrived[q.tag]}) == 2]
        return len(twice)

    try:
        await until(
            asked_again,
            bool,
            within_s=5.0,
            otherwise=lambda _: "no request was asked of a second engine",
        )
    except Broken as why:
        raise Inapplicable(str(why)) from None
    chosen = list(twice)
    leavers = [
        connection
        for question, connection in zip(questions, connections, strict=True)
        if question in chosen
    ]
    seen = await leave(bench, chosen, partial(_go, leavers))
    before = [len(await bench.seen(question)) for question in chosen]
    await asyncio.sleep(SETTLED_S)
    after = [len(await bench.seen(question)) for question in chosen]
    expect(before == after, "engines were asked again after the client had left")
    return f"{len(chosen)} requests that A had refused: {seen}"


def _go(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.leave()


async def _while_not_reading(bench: Bench) -> str:
    question = bench.ask(f"{LONG} {BULKY}")
    stream = await bench.stream(question, receive_buffer=16_384)
    await stream.until_tokens(1)
    engine = await busy_engine(bench, question)

    async def unsent() -> int:
        return (await engine.state()).unsent_bytes

    with contextlib.suppress(Broken):  # who takes in everything must notice all the same
        await until(unsent, bool, within_s=3.0, otherwise=str)
    return await leave(bench, [question], stream.leave)


async def _amid_its_request(bench: Bench) -> str:
    data = bench.bytes_of(bench.ask("tokens=1"))
    for share in (0.3, 0.95):
        connection = await bench.connect()
        await connection.send(data[: int(len(data) * share)])
        connection.leave()
    await bench.good(bench.ask("tokens=1"))
    await asyncio.sleep(SETTLED_S)
    arrived = await bench.arrived()
    expect(arrived == 1, f"half a request is none, the engines got {arrived - 1}")
    return "two clients that left amid their request: no engine was asked"


async def _many_at_once(bench: Bench) -> str:
    questions, connections = await _begin_leavers(bench)
    seen = await leave(bench, questions, partial(_go, connections))
    busy = {engine.name: (await engine.state()).busy for engine in bench.engines}
    expect(not any(busy.values()), f"the engines were to rest, they work on {busy}")
    return f"{LEAVERS} clients left: {seen}, no engine works any more"


async def _begin_leavers(bench: Bench) -> tuple[list[Question], list[Connection]]:
    """Requests that engines work on: streams and whole answers, begun and not yet begun."""
    scripts = [LONG, "first_token_s=60", "stall_after=2"]
    questions = [
        bench.ask(scripts[number % 3]).but(stream=number % 2 == 0) for number in range(LEAVERS)
    ]
    connections = await together(bench.post(question) for question in questions)
    await until(
        bench.arrived,
        lambda found: found >= LEAVERS,
        within_s=8.0,
        otherwise=lambda found: f"{found} of {LEAVERS} requests reached an engine",
    )
    return questions, connections


async def _not_held_against(bench: Bench) -> str:
    for _ in range(2):
        questions, connections = await _begin_leavers(bench)
        await leave(bench, questions, partial(_go, connections))
        for engine in bench.engines:
            await engine.reset()
    seen = await bench.expect_both_asked()
    return f"after {2 * LEAVERS} clients that left, {seen}"


async def _others_unharmed(bench: Bench) -> str:
    async def stay() -> int:
        question = bench.ask("tokens=100")
        return whole_stream(await (await bench.stream(question)).rest(), question.prompt).tokens

    async def go() -> None:
        stream = await bench.stream(bench.ask(LONG))
        await stream.until_tokens(5)
        stream.leave()

    stayed = [asyncio.ensure_future(stay()) for _ in range(OTHERS)]
    try:
        await together(go() for _ in range(2 * OTHERS))
        tokens = sum(await together(stayed))
    except Cut as cut:
        raise Broken(f"a stream beside those that were left broke: {cut}") from None
    finally:
        for each in stayed:
            each.cancel()
    return f"{OTHERS} streams beside {2 * OTHERS} that were left were whole: {tokens} tokens"


async def _own_counts(bench: Bench) -> str:
    names = ("modelyard_requests_in_flight", "modelyard_replica_requests_in_flight")
    stream = await bench.stream(bench.ask(LONG))
    await stream.until_tokens(1)

    async def counted() -> dict[str, float]:
        text = (await bench.get("/metrics")).body.decode()
        return {name: _metric(text, name) for name in names}

    async def expect_counts(holds: bool) -> None:
        await until(
            counted,
            lambda found: all((value > 0) is holds for value in found.values()),
            within_s=3.0,
            otherwise=lambda found: f"{'some' if holds else 'none'} was expected, came: {found}",
        )

    await expect_counts(True)
    stream.leave()
    await expect_counts(False)
    return "requests in flight, by the gateway's metrics, were 1 and went back to 0"


def _metric(text: str, name: str) -> float:
    """Sum of a metric's samples."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


CHECKS: tuple[Check, ...] = (
    Check(
        name="leaving/before-first-token",
        meaning="a client that leaves before the first token ends the engine's work within 1 s",
        look=_before_first_token,
    ),
    Check(
        name="leaving/midway",
        meaning="a client that leaves in mid-stream ends the engine's work within 1 s",
        look=_midway,
    ),
    Check(
        name="leaving/midway-completions",
        meaning="so does one of /v1/completions",
        look=_midway_completions,
    ),
    Check(
        name="leaving/whole-answer",
        meaning="a client that leaves while it waits for a whole answer ends the work within 1 s",
        look=_whole_answer,
    ),
    Check(
        name="leaving/whole-completions",
        meaning="so does one of /v1/completions",
        look=_whole_answer_completions,
    ),
    Check(
        name="leaving/queued",
        meaning="a client that leaves while the engine has it wait gives up its place within 1 s",
        look=_queued,
        both=True,
        deadline_s=30.0,
    ),
    Check(
        name="leaving/after-failover",
        meaning="a client that leaves while a second engine is asked ends that, and no third is",
        look=_after_failover,
        both=True,
        retrying="relies",
        deadline_s=20.0,
    ),
    Check(
        name="leaving/while-not-reading",
        meaning="a client that had stopped reading is seen to leave within 1 s",
        look=_while_not_reading,
        deadline_s=20.0,
    ),
    Check(
        name="leaving/amid-its-request",
        meaning="a client that leaves before its request is whole has asked nothing",
        look=_amid_its_request,
    ),
    Check(
        name="leaving/many-at-once",
        meaning=f"{LEAVERS} clients that leave at once leave no engine at work",
        look=_many_at_once,
        deadline_s=20.0,
    ),
    Check(
        name="leaving/not-held-against",
        meaning=f"{2 * LEAVERS} clients that left are no reason to stop asking an engine",
        look=_not_held_against,
        both=True,
        deadline_s=30.0,
    ),
    Check(
        name="leaving/others-unharmed",
        meaning="streams beside those that are left go on",
        look=_others_unharmed,
        deadline_s=20.0,
    ),
    Check(
        name="leaving/own-counts",
        meaning="the gateway's own count of requests in flight goes back to zero",
        look=_own_counts,
        needs=("headers",),
    ),
)
