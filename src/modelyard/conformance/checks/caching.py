"""Answers that are kept are the right ones, for who may have them, and whole (G15 to G18)."""

from typing import Any

from modelyard.conformance.answers import Answer, Stream, checked, whole_stream
from modelyard.conformance.bench import Bench, Question, together
from modelyard.conformance.check import Broken, Check, Inapplicable, Look, expect
from modelyard.conformance.target import Need

_TRIES = 5
"""A cache may take a moment to keep an answer."""
_NO_STORE = {"Cache-Control": "no-store"}


def _ask(bench: Bench, script: str = "tokens=4", **fields: Any) -> Question:
    """A deterministic request to the model with a cache."""
    return bench.ask(script, model=bench.target.cached_model, temperature=0, **fields)


async def _count(bench: Bench, question: Question) -> int:
    return len(await bench.seen(question))


def _right(answer: Answer, question: Question) -> Answer:
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return answer


async def _until_kept(bench: Bench, question: Question) -> tuple[Answer, Answer]:
    """The answer of an engine, and an equal request's that asked none; raises Broken."""
    first = _right(await bench.whole(question), question)
    for _ in range(_TRIES):
        before = await _count(bench, question)
        again = _right(await bench.whole(question), question)
        if await _count(bench, question) == before:
            return first, again
    count = await _count(bench, question)
    raise Broken(f"an answer from the cache was expected, {count} equal requests reached engines")


async def _hit(bench: Bench) -> str:
    question = _ask(bench, "tokens=4")
    first, again = await _until_kept(bench, question)
    for name, of in (("text and all else", "choices"), ("usage", "usage")):
        was, came = getattr(first.read(), of), getattr(again.read(), of)
        expect(was == came, f"the same {name} was expected: {was}, came: {came}")
    asked = await _count(bench, question)
    same = "byte for byte the same" if first.body == again.body else "the same choices and usage"
    return f"an equal request got {same}, engines were asked {asked} time(s)"


async def _streamed_hit(bench: Bench) -> str:
    question = _ask(bench, "tokens=6", stream_options={"include_usage": True})
    first = await _whole_stream(bench, question)
    for _ in range(_TRIES):
        before = await _count(bench, question)
        again = await _whole_stream(bench, question)
        if await _count(bench, question) == before:
            break
    else:
        raise Inapplicable("streams are not answered from this cache")
    expect(
        (first.finish, first.usages) == (again.finish, again.usages),
        f"finish_reason and usage were expected as {first.finish} {first.usages}, "
        f"came: {again.finish} {again.usages}",
    )
    return f"a stream from the cache is whole: {again.summary}, usage as the engine told it"


async def _other_form(bench: Bench) -> str:
    question = _ask(bench, "tokens=6")
    first, _ = await _until_kept(bench, question)
    stream = await _whole_stream(bench, question)
    expect(
        stream.finish == {0: first.read().choices[0].finish_reason},
        f"the finish_reason of the kept answer was expected: {stream.summary}",
    )
    expect(not stream.usages, "the stream told usage that nobody asked for")
    whole = _right(await bench.whole(question), question)
    return f"asked as a stream, a kept answer is a whole stream, then again {whole.status}"


async def _whole_stream(bench: Bench, question: Question) -> Stream:
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)
    return stream


async def _tenants(bench: Bench) -> str:
    question = _ask(bench)
    await _until_kept(bench, question)
    before = await _count(bench, question)
    _right(await bench.whole(question, key=bench.target.other_tenant_key), question)
    count = await _count(bench, question) - before
    expect(count == 1, "another tenant's equal request was answered without asking an engine")
    return "another tenant's equal request was asked of an engine"


async def _tenants_at_once(bench: Bench) -> str:
    question = _ask(bench, "tokens=4 first_token_s=0.5")
    keys = (bench.target.key, bench.target.other_tenant_key) * 3
    answers = await together(bench.whole(question, key=key) for key in keys)
    for answer in answers:
        _right(answer, question)
    count = await _count(bench, question)
    expect(count >= 2, "two tenants' equal requests at once were one at the engines")
    return f"6 equal requests of two tenants at once were {count} at the engines"


async def _fields(bench: Bench) -> str:
    question = _ask(bench)
    await _until_kept(bench, question)
    for fields in _OTHER_FIELDS:
        before = await _count(bench, question)
        answer = await bench.whole(question.but(**fields))
        if 400 <= answer.status < 500:
            continue  # a gateway may refuse what it does not know
        expect(answer.status == 200, f"with {fields}: 200 was expected, came: {answer.brief}")
        count = await _count(bench, question) - before
        expect(count >= 1, f"with {fields} it got the answer to the request without")
    return f"{len(_OTHER_FIELDS)} requests with another field each were asked of engines"


_OTHER_FIELDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.5, "seed": 1},
    {"seed": 1},
    {"seed": 2},
    {"max_tokens": 2},
    {"max_tokens": 3},
    {"n": 2},
    {"top_p": 0.5},
    {"stop": ["t3"]},
    {"logit_bias": {"17": -100}},
    {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": {"name": "look"}}]},
    {"tool_choice": "none"},
    {"logprobs": True},
    {"x_conformance": 1},
    {"x_conformance": 2},
)


async def _messages(bench: Bench) -> str:
    question = _ask(bench)
    await _until_kept(bench, question)
    asked = question.fields["messages"]
    others: dict[str, list[dict[str, Any]]] = {
        "a system message": [{"role": "system", "content": "Be brief."}, *asked],
        "an earlier turn": [{"role": "assistant", "content": "Hello."}, *asked],
        "another name": [{**asked[0], "name": "bob"}],
        "another role": [{**asked[0], "role": "developer"}],
        "a space more": [{**asked[0], "content": question.prompt + " "}],
        "another case": [{**asked[0], "content": question.prompt + " A"}],
        "the same in another case": [{**asked[0], "content": question.prompt + " a"}],
    }
    for what, messages in others.items():
        before = await _count(bench, question)
        answer = await bench.whole(question.but(messages=messages))
        if 400 <= answer.status < 500:
            continue
        count = await _count(bench, question) - before
        expect(count >= 1, f"with {what} it got the answer to another conversation")
    return f"{len(others)} conversations that differ a little were asked of engines"


async def _sampled(bench: Bench) -> str:
    question = _ask(bench).but(temperature=1)
    for turn in (1, 2, 3):
        _right(await bench.whole(question), question)
        count = await _count(bench, question)
        expect(count == turn, f"{turn} arrivals were expected of a sampled request, came: {count}")
    return "three equal requests with temperature 1 and no seed were asked of engines each"


async def _errors(bench: Bench) -> str:
    question = _ask(bench)
    for engine in bench.engines:
        await engine.fault("status=400", match=question.tag, times=1)
    answer = await bench.whole(question)
    expect(answer.status == 400, f"the engine's 400 was expected, came: {answer.brief}")
    await _clear(bench)
    _right(await bench.whole(question), question)
    return "after an error the same request was asked of an engine again, and answered"


async def _truncated(bench: Bench) -> str:
    question = _ask(bench, "tokens=20")
    for engine in bench.engines:
        await engine.fault("truncate_after=3", match=question.tag, times=1)
    stream = await (await bench.stream(question)).rest()
    expect(stream.done == 0, f"a cut stream must not look whole: {stream.summary}")
    await _clear(bench)
    whole = await _whole_stream(bench, question)
    _right(await bench.whole(question), question)
    return f"after a stream that was cut ({stream.tokens} tokens) a whole one came: {whole.summary}"


async def _left(bench: Bench) -> str:
    question = _ask(bench, "tokens=30")
    stream = await bench.stream(question)
    await stream.until_tokens(3)
    stream.leave()
    await bench.until_seen(
        question,
        lambda found: all(each.entry.outcome != "open" for each in found),
        otherwise="the engine still works for a client that left",
    )
    whole = await _whole_stream(bench, question)
    return f"what a client left was not kept: the next one got {whole.summary}"


async def _no_store(bench: Bench) -> str:
    question = _ask(bench)
    _right(await bench.whole(question, headers=_NO_STORE), question)
    _right(await bench.whole(question), question)
    count = await _count(bench, question)
    expect(count == 2, f"an answer to a request with no-store was kept: {count} of 2 arrived")
    return "an answer to a request with Cache-Control: no-store was not kept"


async def _single_flight(bench: Bench) -> str:
    question = _ask(bench, "tokens=4 first_token_s=0.5")
    answers = await together(bench.whole(question) for _ in range(10))
    for answer in answers:
        _right(answer, question)
    count = await _count(bench, question)
    expect(count == 1, f"one request at the engines was expected of 10 equal at once, came {count}")
    return "10 equal requests at once were one at the engines, and all were answered"


async def _leader_leaves(bench: Bench) -> str:
    question = _ask(bench, "tokens=4 first_token_s=0.5")
    leader = await bench.post(question)
    await bench.until_seen(question)
    followers = [await bench.post(question) for _ in range(3)]
    leader.leave()
    answers = await together(bench.answer(follower) for follower in followers)
    for answer in answers:
        _right(answer, question)
    count = await _count(bench, question)
    expect(count <= 2, f"at most one more request was expected at the engines, came {count}")
    return f"who was first left, 3 others were answered, engines were asked {count} time(s)"


async def _failed_flight(bench: Bench) -> str:
    question = _ask(bench, "tokens=4 first_token_s=0.3")
    for engine in bench.engines:
        await engine.fault("truncate_after=2 first_token_s=0.3", match=question.tag, times=1)
    streams = await together(bench.stream(question) for _ in range(3))
    await together(stream.rest() for stream in streams)
    for stream in streams:
        if stream.error is None and stream.cut is None and stream.status == 200:
            whole_stream(stream, question.prompt)
    broken = sum(stream.done == 0 for stream in streams)
    return f"of 3 equal streams with a failing engine {broken} broke, none looked whole and was not"


async def _age(bench: Bench) -> str:
    _, again = await _until_kept(bench, _ask(bench))
    said = again.headers.get("x-modelyard-cache")
    age = again.headers.get("age", "")
    expect(said == "hit", f"x-modelyard-cache: hit was expected, came: {said}")
    expect(age.isdigit(), f"an age in seconds was expected, came: {age or 'none'!r}")
    return f"an answer from the cache says so, and its age: {age} s"


async def _clear(bench: Bench) -> None:
    for engine in bench.engines:
        await engine.clear()


def _check(name: str, meaning: str, look: Look, *needs: Need) -> Check:
    return Check(
        name=f"caching/{name}",
        meaning=meaning,
        look=look,
        needs=("cached_model", *needs),
        models=("cached_model",),
    )


CHECKS: tuple[Check, ...] = (
    _check("hit", "an equal request is answered without asking an engine again", _hit),
    _check("streamed-hit", "a stream from the cache is whole, with its usage", _streamed_hit),
    _check(
        "other-form", "a kept answer serves whole answers and streams in their form", _other_form
    ),
    _check("tenants", "tenants share no answers", _tenants, "other_tenant_key"),
    _check("tenants-at-once", "tenants share no flight", _tenants_at_once, "other_tenant_key"),
    _check("fields", "a field that can change the answer is never passed over", _fields),
    _check("messages", "conversations that differ a little share no answer", _messages),
    _check("sampled", "what is sampled is not kept", _sampled),
    _check("errors", "errors are not kept", _errors),
    _check("truncated", "answers that were cut are not kept", _truncated),
    _check("left", "answers whose client left are not kept as whole", _left),
    _check("no-store", "Cache-Control: no-store is honoured", _no_store),
    _check("single-flight", "equal requests at once are one at the engines", _single_flight),
    _check("leader-leaves", "when the first leaves, the others are answered", _leader_leaves),
    _check("failed-flight", "an error is not shared as an answer", _failed_flight),
    _check("age", "an answer from the cache says so, with its age", _age, "headers"),
)
