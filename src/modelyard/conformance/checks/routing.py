"""Requests go where they belong, to who has room, and answers to who asked (G11)."""

from typing import Any

import msgspec

from modelyard.conformance.answers import Answer, whole_stream
from modelyard.conformance.bench import COMPLETIONS, Bench, Question, together, until
from modelyard.conformance.check import Broken, Check, Inapplicable, Look, Retrying, expect
from modelyard.conformance.refusals import expect_refusal, told
from modelyard.conformance.target import Need
from modelyard.engines.fake_server.replies import embedding

_EMBEDDINGS = "/v1/embeddings"
_PROBES = 12


class _Card(msgspec.Struct, frozen=True):
    """One model, as OpenAI's list has it."""

    id: str
    object: str


class _Cards(msgspec.Struct, frozen=True):
    object: str
    data: list[_Card]


class _Vector(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Used(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]
    usage: _Used


def _read(answer: Answer, form: type[Any], what: str) -> Any:
    expect(answer.status == 200, f"{what}: 200 was expected, came: {answer.brief}")
    try:
        return msgspec.json.decode(answer.body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Broken(
            f"{what} in OpenAI's form was expected ({error}), came: {answer.brief}"
        ) from None


async def _spread(bench: Bench) -> str:
    return await bench.expect_both_asked()


async def _least_busy(bench: Bench) -> str:
    """Requests that never end are given to A alone; who counts them asks B from then on."""
    await bench.a.fault("stall_after=1")
    held = await together(bench.stream(bench.ask("tokens=2")) for _ in range(8))
    await together(stream.until_tokens(1) for stream in held)
    await until(
        bench.b.state,
        lambda state: state.busy == 0,
        within_s=5.0,
        otherwise=lambda state: f"engine B should be at rest, it has {state.busy} requests",
    )
    busy = (await bench.a.state()).busy
    if busy < 2:
        raise Inapplicable(f"engine A got {busy} of 8 requests at once, too few to be busy")
    await bench.a.clear()
    asked = {"A": 0, "B": 0}
    for _ in range(_PROBES):
        question = bench.ask("tokens=1")
        await bench.good(question)
        for each in await bench.seen(question):
            asked[each.engine] += 1
    if (await bench.a.state()).busy < busy:
        raise Inapplicable("the gateway gave up the requests that kept engine A busy")
    expect(
        asked["B"] >= _PROBES * 3 // 4,
        f"with {busy} requests in flight at A and none at B, B should get most of {_PROBES}, "
        f"came: {asked['A']} to A, {asked['B']} to B",
    )
    return f"with {busy} in flight at A, {asked['B']} of {_PROBES} requests went to B"


async def _no_mixups(bench: Bench) -> str:
    questions = [bench.ask(f"tokens={5 + at % 7}") for at in range(30)]

    async def look(at: int, question: Question) -> None:
        if at % 2:
            whole_stream(await (await bench.stream(question)).rest(), question.prompt)
        else:
            await bench.good(question)

    await together(look(at, question) for at, question in enumerate(questions))
    return f"{len(questions)} requests at once, half of them streams: each got its own answer"


async def _completions(bench: Bench) -> str:
    question = bench.ask("tokens=6", path=COMPLETIONS)
    await bench.good(question)
    stream = await (await bench.stream(question)).rest()
    whole_stream(stream, question.prompt)
    return "/v1/completions answered, whole and as a stream"


async def _embeddings(bench: Bench) -> str:
    texts = [bench.ask().tag + word for word in ("one", "two", "äöü")]
    body = msgspec.json.encode({"model": bench.target.model, "input": texts})
    vectors = _read(await told(bench, body, path=_EMBEDDINGS), _Vectors, "embeddings")
    expect(
        [vector.index for vector in vectors.data] == [0, 1, 2],
        f"three vectors in order were expected, came: {[each.index for each in vectors.data]}",
    )
    for text, vector in zip(texts, vectors.data, strict=True):
        wanted = embedding(text, len(vector.embedding), 0)
        expect(vector.embedding == wanted, f"the vector of {text!r} is another one")
    return f"{len(texts)} vectors of {len(wanted)} numbers, as the engine made them"


async def _models(bench: Bench) -> str:
    cards = _read(await bench.get("/v1/models"), _Cards, "a list of models")
    names = [card.id for card in cards.data]
    expect(
        cards.object == "list" and all(card.object == "model" for card in cards.data),
        "a list of models in OpenAI's form was expected",
    )
    expect(bench.target.model in names, f"{bench.target.model!r} was expected among {names}")
    forbidden = bench.target.forbidden_model
    hidden = forbidden is not None and forbidden not in names
    more = ", none that the key may not ask" if hidden else ""
    return f"{len(names)} models in OpenAI's form{more}"


async def _model_page(bench: Bench) -> str:
    card = _read(await bench.get(f"/v1/models/{bench.target.model}"), _Card, "a model's page")
    expect(card.id == bench.target.model, f"{bench.target.model!r} was expected, came: {card.id!r}")
    missing = await bench.get("/v1/models/no-such-model")
    expect_refusal(missing, {403, 404}, "the page of a model that does not exist")
    return f"the model's page is there, another one gets {missing.status}"


async def _own_engines(bench: Bench) -> str:
    single = bench.target.single_model
    ours = [bench.ask("tokens=2") for _ in range(6)]
    theirs = [bench.ask("tokens=2", model=single) for _ in range(6)]
    await together(bench.good(question) for question in (*ours, *theirs))
    for questions, allowed in ((ours, {"A", "B"}), (theirs, {"C"})):
        for question in questions:
            found = {each.engine for each in await bench.seen(question)}
            expect(
                found <= allowed,
                f"{question.fields['model']} is served by {allowed}, {found} got it",
            )
    return f"{bench.target.model} went to A and B, {single} to C"


async def _after_a_burst(bench: Bench) -> str:
    """What is counted on must be counted off, whatever the ends."""
    left = await together(bench.stream(bench.ask("tokens=1000")) for _ in range(8))
    await together(stream.until_tokens(1) for stream in left)
    for stream in left:
        stream.leave()
    await together(bench.whole(bench.ask("status=400")) for _ in range(8))
    for engine in bench.engines[:2]:
        await until(
            engine.state,
            lambda state: state.busy == 0,
            within_s=5.0,
            otherwise=lambda state: f"an engine still works on {state.busy} requests",
        )
    return "after leaving and errors: " + await bench.expect_both_asked()


def _check(
    name: str, meaning: str, look: Look, *needs: Need, both: bool = False, retrying: Retrying = ""
) -> Check:
    return Check(
        name=f"routing/{name}",
        meaning=meaning,
        look=look,
        needs=needs,
        models=needs,
        both=both,
        retrying=retrying,
    )


CHECKS: tuple[Check, ...] = (
    _check("spread", "both engines are asked", _spread, both=True),
    _check("least-busy", "an engine that is busy is asked less", _least_busy, both=True),
    _check("no-mixups", "everybody gets their own answer", _no_mixups),
    _check("completions", "/v1/completions is served, whole and as a stream", _completions),
    _check("embeddings", "/v1/embeddings gives the engine's vectors in order", _embeddings),
    _check("models", "/v1/models lists the model in OpenAI's form", _models),
    _check("model-page", "a model has a page, one that does not exist has none", _model_page),
    _check("own-engines", "a model is asked of its own engines only", _own_engines, "single_model"),
    _check("after-a-burst", "after leaving and errors both are asked", _after_a_burst, both=True),
)
