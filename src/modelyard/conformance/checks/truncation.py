"""An answer that an engine broke off never looks complete (G4)."""

import time

from modelyard.conformance.answers import Stream, broken_stream, whole_stream
from modelyard.conformance.bench import CHAT, COMPLETIONS, Bench, Question, together
from modelyard.conformance.check import Check, expect
from modelyard.conformance.client import Cut
from modelyard.conformance.following import milliseconds
from modelyard.engines.fake_server.answers import check_answer

MADE = 5
"""Tokens that the engine sends before it breaks off."""
_CUT = f"tokens=40 truncate_after={MADE}"


async def _cut_stream(bench: Bench) -> str:
    return await _cut(bench, bench.ask(_CUT))


async def _cut_completions(bench: Bench) -> str:
    return await _cut(bench, bench.ask(_CUT, path=COMPLETIONS))


async def _cut_with_usage(bench: Bench) -> str:
    return await _cut(bench, bench.ask(_CUT, stream_options={"include_usage": True}))


async def _cut(bench: Bench, question: Question) -> str:
    stream = await (await bench.stream(question)).rest()
    seen = broken_stream(stream)
    found = check_answer(stream.text(), prompt=question.prompt)
    expect(not found.errors, f"what came before the cut is wrong: {found.errors[:1]}")
    expect(found.tokens <= MADE, f"{MADE} tokens were made, {found.tokens} came")
    return f"{seen} after {found.tokens} of 40 tokens, no [DONE], no finish_reason"


async def _without_end(bench: Bench) -> str:
    question = bench.ask("tokens=8 truncate_after=8")
    stream = await (await bench.stream(question)).rest()
    return f"{broken_stream(stream)} after all {stream.tokens} tokens, for no end had come"


async def _cut_at_once(bench: Bench) -> str:
    stream = await _streamed(bench, bench.ask("tokens=40 truncate_after=0"))
    if isinstance(stream, str):
        return stream
    return f"{broken_stream(stream)}, no [DONE]"


async def _streamed(bench: Bench, question: Question) -> Stream | str:
    """The stream to its end, or in words that there was none."""
    try:
        return await (await bench.stream(question)).rest()
    except Cut as cut:
        return f"no answer began: {cut}"


async def _cut_answer(bench: Bench) -> str:
    return await _no_answer(bench, _CUT, CHAT)


async def _cut_answer_completions(bench: Bench) -> str:
    return await _no_answer(bench, _CUT, COMPLETIONS)


async def _garbage_page(bench: Bench) -> str:
    return await _no_answer(bench, "garbage=html", CHAT)


async def _garbage_chunk(bench: Bench) -> str:
    return await _no_answer(bench, "garbage=chunk", CHAT)


async def _no_answer(bench: Bench, script: str, path: str) -> str:
    """Expect an error in OpenAI's form where an engine's answer is not whole, or is none."""
    begun = time.monotonic()
    answer = await bench.whole(bench.ask(script, path=path))
    took = milliseconds(time.monotonic() - begun)
    expect(answer.status >= 500, f"a 5xx was expected, came: {answer.brief}")
    return f"{answer.status} {answer.error().type} after {took}"


async def _garbage_page_stream(bench: Bench) -> str:
    return await _no_stream(bench, "garbage=html")


async def _garbage_chunk_stream(bench: Bench) -> str:
    return await _no_stream(bench, "garbage=chunk")


async def _no_stream(bench: Bench, script: str) -> str:
    stream = await _streamed(bench, bench.ask(script))
    if isinstance(stream, str):
        return stream
    if stream.status == 200:
        expect(stream.is_stream, f"200 with no stream in it: {stream.summary}")
    return broken_stream(stream)


async def _error_is_openais(bench: Bench) -> str:
    stream = await (await bench.stream(bench.ask(_CUT))).rest()
    broken_stream(stream)
    expect(
        stream.error is not None,
        f"an event with an error in OpenAI's form was expected: {stream.summary}",
    )
    return f"the last event says: {str(stream.error)[:100]!r}"


async def _beside_whole(bench: Bench) -> str:
    async def broken() -> None:
        broken_stream(await (await bench.stream(bench.ask(_CUT))).rest())

    async def whole() -> None:
        question = bench.ask("tokens=40")
        whole_stream(await (await bench.stream(question)).rest(), question.prompt)

    # Few enough of them that no engine is taken out for it.
    await together([broken(), broken(), broken(), *(whole() for _ in range(12))])
    return "12 streams beside 3 that were cut were whole, the 3 were not taken for it"


async def _connection_after_error(bench: Bench) -> str:
    connection = await bench.connect()
    await bench.post(bench.ask("garbage=html"), on=connection)
    first = await bench.answer(connection)
    expect(first.status >= 500, f"a 5xx was expected, came: {first.brief}")
    if first.headers.get("connection", "").lower() == "close":
        return f"{first.status}, and it closes the connection as it says"
    question = bench.ask("tokens=5")
    await bench.post(question, on=connection)
    second = await bench.answer(connection)
    expect(second.status == 200, f"200 was expected after it, came: {second.brief}")
    return f"{first.status}, then 200 on the same connection"


CHECKS: tuple[Check, ...] = (
    Check(
        name="truncation/stream",
        meaning="a stream that the engine cuts has no [DONE] and no finish_reason",
        look=_cut_stream,
    ),
    Check(
        name="truncation/stream-completions",
        meaning="neither has one of /v1/completions",
        look=_cut_completions,
    ),
    Check(
        name="truncation/stream-with-usage",
        meaning="neither has one whose client asked for usage",
        look=_cut_with_usage,
    ),
    Check(
        name="truncation/without-end",
        meaning="a stream whose engine sent all tokens and no end does not look whole",
        look=_without_end,
    ),
    Check(
        name="truncation/error-event",
        meaning="the client of a cut stream is told so in an event of OpenAI's error form",
        look=_error_is_openais,
    ),
    Check(
        name="truncation/before-first-token",
        meaning="a stream that is cut before its first token does not look whole and empty",
        look=_cut_at_once,
    ),
    Check(
        name="truncation/answer",
        meaning="an answer short of its content-length is a 5xx, never a 200 with half of it",
        look=_cut_answer,
    ),
    Check(
        name="truncation/answer-completions",
        meaning="so is one of /v1/completions",
        look=_cut_answer_completions,
    ),
    Check(
        name="truncation/page-as-answer",
        meaning="a page of HTML with status 200 is no answer: a 5xx",
        look=_garbage_page,
    ),
    Check(
        name="truncation/page-as-stream",
        meaning="a page of HTML with status 200 is no stream either",
        look=_garbage_page_stream,
    ),
    Check(
        name="truncation/bad-chunk",
        meaning="an answer in broken chunked coding is a 5xx",
        look=_garbage_chunk,
    ),
    Check(
        name="truncation/bad-chunk-stream",
        meaning="a stream in broken chunked coding does not look whole",
        look=_garbage_chunk_stream,
    ),
    Check(
        name="truncation/beside-whole",
        meaning="streams beside those that are cut are whole",
        look=_beside_whole,
    ),
    Check(
        name="truncation/connection-after",
        meaning="after an engine's garbage the client's connection takes the next request",
        look=_connection_after_error,
    ),
)
