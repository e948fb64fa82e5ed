"""Another model answers when the one asked for can't, only then, and says so (G26)."""

import asyncio

from modelyard.conformance.answers import checked, whole_stream
from modelyard.conformance.bench import Bench, Question
from modelyard.conformance.check import Broken, Check, Inapplicable, Look, expect
from modelyard.conformance.refusals import expect_refusal, told

_PAUSE_S = 0.02
_FAILURES = ("refuse", "status=503", "status=500", "garbage=html")


def _ask(bench: Bench, script: str = "tokens=4") -> Question:
    return bench.ask(script, model=bench.target.fallback_model)


async def _served_by(bench: Bench, question: Question) -> set[str]:
    return {each.engine for each in await bench.seen(question) if each.entry.status == 200}


async def _with_engine(bench: Bench) -> None:
    if len(bench.engines) < 3:
        raise Inapplicable("there is no engine C")


async def _not_needed(bench: Bench) -> str:
    await _with_engine(bench)
    question = _ask(bench)
    answer = await bench.good(question)
    found = {each.engine for each in await bench.seen(question)}
    expect(found == {"C"}, f"engine C was expected to be asked alone, asked were {sorted(found)}")
    return f"while C answers nobody else is asked; the answer names {answer.read().model}"


async def _answers(bench: Bench) -> str:
    await _with_engine(bench)
    for script in _FAILURES:
        await bench.engines[2].fault(script)
        question = _ask(bench)
        answer = await bench.whole(question)
        expect(answer.status == 200, f"C out ({script}): 200 was expected, came: {answer.brief}")
        checked(answer.text(), question.prompt)
        await bench.engines[2].clear()
    return f"with C out in {len(_FAILURES)} ways, {bench.target.model} answered"


async def _streams(bench: Bench) -> str:
    await _with_engine(bench)
    await bench.engines[2].fault("status=503")
    question = _ask(bench, "tokens=8")
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)
    found = await _served_by(bench, question)
    expect(found <= {"A", "B"} and bool(found), f"A or B should have answered, {found} did")
    return f"with C out, {bench.target.model} streamed a whole answer"


async def _names(bench: Bench) -> str:
    await _with_engine(bench)
    usual = (await bench.good(_ask(bench))).read().model
    other = (await bench.good(bench.ask())).read().model
    if usual == other:
        raise Inapplicable(f"both models call themselves {usual}")
    await bench.engines[2].fault("status=503")
    answer = await bench.good(_ask(bench))
    stream = await (await bench.stream(_ask(bench))).rest()
    seen = {answer.read().model} | stream.models
    expect(seen == {other}, f"the answer should name who made it, {other}, it names {seen}")
    return f"an answer of the other model names it: {other}"


async def _never_in_mid_stream(bench: Bench) -> str:
    await _with_engine(bench)
    await bench.engines[2].fault("truncate_after=3")
    question = _ask(bench, "tokens=20")
    stream = await (await bench.stream(question)).rest()
    expect(stream.tokens == 3, f"3 tokens of C were expected, then an end: {stream.summary}")
    expect(stream.done == 0, f"a cut stream must not look whole: {stream.summary}")
    found = {each.engine for each in await bench.seen(question)}
    expect(found == {"C"}, f"after the first byte nobody else may be asked, {found} were")
    return f"a stream of C that broke was not gone on with by another model: {stream.summary}"


async def _callers_fault(bench: Bench) -> str:
    await _with_engine(bench)
    question = _ask(bench, "status=400")
    answer = await told(bench, question.body)
    expect_refusal(answer, {400}, "C's own 400")
    found = {each.engine for each in await bench.seen(question)}
    expect(found == {"C"}, f"a request that C calls wrong is no reason to ask others: {found}")
    return "C's 400 was told, no other model was asked"


async def _all_out(bench: Bench) -> str:
    await _with_engine(bench)
    for engine in bench.engines:
        await engine.fault("status=503")
    question = _ask(bench)
    answer = await told(bench, question.body)
    expect_refusal(answer, range(500, 600), "all engines out")
    return f"with all engines out {answer.status} came at once, in OpenAI's form"


async def _returns(bench: Bench) -> str:
    await _with_engine(bench)
    await bench.engines[2].fault("refuse", times=1)
    await bench.good(_ask(bench))
    await bench.engines[2].clear()
    for turn in range(1, 201):
        question = _ask(bench, "tokens=1")
        await bench.good(question)
        if "C" in await _served_by(bench, question):
            return f"C was asked again by the request number {turn} after its failure"
        await asyncio.sleep(_PAUSE_S)
    raise Broken("C answers again and was not asked by 200 requests")


def _check(name: str, meaning: str, look: Look) -> Check:
    return Check(
        name=f"fallbacks/{name}",
        meaning=meaning,
        look=look,
        needs=("fallback_model",),
        models=("fallback_model",),
        retrying="spends",
    )


CHECKS: tuple[Check, ...] = (
    _check("not-needed", "while the model's own engine answers, no other is asked", _not_needed),
    _check("answers", "with its engine out, the other model answers", _answers),
    _check("streams", "with its engine out, the other model streams", _streams),
    _check("names", "the answer names the model that made it", _names),
    _check(
        "never-in-mid-stream", "after the first byte no other model goes on", _never_in_mid_stream
    ),
    _check("callers-fault", "the caller's own fault is no reason to ask another", _callers_fault),
    _check("all-out", "with all engines out an error comes, and no hang", _all_out),
    _check("returns", "the model's own engine is asked again when it is back", _returns),
)
