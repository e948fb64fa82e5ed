"""Bodies arrive whole and unchanged, however large or odd, and are bounded (G10, G19)."""

import asyncio
import time
from typing import Any

import msgspec

from modelyard.conformance.answers import Answer, checked
from modelyard.conformance.bench import CHAT, Bench, Question, together
from modelyard.conformance.check import Check, Inapplicable, Look, expect
from modelyard.conformance.client import request
from modelyard.conformance.framing import chunks, head
from modelyard.conformance.passing import arrivals
from modelyard.conformance.refusals import expect_refusal, expect_unasked, told
from modelyard.conformance.target import Need

_LARGE_BYTES = 1_000_000
_CHUNK_BYTES = 65_536
_DEEP = 100_000
_FIELDS: dict[str, Any] = {
    "logit_bias": {"17": -100, "4": 5},
    "user": "somebody",
    "metadata": {"trip": "ä"},
    "x_conformance": {"list": [1, None, True, "ü", {"deep": []}], "empty": {}, "text": ""},
    "top_k": 40,
    "stop": ["never-said"],
}


def _right(answer: Answer, prompt: str, *, seed: int = 0) -> None:
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), prompt, seed=seed)


def _large(bench: Bench) -> int:
    bound = bench.target.max_body_bytes
    return _LARGE_BYTES if bound is None else min(_LARGE_BYTES, bound * 9 // 10)


async def _large_prompt(bench: Bench) -> str:
    words = "0123456789abcdef" * (_large(bench) // 16)
    question = bench.ask("tokens=2", text=words)
    answer = await bench.whole(question)
    _right(answer, question.prompt)
    usage = answer.read().usage
    expected = (len(question.prompt) + 3) // 4
    expect(
        usage is not None and usage.prompt_tokens == expected,
        f"{expected} prompt tokens were expected, came: {usage}",
    )
    return f"a prompt of {len(question.prompt)} bytes arrived whole: the answer is drawn from it"


async def _others_go_on(bench: Bench) -> str:
    """The large ones are under way while the small ones are asked."""
    words = "0123456789abcdef" * (_large(bench) // 16)
    large = [bench.ask("tokens=2", text=words) for _ in range(4)]
    small = [bench.ask("tokens=2") for _ in range(20)]
    begun = time.monotonic()
    await together(bench.good(question) for question in (*large, *small))
    took_s = time.monotonic() - begun
    return f"4 bodies of {len(words)} bytes and 20 small ones at once: all right in {took_s:.1f} s"


async def _too_large(bench: Bench) -> str:
    bound = bench.target.max_body_bytes or 0
    connection = await bench.connect()
    declared = head(bench, b"Content-Length: %d" % (8 * bound))
    await connection.send(declared + b'{"model":"')
    answer = await bench.answer(connection)
    expect_refusal(answer, {413}, f"a Content-Length of {8 * bound}")
    await expect_unasked(bench, "a body over the bound")
    return f"a Content-Length over {bound} got 413 before the body came, no engine was asked"


async def _too_large_chunks(bench: Bench) -> str:
    bound = bench.target.max_body_bytes or 0
    question = bench.ask("tokens=1")
    connection = await bench.connect()
    await connection.send(head(bench, b"Transfer-Encoding: chunked"))
    part = chunks(b" " * _CHUNK_BYTES, end=b"")
    await connection.send(chunks(question.body[:-1], end=b""))

    async def feed() -> None:
        for _ in range(4 * bound // _CHUNK_BYTES + 1):  # never ended
            await connection.send(part)
            await asyncio.sleep(0)

    feeding = asyncio.create_task(feed())
    try:
        answer = await bench.answer(connection)
    finally:
        feeding.cancel()
    expect_refusal(answer, {413}, f"chunks of more than {bound} bytes")
    await expect_unasked(bench, "a body over the bound")
    return f"chunks of more than {bound} bytes got 413 before their end, no engine was asked"


async def _up_to_the_bound(bench: Bench) -> str:
    bound = bench.target.max_body_bytes or 0
    question = bench.ask("tokens=1")
    room = bound - len(question.body) - 1
    question = bench.ask("tokens=1", text="x" * (room * 9 // 10))
    _right(await bench.whole(question), question.prompt)
    return f"a body of {len(question.body)} bytes under the bound of {bound} was served"


async def _slow(bench: Bench) -> str:
    question = bench.ask("tokens=2", text="x" * 2000)
    data = bench.bytes_of(question)
    connection = await bench.connect()
    pieces = 10
    size = len(data) // pieces + 1
    for at in range(0, len(data), size):
        await connection.send(data[at : at + size])
        await bench.good(bench.ask("tokens=1"))  # others are served meanwhile
    _right(await bench.answer(connection), question.prompt)
    return f"a request in {pieces} pieces was served, and others between all of them"


async def _deep(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    nests = {
        "lists": b"[" * _DEEP + b"]" * _DEEP,
        "objects": b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
        "lists that never end": b"[" * _DEEP,
    }
    seen = []
    for what, nest in nests.items():
        for body in (
            question.body[:-1] + b',"x_conformance":' + nest + b"}",
            b'{"model":"%b","messages":%b}' % (bench.target.model.encode(), nest),
            nest,
        ):
            answer = await told(bench, body)
            expect(
                answer.status == 200 or 400 <= answer.status < 500,
                f"{_DEEP} {what}, one in the other: a 4xx was expected, came: {answer.brief}",
            )
            seen.append(answer.status)
    await bench.good(bench.ask("tokens=1"))
    return f"{_DEEP} levels: {', '.join(map(str, sorted(set(seen))))}, and others are served"


async def _unicode(bench: Bench) -> str:
    texts = {
        "beyond the basic plane": ("\\ud83d\\ude00 \U0001f600", "\U0001f600 \U0001f600"),
        "zero and other controls": ("\\u0000 \\u001f \\u007f", "\x00 \x1f \x7f"),
        "all escapes": ('\\"\\\\\\/\\b\\f\\n\\r\\t', '"\\/\b\f\n\r\t'),
        "line separators": ("\\u2028\u2029\\ufeff", "\u2028\u2029\ufeff"),
        "combined and not normalised": ("e\\u0301 \u00e9 \u212b", "e\u0301 \u00e9 \u212b"),
        "text from right to left": ("\u05e9\u05dc\\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
    }
    for what, (written, meant) in texts.items():
        question = bench.ask("tokens=2", text="@")
        body = question.body.replace(b"@", written.encode())
        answer = await told(bench, body)
        expect(answer.status == 200, f"{what}: 200 was expected, came: {answer.brief}")
        checked(answer.text(), question.prompt.replace("@", meant))
    return f"{len(texts)} kinds of text arrived as they were meant: the answers are drawn from them"


async def _lone_surrogate(bench: Bench) -> str:
    question = bench.ask("tokens=1", text="@")
    answer = await told(bench, question.body.replace(b"@", b"\\ud800"))
    expect(
        answer.status == 200 or 400 <= answer.status < 500,
        f"half a surrogate pair: 200 or a 4xx was expected, came: {answer.brief}",
    )
    if answer.status == 200:
        await bench.until_seen(question)
    return f"half a surrogate pair got {answer.status}"


async def _numbers(bench: Bench) -> str:
    seed = 2**53 + 1
    question = bench.ask("tokens=2", seed=seed)
    _right(await bench.whole(question), question.prompt, seed=seed)
    question = bench.ask("tokens=2")
    precise = b'"temperature":0.12345678901234567,"x_conformance":12345678901234567890123'
    arrived = await _arrived(bench, question, question.body[:-1] + b"," + precise + b"}")
    for name, wanted in (
        ("temperature", 0.12345678901234567),
        ("x_conformance", 12345678901234567890123),
    ):
        came = arrived.get(name)
        expect(came == wanted, f"{name} {wanted!r} was expected at the engine, came: {came!r}")
    return "2^53+1, 17 digits behind the point and 23 before it arrived exactly"


async def _unknown_fields(bench: Bench) -> str:
    for stream in (False, True):
        question = bench.ask("tokens=2", **_FIELDS)
        arrived = await _arrived(bench, question, question.but(stream=stream).body)
        for name, wanted in _FIELDS.items():
            came = arrived.get(name, "nothing")
            expect(came == wanted, f"{name} {wanted} was expected at the engine, came: {came}")
    return f"{len(_FIELDS)} fields that are nothing to a gateway arrived unchanged"


async def _messages(bench: Bench) -> str:
    question = bench.ask("tokens=2")
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    part = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"},
    }
    asked = {"type": "text", "text": question.prompt, "x_own": 1}
    messages = [
        {"role": "system", "content": "Be brief.", "name": "rules"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "user", "content": [asked, part]},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    sent = question.but(messages=messages, tools=tools)
    arrived = await _arrived(bench, question, sent.body)
    came = arrived.get("messages", [])
    expect(
        [{"content": None, **message} for message in came] == messages,  # null is as good as none
        f"the messages as they were sent were expected at the engine, came: {came}",
    )
    expect(arrived.get("tools") == tools, f"the tools were expected, came: {arrived.get('tools')}")
    return "a conversation with tools, parts and an image arrived unchanged"


async def _arrived(bench: Bench, question: Question, body: bytes) -> dict[str, Any]:
    """Send what has the question's tag; what came to the engine. Raises Broken, Inapplicable."""
    answer = await told(bench, body)
    if answer.status in (400, 422):
        raise Inapplicable(f"the gateway refuses such a request: {answer.brief}")
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    found = await arrivals(bench, question)
    fields: dict[str, Any] = msgspec.json.decode(found[0].body)
    return fields


async def _with_query(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    connection = await bench.connect()
    await connection.send(request(bench.place, f"{CHAT}?x=1&y=%20", question.body, bench.headers()))
    _right(await bench.answer(connection), question.prompt)
    return "a query behind the path changes nothing"


def _check(name: str, meaning: str, look: Look, *needs: Need, deadline_s: float = 20.0) -> Check:
    return Check(
        name=f"bodies/{name}", meaning=meaning, look=look, needs=needs, deadline_s=deadline_s
    )


CHECKS: tuple[Check, ...] = (
    _check("large-prompt", "a prompt of 1 MB arrives whole", _large_prompt),
    _check("others-go-on", "large bodies and small ones at once are all served", _others_go_on),
    _check(
        "too-large",
        "a declared length over the bound gets 413 before the body comes",
        _too_large,
        "max_body_bytes",
    ),
    _check(
        "too-large-chunks",
        "chunks over the bound get 413 before their end",
        _too_large_chunks,
        "max_body_bytes",
    ),
    _check(
        "up-to-the-bound", "a body under the bound is served", _up_to_the_bound, "max_body_bytes"
    ),
    _check("slow", "a body that comes slowly is served, and holds nobody up", _slow),
    _check("deep", "a body of 100000 levels breaks nothing", _deep),
    _check("unicode", "text arrives as it was meant, however it is escaped", _unicode),
    _check(
        "lone-surrogate", "half a surrogate pair is the caller's fault at most", _lone_surrogate
    ),
    _check("numbers", "numbers arrive exactly", _numbers),
    _check(
        "unknown-fields", "fields that are nothing to a gateway arrive unchanged", _unknown_fields
    ),
    _check("messages", "conversations with tools and parts arrive unchanged", _messages),
    _check("query", "a query behind the path changes nothing", _with_query),
)
