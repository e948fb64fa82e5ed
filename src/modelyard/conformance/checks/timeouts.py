"""Silence ends: before the first token, in mid-stream, and after all in all too long (G6)."""

import time

from modelyard.conformance.answers import broken_stream, checked, whole_stream
from modelyard.conformance.bench import Bench, Question
from modelyard.conformance.check import Check, Inapplicable, expect
from modelyard.conformance.client import Cut
from modelyard.engines.fake_server.answers import check_answer

EARLY = 0.9
"""Share of a timeout before which nothing may end: clocks are coarse."""
SLACK_S = 1.5
RELEASE_S = 2.0
LONGEST_S = 10.0
"""A timeout beyond this is not waited for where it must not strike."""


def _model(bench: Bench) -> str:
    """The model that the timeouts were given for."""
    return bench.target.single_model or bench.target.model


def _limit(value: float | None) -> float:
    if value is None:
        raise Inapplicable("the timeout was not given")
    return value


def _attempts(bench: Bench) -> int:
    """How many engines may be asked in turn."""
    return 1 if bench.target.single_model else 2


async def _first_token(bench: Bench) -> str:
    limit_s = _limit(bench.target.first_token_s)
    question = bench.ask("hang", model=_model(bench))
    begun = time.monotonic()
    try:
        stream = await (await bench.stream(question)).rest()
        seen = broken_stream(stream)
    except Cut as cut:
        seen = str(cut)
    took_s = time.monotonic() - begun
    _expect_time(took_s, limit_s, _attempts(bench))
    await _expect_released(bench, question)
    return f"{seen} after {took_s:.2f} s of {limit_s:g} s, the engine was let go"


def _expect_time(took_s: float, limit_s: float, attempts: int = 1) -> None:
    """Raise Broken unless a timeout struck when it should."""
    expect(took_s >= EARLY * limit_s, f"it ended after {took_s:.2f} s, before {limit_s:g} s")
    latest = attempts * limit_s + SLACK_S
    expect(took_s <= latest, f"it ended after {took_s:.2f} s only, {limit_s:g} s was the timeout")


async def _expect_released(bench: Bench, question: Question) -> None:
    """Raise Broken unless no engine works on it any more."""
    await bench.until_seen(
        question,
        lambda found: all(seen.entry.outcome != "open" for seen in found),
        within_s=RELEASE_S,
        otherwise="the engine was to be let go",
    )


async def _gap(bench: Bench) -> str:
    limit_s = _limit(bench.target.gap_s)
    question = bench.ask("tokens=40 stall_after=5", model=_model(bench))
    stream = await (await bench.stream(question)).until_tokens(5)
    begun = time.monotonic()
    await stream.rest()
    took_s = time.monotonic() - begun
    seen = broken_stream(stream)
    _expect_time(took_s, limit_s)
    found = check_answer(stream.text(), prompt=question.prompt)
    expect(found.tokens == 5 and not found.errors, f"5 tokens were made, came: {stream.summary}")
    await _expect_released(bench, question)
    return f"{seen} after {took_s:.2f} s of silence ({limit_s:g} s), the engine was let go"


async def _total(bench: Bench) -> str:
    limit_s = _limit(bench.target.total_s)
    question = bench.ask("hang", model=_model(bench))
    begun = time.monotonic()
    answer = await bench.whole(question)
    took_s = time.monotonic() - begun
    expect(answer.status >= 500, f"a 5xx was expected, came: {answer.brief}")
    answer.error()
    _expect_time(took_s, limit_s)
    await _expect_released(bench, question)
    return f"{answer.status} after {took_s:.2f} s of {limit_s:g} s, the engine was let go"


async def _total_of_stream(bench: Bench) -> str:
    limit_s = _limit(bench.target.total_s)
    question = bench.ask("tokens=10000000", model=_model(bench))
    begun = time.monotonic()
    stream = await (await bench.stream(question)).rest()
    took_s = time.monotonic() - begun
    seen = broken_stream(stream)
    _expect_time(took_s, limit_s)
    await _expect_released(bench, question)
    return f"{seen} after {took_s:.2f} s of {limit_s:g} s and {stream.tokens} tokens"


async def _patience(bench: Bench) -> str:
    limit_s = _short(bench.target.first_token_s)
    total_s = bench.target.total_s
    wait_s = limit_s / 2
    if total_s is not None and wait_s > total_s / 2:
        raise Inapplicable("the total timeout is shorter")
    question = bench.ask(f"tokens=10 first_token_s={wait_s:g}", model=_model(bench))
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)
    count = len(await bench.seen(question))
    expect(count == 1, f"one engine was to be asked once, {count} requests came")
    return f"a first token after {wait_s:g} s of {limit_s:g} s: the stream was whole"


def _short(value: float | None) -> float:
    limit_s = _limit(value)
    if limit_s > LONGEST_S:
        raise Inapplicable(f"a timeout of {limit_s:g} s is not waited for")
    return limit_s


async def _steady(bench: Bench) -> str:
    gap_s = _short(bench.target.gap_s)
    total_s = bench.target.total_s
    if total_s is not None and total_s < 2 * gap_s:
        raise Inapplicable("the total timeout is shorter than two gaps")
    model = _model(bench)
    begun = time.monotonic()
    probe = bench.ask("tokens=20", model=model)
    whole_stream(await (await bench.stream(probe)).rest(), probe.prompt)
    token_s = (time.monotonic() - begun) / 20
    question = bench.ask(f"tokens={max(1, round(1.5 * gap_s / token_s))}", model=model)
    begun = time.monotonic()
    stream = await (await bench.stream(question)).rest()
    took_s = time.monotonic() - begun
    whole_stream(stream, question.prompt)
    return f"a stream of {took_s:.1f} s with no silence in it was whole, the gap is {gap_s:g} s"


async def _whole_answer_waits(bench: Bench) -> str:
    limit_s = _short(bench.target.first_token_s)
    total_s = _limit(bench.target.total_s)
    wait_s = 1.5 * limit_s
    if wait_s > total_s / 1.5:
        raise Inapplicable("the total timeout is not much longer than the first token's")
    question = bench.ask(f"tokens=5 first_token_s={wait_s:g}", model=_model(bench))
    answer = await bench.whole(question)
    expect(answer.status == 200, f"200 was expected after {wait_s:g} s, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return f"a whole answer after {wait_s:g} s came, though a stream's first token has {limit_s:g}"


CHECKS: tuple[Check, ...] = (
    Check(
        name="timeouts/first-token",
        meaning="a stream that does not begin ends with an error, and the engine is let go",
        look=_first_token,
        needs=("first_token_s",),
        models=("single_model",),
        waits_for="first_token_s",
    ),
    Check(
        name="timeouts/gap",
        meaning="a stream that falls silent ends visibly broken, and the engine is let go",
        look=_gap,
        needs=("gap_s",),
        models=("single_model",),
        waits_for="gap_s",
    ),
    Check(
        name="timeouts/total",
        meaning="an answer that never comes is a 5xx, and the engine is let go",
        look=_total,
        needs=("total_s",),
        models=("single_model",),
        waits_for="total_s",
    ),
    Check(
        name="timeouts/total-of-stream",
        meaning="a stream that never ends is ended, and does not look whole",
        look=_total_of_stream,
        needs=("total_s",),
        models=("single_model",),
        waits_for="total_s",
    ),
    Check(
        name="timeouts/slow-first-token",
        meaning="a first token within its time is waited for, and no other engine is asked",
        look=_patience,
        needs=("first_token_s",),
        models=("single_model",),
        waits_for="first_token_s",
    ),
    Check(
        name="timeouts/steady",
        meaning="a stream longer than the allowed silence is not cut while tokens come",
        look=_steady,
        needs=("gap_s",),
        models=("single_model",),
        waits_for="gap_s",
    ),
    Check(
        name="timeouts/whole-answer",
        meaning="an answer that is not streamed has the whole time, not a first token's",
        look=_whole_answer_waits,
        needs=("first_token_s", "total_s"),
        models=("single_model",),
        waits_for="total_s",
    ),
)
