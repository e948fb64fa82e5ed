"""What is right in HTTP/1.1 is served, however it comes; what is a hop's own stays there (G22)."""

import asyncio
import gzip

from modelyard.conformance.answers import checked
from modelyard.conformance.bench import CHAT, Bench
from modelyard.conformance.check import Check, Inapplicable, Look, expect
from modelyard.conformance.client import Cut, request
from modelyard.conformance.framing import chunks, head
from modelyard.conformance.passing import arrivals
from modelyard.conformance.refusals import expect_refusal


async def _continue(bench: Bench) -> str:
    question = bench.ask("tokens=2")
    framing = b"Content-Length: %d" % len(question.body)
    connection = await bench.connect()
    await connection.send(head(bench, framing, b"Expect: 100-continue"))
    interim = await connection.head()
    expect(interim.status == 100, f"100 Continue was expected, came: {interim.status}")
    await connection.send(question.body)
    answer = await bench.answer(connection)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return "100 Continue came before the body was sent, then a whole answer"


async def _chunked_body(bench: Bench) -> str:
    question = bench.ask("tokens=3", text="ä" * 500)
    body = question.body
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    end = b"0\r\nX-Trailer: 1\r\n\r\n"
    sent = chunks(*parts, end=end).replace(b"\r\n", b";name=value\r\n", 1)
    connection = await bench.connect()
    await connection.send(head(bench, b"Transfer-Encoding: chunked") + sent)
    answer = await bench.answer(connection)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return f"a body in {len(parts)} chunks, with an extension and a trailer, arrived whole"


async def _single_bytes(bench: Bench) -> str:
    question = bench.ask("tokens=2", text="€")
    connection = await bench.connect()
    for byte in bench.bytes_of(question):
        await connection.send(bytes([byte]))
        await asyncio.sleep(0)
    answer = await bench.answer(connection)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return "a request that came byte by byte was answered"


async def _http_1_0(bench: Bench) -> str:
    question = bench.ask("tokens=2")
    framing = b"Content-Length: %d" % len(question.body)
    connection = await bench.connect()
    await connection.send(head(bench, framing, version=b"1.0") + question.body)
    answer = await bench.answer(connection)
    if answer.status in (400, 426, 505):
        raise Inapplicable(f"HTTP/1.0 is refused with {answer.status}")
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    coding = answer.headers.get("transfer-encoding")
    expect(coding is None, f"no transfer coding was expected in HTTP/1.0, came: {coding}")
    checked(answer.text(), question.prompt)
    expect(await connection.closed(), "the end of the connection was expected, more came")
    return "a request in HTTP/1.0 was answered without chunks, and its connection closed"


async def _absolute_form(bench: Bench) -> str:
    """RFC 9112, 3.2.2: a server must accept it."""
    question = bench.ask("tokens=2")
    place = bench.place
    target = f"http{'s' if place.tls else ''}://{place.authority}{place.target(CHAT)}".encode()
    framing = b"Content-Length: %d" % len(question.body)
    connection = await bench.connect()
    begin = b"POST " + target + b" HTTP/1.1"
    await connection.send(head(bench, framing, begin=begin) + question.body)
    answer = await bench.answer(connection)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return "a request whose target is a whole URL was answered"


async def _encoded(bench: Bench) -> str:
    question = bench.ask("tokens=2")
    body = gzip.compress(question.body)
    framing = b"Content-Length: %d" % len(body)
    connection = await bench.connect()
    await connection.send(head(bench, framing, b"Content-Encoding: gzip") + body)
    answer = await bench.answer(connection)
    if answer.status == 200:
        checked(answer.text(), question.prompt)
        return "a body in gzip was read"
    expect_refusal(answer, {400, 415, 422}, "a body in gzip")
    expect(not await bench.seen(question), "a body in gzip was passed on to an engine")
    return f"a body in gzip was refused with {answer.status}"


async def _head_request(bench: Bench) -> str:
    connection = await bench.connect()
    await connection.send(request(bench.place, "/v1/models", None, bench.headers(), "HEAD"))
    reply = await connection.reply(bodiless=True)
    question = bench.ask("tokens=1")
    if reply.headers.get("connection", "").lower() == "close":
        expect(await connection.closed(), "no body was expected of HEAD, more came")
        return f"{reply.status} without a body, then the connection was closed"
    answer = await bench.whole(question, on=connection)
    expect(answer.status == 200, f"200 was expected behind HEAD, came: {answer.brief}")
    return f"{reply.status} without a body, and the next request was answered"


async def _keep_alive(bench: Bench) -> str:
    connection = await bench.connect()
    for turn in range(10):
        question = bench.ask(f"tokens={turn + 1}").but(stream=turn % 2 == 1)
        answer = await bench.whole(question, on=connection)
        expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
        if turn % 2 == 0:
            checked(answer.text(), question.prompt)
        if answer.headers.get("connection", "").lower() == "close":
            raise Inapplicable(f"connections are closed after {turn + 1} request(s)")
    return "10 requests, streams among them, were answered on one connection"


async def _after_errors(bench: Bench) -> str:
    """Where a refused request ends must stay known."""
    connection = await bench.connect()
    wrong: dict[str, tuple[bytes, str, dict[str, str]]] = {
        "malformed JSON": (b'{"model":', CHAT, bench.headers()),
        "an unknown model": (bench.ask(model="no-such-model").body, CHAT, bench.headers()),
        "an unknown path": (b"{}", "/v1/nothing", bench.headers()),
        "no key": (b"{}", CHAT, {}),
    }
    for at, (what, (body, path, headers)) in enumerate(wrong.items()):
        await connection.send(request(bench.place, path, body, headers))
        answer = await bench.answer(connection)
        expect(400 <= answer.status < 500, f"{what}: a 4xx was expected, came: {answer.brief}")
        if answer.headers.get("connection", "").lower() == "close":
            return f"{at} refused requests on one connection, which was closed after {what}"
    question = bench.ask("tokens=2")
    answer = await bench.whole(question, on=connection)
    expect(answer.status == 200, f"200 was expected after them, came: {answer.brief}")
    checked(answer.text(), question.prompt)
    return f"after {len(wrong)} refused requests their connection still served another"


async def _pipelined(bench: Bench) -> str:
    questions = [bench.ask(f"tokens={8 - 2 * at}") for at in range(4)]
    connection = await bench.connect()
    await connection.send(b"".join(map(bench.bytes_of, questions)))
    for at, question in enumerate(questions):
        try:
            answer = await bench.answer(connection)
        except Cut:
            expect(at > 0, "an answer to the first of four pipelined requests was expected")
            return f"the connection was closed after {at} of 4 pipelined requests"
        expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
        checked(answer.text(), question.prompt)
    return "4 pipelined requests were answered in order"


async def _hop_by_hop(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    more = {
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=7",
        "Proxy-Connection": "keep-alive",
        "Proxy-Authorization": "Basic eA==",
    }
    answer = await bench.whole(question, headers=more)
    expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
    found = await arrivals(bench, question)
    names = {name.lower() for arrival in found for name, _ in arrival.headers}
    relayed = names & {"x-hop", "keep-alive", "proxy-connection", "proxy-authorization"}
    expect(not relayed, f"headers of the connection were passed on: {', '.join(sorted(relayed))}")
    return f"headers of the connection were not passed on; the engine saw {len(names)} names"


def _check(name: str, meaning: str, look: Look, deadline_s: float = 20.0) -> Check:
    return Check(name=f"http/{name}", meaning=meaning, look=look, deadline_s=deadline_s)


CHECKS: tuple[Check, ...] = (
    _check("continue", "Expect: 100-continue is answered before the body comes", _continue),
    _check("chunked-body", "a body in chunks arrives whole", _chunked_body),
    _check("single-bytes", "a request that comes byte by byte is answered", _single_bytes),
    _check("http-1.0", "HTTP/1.0 is answered without chunks", _http_1_0),
    _check("absolute-form", "a target that is a whole URL is understood", _absolute_form),
    _check("encoded", "a body in gzip is read or refused", _encoded),
    _check("head", "HEAD gets no body", _head_request),
    _check("keep-alive", "a connection serves many requests", _keep_alive),
    _check("after-errors", "a connection serves on after refused requests", _after_errors),
    _check("pipelined", "pipelined requests are answered in order, or refused", _pipelined),
    _check("hop-by-hop", "headers of the connection are not passed on", _hop_by_hop),
)
