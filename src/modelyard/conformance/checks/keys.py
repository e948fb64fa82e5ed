"""Keys open what they may open, nothing else does, and they go no further than the gateway (S8)."""

import base64

from modelyard.conformance.answers import checked
from modelyard.conformance.bench import CHAT, Bench
from modelyard.conformance.check import Check, Look, expect
from modelyard.conformance.passing import arrivals
from modelyard.conformance.refusals import expect_refusal, expect_unasked, told
from modelyard.conformance.target import Need


def _key(bench: Bench) -> str:
    return bench.target.key or ""


async def _missing(bench: Bench) -> str:
    for stream in (False, True):
        body = bench.ask("tokens=1").but(stream=stream).body
        expect_refusal(await told(bench, body, headers={}), {401}, "a request without a key")
    await expect_unasked(bench, "a request without a key")
    return "401 without a key, streamed or not, no engine was asked"


async def _wrong(bench: Bench) -> str:
    key = _key(bench)
    cases = {
        "a key that nobody has": "sk-wrong",
        "an empty key": "",
        "a key cut by one character": key[:-1],
        "a key with a character more": key + "0",
        "a key in another case": key.swapcase(),
        "a key and another one": f"{key}, sk-wrong",
        "a long key": "sk-" + "0" * 5000,
        "a key that is no ASCII": "sk-\xff",
    }
    for what, wrong in cases.items():
        answer = await told(
            bench, bench.ask("tokens=1").body, headers={"Authorization": f"Bearer {wrong}"}
        )
        expect_refusal(answer, {401}, what)
        shown = answer.body.decode("utf-8", "replace") + str(answer.headers)
        for secret in (key, wrong):
            expect(len(secret) < 12 or secret not in shown, f"{what}: the answer shows the key")
    await expect_unasked(bench, "wrong keys")
    return f"{len(cases)} wrong keys got 401, none was shown again, no engine was asked"


async def _scheme(bench: Bench) -> str:
    key = _key(bench)
    pair = base64.b64encode(f"user:{key}".encode()).decode()
    for value in (f"Basic {pair}", f"Basic {key}", f"Digest {key}", f"Bearer{key}"):
        answer = await told(bench, bench.ask("tokens=1").body, headers={"Authorization": value})
        expect_refusal(answer, {401}, f"Authorization: {value.partition(' ')[0][:6]} …")
    await expect_unasked(bench, "other schemes")
    return "four values of Authorization that are no bearer's got 401, no engine was asked"


async def _spelling(bench: Bench) -> str:
    for name, scheme in (("authorization", "Bearer"), ("AUTHORIZATION", "bearer")):
        question = bench.ask("tokens=1")
        answer = await told(bench, question.body, headers={name: f"{scheme} {_key(bench)}"})
        expect(answer.status == 200, f"{name}: {scheme}: 200 was expected, came: {answer.brief}")
        checked(answer.text(), question.prompt)
    return "header and scheme are read in any case"


async def _in_query(bench: Bench) -> str:
    key = _key(bench)
    for name in ("api_key", "key", "api-key", "access_token", "token"):
        answer = await told(
            bench, bench.ask("tokens=1").body, path=f"{CHAT}?{name}={key}", headers={}
        )
        expect_refusal(answer, {401}, f"a key in the query as {name}")
    await expect_unasked(bench, "a key in the query")
    return "a key in the query, which is logged on every way, got 401"


async def _forbidden_model(bench: Bench) -> str:
    model = bench.target.forbidden_model
    for stream in (False, True):
        question = bench.ask("tokens=1", model=model).but(stream=stream)
        answer = await told(bench, question.body)
        expect_refusal(answer, {403, 404}, "a model that the key may not ask")
    await expect_unasked(bench, "a model that the key may not ask")
    return f"{answer.status} for a model that the key may not ask, no engine was asked"


async def _duplicate_model(bench: Bench) -> str:
    """Who checks the first of two `model` fields and asks by the second lets everybody in."""
    forbidden = bench.target.forbidden_model or ""
    allowed = bench.target.model
    seen = []
    for first, second in ((allowed, forbidden), (forbidden, allowed)):
        question = bench.ask("tokens=1", model=second)
        body = b'{"model":"%b",' % first.encode() + question.body[1:]
        answer = await told(bench, body)
        if answer.status == 200:
            arrived = {each.engine for each in await bench.until_seen(question)}
            expect(
                arrived <= {"A", "B"} and answer.read().model != forbidden,
                f"with two models named the forbidden one answered: {answer.brief}",
            )
        else:
            expect_refusal(answer, {400, 403, 404, 422}, "two models named")
        seen.append(str(answer.status))
    return f"of two models named, the forbidden one never answered: {', '.join(seen)}"


async def _not_relayed(bench: Bench) -> str:
    key = _key(bench)
    question = bench.ask("tokens=1")
    await bench.good(question)
    await (await bench.stream(question)).rest()
    found = await arrivals(bench, question)
    for arrival in found:
        for name, value in arrival.headers:
            expect(key not in value, f"the client's key was passed on to the engine in {name}")
        expect(key not in arrival.body, "the client's key was passed on to the engine in the body")
    return f"{len(found)} requests arrived at engines without the client's key"


def _check(name: str, meaning: str, look: Look, *needs: Need) -> Check:
    return Check(name=f"keys/{name}", meaning=meaning, look=look, needs=("key", *needs))


CHECKS: tuple[Check, ...] = (
    _check("missing", "a request without a key gets 401, and no engine is asked", _missing),
    _check("wrong", "a wrong key gets 401, is not shown again, and no engine is asked", _wrong),
    _check("scheme", "a scheme other than Bearer gets 401", _scheme),
    _check("spelling", "header and scheme are read in any case (RFC 9110)", _spelling),
    _check("in-query", "a key in the query is none", _in_query),
    _check(
        "forbidden-model",
        "a model that the key may not ask gets 403, and no engine is asked",
        _forbidden_model,
        "forbidden_model",
    ),
    _check(
        "duplicate-model",
        "two `model` fields never open a model that the key may not ask",
        _duplicate_model,
        "forbidden_model",
    ),
    _check("not-relayed", "a client's key goes no further than the gateway", _not_relayed),
)
