"""What an answer says of itself is what the engine said: tokens, ends, choices, names (G10)."""

from modelyard.conformance.answers import Stream, Usage, checked, whole_stream
from modelyard.conformance.bench import COMPLETIONS, Bench, Question
from modelyard.conformance.check import Check, Look, expect
from modelyard.conformance.target import Need
from modelyard.engines.fake_server.answers import check_answer

_WITH_USAGE = {"include_usage": True}


def _expected(question: Question, tokens: int) -> Usage:
    """What the engine counts: a token for every four bytes of the prompt, rounded up."""
    return Usage((len(question.prompt.encode()) + 3) // 4, tokens)


async def _whole(bench: Bench) -> str:
    for path in ("/v1/chat/completions", COMPLETIONS):
        question = bench.ask("tokens=7", path=path, text="ä" * 9)
        usage = (await bench.good(question)).read().usage
        expected = _expected(question, 7)
        expect(usage == expected, f"{path}: {expected} was expected, came: {usage}")
    return f"chat and completions told what the engine counted: {usage}"


async def _not_asked(bench: Bench) -> str:
    for options in (None, {"include_usage": False}):
        question = bench.ask("tokens=5", stream_options=options)
        question = question.but(stream_options=options)
        stream = await (await bench.stream(question)).rest()
        whole_stream(stream, question.prompt)
        expect(not stream.usages, f"no usage was asked for, came: {stream.usages}")
    return "streams that did not ask for usage were told none"


async def _asked(bench: Bench) -> str:
    for path in ("/v1/chat/completions", COMPLETIONS):
        question = bench.ask("tokens=5", path=path, stream_options=_WITH_USAGE)
        stream = await bench.stream(question)
        await stream.until(lambda stream: bool(stream.usages))
        before = stream.tokens
        expect(stream.done == 0, "usage came after [DONE]")
        await stream.rest()
        whole_stream(stream, question.prompt)
        expect(stream.tokens == before, "more text came behind the usage")
        expected = [_expected(question, 5)]
        expect(
            stream.usages == expected,
            f"{path}: {expected[0]} was expected once, came: {stream.usages}",
        )
    return f"one usage in each stream, behind all text and before [DONE]: {stream.usages[0]}"


async def _choices(bench: Bench) -> str:
    question = bench.ask("tokens=6", n=3)
    answer = await bench.whole(question)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)
    checked(answer.text(), question.prompt)
    for choice in range(3):
        streamed, told = stream.text(choice), answer.text(choice)
        expect(check_answer(told).complete, f"choice {choice} is not whole: {told[:60]!r}")
        expect(
            streamed == told, f"choice {choice} streamed is {streamed[:60]!r}, not {told[:60]!r}"
        )
        expect(stream.finish.get(choice) == "stop", f"choice {choice} has no end")
    usage = answer.read().usage
    expected = _expected(question, 18)
    expect(usage == expected, f"{expected} was expected of 3 choices, came: {usage}")
    return "3 choices came whole, each its own, streamed or not, and usage counts them all"


async def _finish_reason(bench: Bench) -> str:
    for script, most, expected in (("tokens=9", 4, "length"), ("tokens=4", 9, "stop")):
        question = bench.ask(script, max_tokens=most)
        whole = (await bench.good(question)).read().choices[0].finish_reason
        stream = await (await bench.stream(question)).rest()
        seen = (whole, stream.finish.get(0))
        expect(
            seen == (expected, expected),
            f"finish_reason {expected} was expected, came: whole {seen[0]}, streamed {seen[1]}",
        )
        expect(stream.done == 1, f"one [DONE] was expected: {stream.summary}")
    return "finish_reason is length where max_tokens ended it, else stop, streamed or not"


async def _model_name(bench: Bench) -> str:
    names: set[str | None] = set()
    for _ in range(4):
        answer = await bench.good(bench.ask("tokens=2"))
        names.add(answer.read().model)
        stream = await (await bench.stream(bench.ask("tokens=3"))).rest()
        expect(len(stream.models) == 1, f"one model was expected in a stream: {stream.models}")
        names |= stream.models
    expect(
        len(names) == 1 and None not in names and "" not in names,
        f"one name of the model in all answers was expected, came: {names}",
    )
    return f"every answer and every event names the same model: {next(iter(names))}"


async def _request_id(bench: Bench) -> str:
    ids: list[str] = []
    for script in ("tokens=1", "tokens=1", "status=400"):
        question = bench.ask(script)
        answer = await bench.whole(question, headers={"x-request-id": "mine"})
        shown = answer.headers.get("x-request-id", "")
        expect(bool(shown), f"x-request-id was expected, came: {sorted(answer.headers)}")
        arrived = [each.entry.id for each in await bench.seen(question)]
        expect(
            arrived == [shown],
            f"the engine should know the request as {shown}, it knows {arrived}",
        )
        ids.append(shown)
    question = bench.ask("tokens=1")
    stream: Stream = await bench.stream(question)
    ids.append(stream.headers.get("x-request-id", ""))
    expect(len(set(ids)) == 4 and "" not in ids, f"four ids were expected, came: {ids}")
    return "each answer has an id of its own, and the engine knows it"


async def _own_headers(bench: Bench) -> str:
    """Modelyard's: what made the answer."""
    answer = await bench.good(bench.ask("tokens=1"))
    wanted = ("x-modelyard-model", "x-modelyard-digest", "x-modelyard-attempts")
    missing = [name for name in wanted if not answer.headers.get(name)]
    expect(not missing, f"{', '.join(missing)} was expected, came: {sorted(answer.headers)}")
    expect(
        answer.headers["x-modelyard-model"] == bench.target.model
        and answer.headers["x-modelyard-attempts"] == "1",
        f"the model and one attempt were expected, came: {answer.headers}",
    )
    return "an answer says which model and weights made it, in how many attempts"


def _check(name: str, meaning: str, look: Look, *needs: Need) -> Check:
    return Check(name=f"usage/{name}", meaning=meaning, look=look, needs=needs)


CHECKS: tuple[Check, ...] = (
    _check("whole", "a whole answer tells what the engine counted", _whole),
    _check("not-asked", "a stream tells no usage that nobody asked for", _not_asked),
    _check("asked", "a stream that asks for usage is told once, before [DONE]", _asked),
    _check("choices", "all choices come whole, and usage counts them", _choices),
    _check("finish-reason", "finish_reason is what the engine said", _finish_reason),
    _check("model-name", "all answers name the model alike", _model_name),
    _check("request-id", "each answer has an id that the engine knows", _request_id, "headers"),
    _check("own-headers", "an answer says what made it", _own_headers, "headers"),
)
