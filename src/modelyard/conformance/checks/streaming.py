"""Streams arrive as they are made, whole, and at the client's pace (G5, G10)."""

import asyncio
import time

from modelyard.conformance.answers import Stream, whole_stream
from modelyard.conformance.bench import COMPLETIONS, Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Inapplicable, expect
from modelyard.conformance.following import BULKY, busy_engine, milliseconds
from modelyard.engines.fake_server.answers import check_answer

MANY = 50
SOON_S = 5.0
"""For what takes an engine milliseconds, on a machine that has other things to do."""
HELD_BACK_BYTES = 1_000_000
SMALL_BUFFER = 16_384
FOREIGN = "Grüße, 漢字, 😀 and \u200b\u202e"


async def _whole(bench: Bench) -> str:
    stream = await (await bench.stream(question := bench.ask("tokens=40"))).rest()
    found = whole_stream(stream, question.prompt)
    expect(stream.finish.get(0) == "stop", f"finish_reason stop was expected: {stream.summary}")
    return f"{found.tokens} tokens in order, finish_reason stop, one [DONE]"


async def _completions(bench: Bench) -> str:
    question = bench.ask("tokens=40", path=COMPLETIONS)
    found = whole_stream(await (await bench.stream(question)).rest(), question.prompt)
    return f"{found.tokens} tokens in order, one [DONE]"


async def _first_token(bench: Bench) -> str:
    took_s = await _tokens_of_a_stalled(bench, 1)
    return f"the first token came after {milliseconds(took_s)}, the second was not made yet"


async def _every_token(bench: Bench) -> str:
    await _tokens_of_a_stalled(bench, 25)
    return "the engine fell silent after 25 tokens, and all 25 came"


async def _tokens_of_a_stalled(bench: Bench, count: int) -> float:
    """Seconds until all came of an engine that makes no more; raises Broken."""
    question = bench.ask(f"tokens=100 stall_after={count}")
    begun = time.monotonic()
    connection = await bench.post(question.but(stream=True))
    tokens = 0

    async def read() -> None:
        nonlocal tokens
        stream = Stream(await connection.reply(), connection)
        while tokens < count and await stream.event():
            tokens = stream.tokens
        expect(tokens >= count, f"the stream ended too early: {stream.summary}")

    try:
        async with asyncio.timeout(SOON_S):
            await read()
    except TimeoutError:
        raise Broken(f"the engine made {count} tokens, {tokens} came in {SOON_S:g} s") from None
    return time.monotonic() - begun


async def _many(bench: Bench) -> str:
    async def one() -> int:
        question = bench.ask("tokens=30")
        return whole_stream(await (await bench.stream(question)).rest(), question.prompt).tokens

    counts = await together(one() for _ in range(MANY))
    return f"{len(counts)} streams at once, each whole and its own: {sum(counts)} tokens"


async def _choices(bench: Bench) -> str:
    question = bench.ask("tokens=20", n=2)
    stream = await (await bench.stream(question)).rest()
    if 400 <= stream.status < 500:
        raise Inapplicable(f"n=2 is refused: {stream.summary}")
    whole_stream(stream, question.prompt)
    other = check_answer(stream.text(1))
    expect(other.complete, f"a whole second choice was expected, came: {stream.text(1)[:60]!r}")
    expect(set(stream.finish) == {0, 1}, f"two finish_reasons were expected: {stream.summary}")
    return "two choices of 20 tokens, each in order with its finish_reason, one [DONE]"


async def _large(bench: Bench) -> str:
    question = bench.ask(f"tokens=100 {BULKY}")
    stream = await (await bench.stream(question)).rest()
    found = whole_stream(stream, question.prompt)
    return f"{found.tokens} tokens in {stream.size_bytes / 1e6:.1f} MB of events"


async def _foreign_text(bench: Bench) -> str:
    question = bench.ask("tokens=10 fingerprint=fp-ü漢😀", text=FOREIGN)
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)  # its numbers are drawn from the prompt's bytes
    kept = stream.fingerprints <= {"fp-ü漢😀"}
    expect(kept, f"system_fingerprint 'fp-ü漢😀' was expected, came: {stream.fingerprints}")
    answered = "came back whole" if stream.fingerprints else "was taken out of the answer"
    return f"the prompt's umlauts, ideographs and emoji reached the engine; the answer's {answered}"


async def _head(bench: Bench) -> str:
    stream = await bench.stream(bench.ask("tokens=3"))
    expect(stream.status == 200, f"200 was expected, came: {stream.summary}")
    kind = stream.headers.get("content-type", "nothing")
    expect(stream.is_stream, f"content-type text/event-stream was expected, came: {kind}")
    coding = stream.headers.get("content-encoding", "identity")
    expect(coding == "identity", f"nobody asked for content-encoding {coding}")
    length = stream.headers.get("content-length")
    expect(length is None, f"a stream's length can't be known, came: content-length {length}")
    return f"content-type {kind}, no content-encoding, no content-length"


async def _connection_kept(bench: Bench) -> str:
    connection = await bench.connect()
    for number in range(5):
        question = bench.ask("tokens=5")
        await bench.post(question.but(stream=True), on=connection)
        stream = await Stream(await connection.reply(), connection).rest()
        whole_stream(stream, question.prompt)
        if stream.headers.get("connection", "").lower() == "close":
            raise Inapplicable(f"it says 'connection: close' after {number + 1} streams")
    return "5 streams one after another on one connection"


async def _held_back(bench: Bench) -> str:
    question = bench.ask(f"tokens=4000 {BULKY}")
    stream = await _begun_unread(bench, question)
    engine = await busy_engine(bench, question)

    async def unsent() -> int:
        return (await engine.state()).unsent_bytes

    held = await until(
        unsent,
        lambda found: found >= HELD_BACK_BYTES,
        within_s=8.0,
        otherwise=lambda found: (
            f"engine {engine.name} was to be held back while the client reads "
            f"nothing, all but {found} bytes were taken from it"
        ),
    )
    stream.leave()
    return f"engine {engine.name} was left with {held / 1e6:.1f} MB while the client read nothing"


async def _begun_unread(bench: Bench, question: Question) -> Stream:
    """A stream of large events, of which the first was read; raises Inapplicable."""
    stream = await bench.stream(question, receive_buffer=SMALL_BUFFER)
    await stream.until_tokens(1)
    if stream.size_bytes < len(BULKY) / 2:
        raise Inapplicable("the gateway takes out what makes the stream large")
    return stream


async def _others_flow(bench: Bench) -> str:
    stuck = [await _begun_unread(bench, bench.ask(f"tokens=4000 {BULKY}")) for _ in range(2)]
    begun = time.monotonic()
    questions = [bench.ask("tokens=40") for _ in range(8)]

    async def one(question: Question) -> None:
        whole_stream(await (await bench.stream(question)).rest(), question.prompt)

    try:
        async with asyncio.timeout(SOON_S):
            await together(one(question) for question in questions)
    except TimeoutError:
        raise Broken(f"8 streams beside {len(stuck)} unread ones took over {SOON_S:g} s") from None
    took = milliseconds(time.monotonic() - begun)
    return f"8 streams were whole after {took}, beside 2 whose clients read nothing"


async def _slow_reader(bench: Bench) -> str:
    question = bench.ask(f"tokens=60 {BULKY}")
    stream = await _begun_unread(bench, question)
    await bench.until_seen(
        question,
        lambda found: any(seen.entry.outcome == "completed" for seen in found),
        otherwise="the engine was to finish",
    )
    whole_stream(await stream.rest(), question.prompt)
    return f"{stream.size_bytes / 1e6:.1f} MB, read after the engine had made all, were whole"


CHECKS: tuple[Check, ...] = (
    Check(
        name="streaming/whole",
        meaning="a stream brings every token in order, its finish_reason, and one [DONE]",
        look=_whole,
    ),
    Check(
        name="streaming/completions",
        meaning="a stream of /v1/completions is whole, too",
        look=_completions,
    ),
    Check(
        name="streaming/head",
        meaning="a stream is text/event-stream, not compressed unasked, of no stated length",
        look=_head,
    ),
    Check(
        name="streaming/first-token",
        meaning="the first token arrives while the engine has not made the second",
        look=_first_token,
    ),
    Check(
        name="streaming/every-token",
        meaning="nothing is held back: of an engine that falls silent, every token arrives",
        look=_every_token,
    ),
    Check(
        name="streaming/many-at-once",
        meaning=f"{MANY} streams at once are whole, and nobody gets another's tokens",
        look=_many,
        deadline_s=30.0,
    ),
    Check(
        name="streaming/choices",
        meaning="two choices of one request (n=2) both arrive whole",
        look=_choices,
    ),
    Check(
        name="streaming/large",
        meaning="a stream of megabytes is whole",
        look=_large,
        deadline_s=30.0,
    ),
    Check(
        name="streaming/foreign-text",
        meaning="text beyond ASCII reaches the engine and comes back unharmed",
        look=_foreign_text,
    ),
    Check(
        name="streaming/connection-kept",
        meaning="after a stream the connection takes the next request",
        look=_connection_kept,
    ),
    Check(
        name="streaming/held-back",
        meaning="a client that does not read holds the engine back, not the gateway's memory",
        look=_held_back,
        deadline_s=30.0,
    ),
    Check(
        name="streaming/others-flow",
        meaning="clients that do not read slow nobody else",
        look=_others_flow,
        deadline_s=30.0,
    ),
    Check(
        name="streaming/slow-reader",
        meaning="a client that reads late gets everything",
        look=_slow_reader,
        deadline_s=30.0,
    ),
)
