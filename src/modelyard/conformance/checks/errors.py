"""What is wrong is refused, in OpenAI's form, and no engine is asked for it (G19)."""

from modelyard.conformance.answers import Answer
from modelyard.conformance.bench import CHAT, Bench
from modelyard.conformance.check import Check, Inapplicable, expect
from modelyard.conformance.client import Cut
from modelyard.conformance.refusals import expect_refusal, expect_unasked, told

_UNKNOWN = {400, 403, 404}
"""A gateway may hide what exists from who may not ask it."""
_SHAPE = {400, 422}
_SERVER_ERRORS = range(500, 600)


async def _malformed_json(bench: Bench) -> str:
    whole = bench.ask("tokens=1").body
    cases = {
        "a body cut in its middle": whole[: len(whole) // 2],
        "an empty body": b"",
        "text behind the object": whole + b"}",
        "no JSON at all": b"model=m&prompt=hello",
        "bytes that are no UTF-8": whole.replace(b"fake", b"\xff\xfe"),
        "NaN": whole[:-1] + b',"temperature":NaN}',
    }
    for what, body in cases.items():
        expect_refusal(await told(bench, body), {400}, what)
        await expect_unasked(bench, what)
    return f"{len(cases)} bodies that are no JSON got 400, no engine was asked"


async def _not_an_object(bench: Bench) -> str:
    cases = (b"[]", b'"hello"', b"null", b"3", b"true", b"[" + bench.ask().body + b"]")
    for body in cases:
        what = f"the body {body[:20].decode()}"
        expect_refusal(await told(bench, body), _SHAPE, what)
        await expect_unasked(bench, what)
    return f"{len(cases)} bodies that are no object were refused, no engine was asked"


async def _unknown_model(bench: Bench) -> str:
    seen = []
    for stream in (False, True):
        question = bench.ask("tokens=1", model="no-such-model").but(stream=stream)
        answer = await told(bench, question.body)
        expect_refusal(answer, _UNKNOWN, "a model that does not exist")
        await expect_unasked(bench, "a model that does not exist")
        seen.append(answer)
    said = seen[0].error().message
    expect("no-such-model" in said, f"an error that names the model was expected, came: {said!r}")
    return f"{seen[0].status}: {said[:60]!r}, no engine was asked"


async def _missing_model(bench: Bench) -> str:
    question = bench.ask("tokens=1").but(model=None)
    answer = await told(bench, question.body)
    if answer.status == 200:
        await bench.until_seen(question)
        raise Inapplicable("a request without a model is answered by a default one")
    expect_refusal(answer, _SHAPE | {404}, "a request without a model")
    await expect_unasked(bench, "a request without a model")
    return f"{answer.status}, no engine was asked"


async def _wrong_types(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    cases = {
        "messages as a string": question.but(messages="hello"),
        "no messages": question.but(messages=None),
        "a message as a string": question.but(messages=["hello"]),
        "model as a number": question.but(model=7),
        "max_tokens as words": question.but(max_tokens="many"),
        "stream as a list": question.but(stream=[]),
    }
    for what, wrong in cases.items():
        answer = await told(bench, wrong.body)
        expect_refusal(answer, _SHAPE | _UNKNOWN, what)
    return f"{len(cases)} requests with fields of a wrong type were refused as the caller's fault"


async def _unknown_path(bench: Bench) -> str:
    body = bench.ask("tokens=1").body
    for method, path, sent in (
        ("POST", "/v1/nothing", body),
        ("GET", "/v1/nothing", None),
        ("POST", CHAT + "/nothing", body),
        ("POST", "/v1/chat/../chat/nothing", body),
    ):
        what = f"{method} {path}"
        expect_refusal(await told(bench, sent, path=path, method=method), {404}, what)
    await expect_unasked(bench, "paths that are not there")
    return "404 for four paths that are not there"


async def _wrong_method(bench: Bench) -> str:
    body = bench.ask("tokens=1").body
    seen = []
    for method, sent in (("GET", None), ("PUT", body), ("DELETE", None)):
        answer = await told(bench, sent, method=method)
        expect_refusal(answer, {404, 405}, f"{method} {CHAT}")
        seen.append(answer.status)
    await expect_unasked(bench, "methods that are not allowed")
    return "GET, PUT and DELETE got " + ", ".join(map(str, seen))


async def _engines_refusal(bench: Bench) -> str:
    for status in (400, 404, 422):
        question = bench.ask(f"status={status}")
        for stream in (False, True):
            before = len(await bench.seen(question))
            answer = await told(bench, question.but(stream=stream).body)
            what = f"the engine's {status}{' to a stream' if stream else ''}"
            expect_refusal(answer, {status}, what)
            said = answer.error().message
            expect(
                f"scripted error {status}" in said,
                f"the engine's own message was expected, came: {said!r}",
            )
            count = len(await bench.seen(question)) - before
            expect(count == 1, f"{what}: one request was expected at the engines, came: {count}")
    return "400, 404 and 422 kept status and message, streamed or not, and were not retried"


async def _engines_failure(bench: Bench) -> str:
    cases = {
        "an engine's 500": "status=500",
        "a page of HTML with 200": "garbage=html",
        "a connection that is reset": "refuse",
    }
    seen = {}
    for what, script in cases.items():
        for stream in (False, True):
            answer = await told(bench, bench.ask(script).but(stream=stream).body)
            expect_refusal(answer, _SERVER_ERRORS, what)
        seen[what] = answer.status
    return ", ".join(f"{status} for {what}" for what, status in seen.items())


async def _engines_busy(bench: Bench) -> str:
    answer = await told(bench, bench.ask("status=429 retry_after_s=1").body)
    expect_refusal(answer, {429, 503}, "engines that are all busy")
    wait = answer.headers.get("retry-after", "")
    expect(wait.isdigit() and int(wait) >= 1, f"Retry-After was expected, came: {wait or 'none'!r}")
    return f"{answer.status} with Retry-After {wait} when all engines are busy"


async def _nothing_leaks(bench: Bench) -> str:
    failures = "status=500 status=400 garbage=html garbage=chunk refuse truncate_after=2"
    scripts = failures.split()
    for script in scripts:
        try:
            answer = await told(bench, bench.ask(script).body)
        except Cut:
            continue  # nothing was told at all
        if script.startswith("status="):  # what any gateway passes on as an error
            expect(answer.status >= 400, f"{script}: an error was expected, came: {answer.brief}")
        _expect_no_address(bench, answer, script)
    return f"{len(scripts)} kinds of failures, and no address of an engine in what the client saw"


def _expect_no_address(bench: Bench, answer: Answer, script: str) -> None:
    seen = " ".join([*answer.headers.values(), answer.body.decode("utf-8", "replace")])
    for engine in bench.engines:
        port = f":{engine.url.rpartition(':')[2].strip('/')}"
        expect(port not in seen, f"{script}: engine {engine.name}'s address was told: {seen[:200]}")
    for word in ("Traceback", '.py"', "site-packages"):
        expect(word not in seen, f"{script}: the insides of a program were told: {seen[:200]}")


CHECKS: tuple[Check, ...] = (
    Check(
        name="errors/malformed-json",
        meaning="a body that is not JSON gets 400, and no engine is asked",
        look=_malformed_json,
    ),
    Check(
        name="errors/not-an-object",
        meaning="a body of JSON that is no object is refused, and no engine is asked",
        look=_not_an_object,
    ),
    Check(
        name="errors/unknown-model",
        meaning="a model that does not exist gets 404 with its name, and no engine is asked",
        look=_unknown_model,
    ),
    Check(
        name="errors/missing-model",
        meaning="a request without a model is refused, where there is no default",
        look=_missing_model,
    ),
    Check(
        name="errors/wrong-types",
        meaning="fields of a wrong type are the caller's fault, never a 5xx",
        look=_wrong_types,
    ),
    Check(
        name="errors/unknown-path",
        meaning="a path that is not there gets 404 in OpenAI's form",
        look=_unknown_path,
    ),
    Check(
        name="errors/wrong-method",
        meaning="another method gets 405 or 404 in OpenAI's form",
        look=_wrong_method,
    ),
    Check(
        name="errors/engines-refusal",
        meaning="an engine's own 4xx keeps status and message and is not retried",
        look=_engines_refusal,
    ),
    Check(
        name="errors/engines-failure",
        meaning="an engine that fails is a 5xx in OpenAI's form, never a 200",
        look=_engines_failure,
        retrying="spends",
    ),
    Check(
        name="errors/engines-busy",
        meaning="when all engines are busy the client is told when to come back",
        look=_engines_busy,
        retrying="spends",
    ),
    Check(
        name="errors/nothing-leaks",
        meaning="no error tells an engine's address or a program's insides",
        look=_nothing_leaks,
        retrying="spends",
    ),
)
