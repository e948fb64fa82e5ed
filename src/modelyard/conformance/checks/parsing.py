"""HTTP/1.1 is read strictly: what is ambiguous is refused (G22).

The rules are those of RFC 9112. Behind each request that must be refused another one lies hidden:
none of the two may reach an engine.
"""

import asyncio
from collections.abc import Iterable, Mapping

from modelyard.conformance.bench import CHAT, Bench, Question
from modelyard.conformance.check import Check, Look, expect
from modelyard.conformance.client import Connection, request
from modelyard.conformance.framing import chunks, head
from modelyard.conformance.refusals import refused

_QUIET_S = 0.5
"""So long nothing more comes on a connection that is kept open after a refusal."""
_HEAD_BYTES = 1_000_000
_FRAMED = b"Content-Length: %d\r\n"


async def _expect_refused(
    bench: Bench,
    what: str,
    question: Question,
    payload: bytes,
    *,
    may_answer: bool = False,
    may_wait: bool = False,
) -> str:
    """Send it with another request hidden behind; raise Broken where either is executed.

    `may_answer`: the first one may be, if the connection is closed then; `may_wait`: more of it may
    be waited for. Returns how it ended.
    """
    hidden = bench.ask("tokens=1")
    connection = await bench.connect()
    sending = asyncio.create_task(connection.send(payload + bench.bytes_of(hidden)))
    try:
        how = await refused(connection, what, may_wait=may_wait)
        answered_more = await _says_more(connection)
    finally:
        sending.cancel()
        connection.leave()
    await bench.good(bench.ask("tokens=1"))  # what was let through is on its way no more
    arrived = await bench.seen(hidden)
    expect(not arrived, f"{what}: the request hidden behind it was executed")
    if how is None and may_answer:
        expect(not answered_more, f"{what}: more was answered on its connection")
        return "answered once"
    expect(how is not None, f"{what}: a refusal was expected, it was answered")
    expect(not await bench.seen(question), f"{what}: it reached an engine")
    return str(how)


async def _says_more(connection: Connection) -> bool:
    try:
        async with asyncio.timeout(_QUIET_S):
            return not await connection.closed()
    except TimeoutError:
        return False


async def _all_refused(bench: Bench, cases: Mapping[str, bytes], body: Question) -> str:
    """Each is a head's framing lines; the body is the question's."""
    seen = [
        await _expect_refused(bench, what, body, head(bench, *_split(lines)) + body.body)
        for what, lines in cases.items()
    ]
    return f"{len(seen)} heads were refused: {_counted(seen)}"


def _split(lines: bytes) -> list[bytes]:
    return lines.split(b"\r\n")


def _counted(seen: Iterable[str]) -> str:
    found = sorted(seen)
    return ", ".join(f"{how} ({found.count(how)})" for how in dict.fromkeys(found))


async def _both_lengths(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    body = chunks(question.body)
    seen = []
    for what, length in (
        ("Transfer-Encoding and a Content-Length of all", len(body)),
        ("Transfer-Encoding and a shorter Content-Length", 4),
        ("Transfer-Encoding and a longer Content-Length", len(body) + 100),
    ):
        for lines in (
            (b"Transfer-Encoding: chunked", b"Content-Length: %d" % length),
            (b"Content-Length: %d" % length, b"Transfer-Encoding: chunked"),
        ):
            payload = head(bench, *lines) + body
            seen.append(await _expect_refused(bench, what, question, payload, may_answer=True))
    return f"{len(seen)} requests with both: {_counted(seen)}; nothing behind them was executed"


async def _two_lengths(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    size = len(question.body)
    two = b"Content-Length: %d\r\nContent-Length: %d"
    cases = {
        "two Content-Lengths, the first is right": two % (size, size + 7),
        "two Content-Lengths, the second is right": two % (size - 7, size),
        "a list of Content-Lengths": b"Content-Length: %d, %d" % (size, size + 7),
    }
    return await _all_refused(bench, cases, question)


async def _odd_lengths(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    size = len(question.body)
    values = (
        b"+%d" % size,
        b"-%d" % size,
        b"-1",
        b"0x%x" % size,
        b"%d.0" % size,
        b"%d;" % size,
        b"1 %d" % size,
        b"",
        b"many",
    )
    cases = {f"Content-Length: {value.decode()}": b"Content-Length: " + value for value in values}
    told = await _all_refused(bench, cases, question)
    over = head(bench, b"Content-Length: %d" % (2**64 + size)) + question.body
    how = await _expect_refused(bench, "a length over 64 bits", question, over, may_wait=True)
    return f"{told}; one over 64 bits was {how}"


async def _codings(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    body = chunks(question.body)
    seen = []
    for value in (b"xchunked", b"chunked, identity", b"chunked, x", b"\x0bchunked", b"chunked;x=,"):
        payload = head(bench, b"Transfer-Encoding: " + value) + body
        what = f"Transfer-Encoding: {value.decode()!r}"
        seen.append(await _expect_refused(bench, what, question, payload))
    return f"{len(seen)} transfer codings that are not known were refused: {_counted(seen)}"


async def _bare_lf(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    right = head(bench, _FRAMED.strip() % len(question.body))
    cases = {
        "a head with LF alone": right.replace(b"\r\n", b"\n"),
        "one line that ends with LF alone": right.replace(b"\r\nHost", b"\nHost"),
        "a header behind LF alone": right.replace(b"\r\n\r\n", b"\r\nX-One: 1\nX-Two: 2\r\n\r\n"),
    }
    seen = [
        await _expect_refused(bench, what, question, head + question.body)
        for what, head in cases.items()
    ]
    return f"{len(seen)} heads with bare LF were refused: {_counted(seen)}"


async def _folded(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    framing = b"Content-Length: %d" % len(question.body)
    seen = []
    for fold in (b"X-One: 1\r\n Transfer-Encoding: chunked", b"X-One: 1\r\n\tContent-Length: 3"):
        payload = head(bench, framing, *_split(fold)) + question.body
        connection = await bench.connect()
        await connection.send(payload)
        how = await refused(connection, "a folded line that frames a body")
        connection.leave()
        if how is None:  # a fold may be read as a space: then the head says nothing ambiguous
            await bench.until_seen(question, otherwise="a folded line changed what was read")
        seen.append(how or "read as a space")
    return f"folded lines: {_counted(seen)}"


async def _space_before_colon(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    framing = b"Content-Length: %d" % len(question.body)
    cases = {
        "a space before Content-Length's colon": framing.replace(b":", b" :"),
        "a space before another colon": framing + b"\r\nX-One : 1",
        "a tab before another colon": framing + b"\r\nX-One\t: 1",
        "a line without a colon": framing + b"\r\nX-One",
        "a name that is empty": framing + b"\r\n: 1",
    }
    return await _all_refused(bench, cases, question)


async def _chunk_sizes(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    body = question.body
    size = b"%x" % len(body)
    seen = []
    for what, begin in {
        "letters": b"zz",
        "a plus sign": b"+" + size,
        "a minus sign": b"-" + size,
        "a prefix": b"0x" + size,
        "a space before it": b" " + size,
        "nothing": b"",
        "a size over 64 bits": b"1" + b"0" * 16 + size,
        "underscores": size[:1] + b"_" + size[1:],
    }.items():
        payload = head(bench, b"Transfer-Encoding: chunked") + begin + b"\r\n" + body
        payload += b"\r\n0\r\n\r\n"
        what = f"a chunk's size with {what}"
        waits = begin.startswith(b"1" + b"0" * 16)  # with numbers of any size, it is a size
        seen.append(await _expect_refused(bench, what, question, payload, may_wait=waits))
    longer = head(bench, b"Transfer-Encoding: chunked")
    longer += size + b"\r\n" + body + b"XX\r\n0\r\n\r\n"
    seen.append(await _expect_refused(bench, "a chunk longer than its size", question, longer))
    return f"{len(seen)} bodies with a bad chunk were refused: {_counted(seen)}"


async def _host(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    right = head(bench, b"Content-Length: %d" % len(question.body))
    line = b"Host: " + bench.place.authority.encode() + b"\r\n"
    cases = {
        "no Host": right.replace(line, b""),
        "two Hosts": right.replace(line, line + b"Host: other.example\r\n"),
    }
    seen = [
        await _expect_refused(bench, what, question, head + question.body)
        for what, head in cases.items()
    ]
    return f"no Host and two of them were refused: {_counted(seen)}"


async def _huge_heads(bench: Bench) -> str:
    question = bench.ask("tokens=1")
    framing = b"Content-Length: %d" % len(question.body)
    long = b"x" * _HEAD_BYTES
    cases = {
        "a header of 1 MB": head(bench, framing, b"X-Long: " + long),
        "a header's name of 1 MB": head(bench, framing, long + b": 1"),
        "20000 headers": head(bench, framing, *(b"X-%d: 1" % at for at in range(20_000))),
        "a path of 1 MB": head(bench, framing, begin=b"POST /" + long + b" HTTP/1.1"),
    }
    seen = [
        await _expect_refused(bench, what, question, head + question.body)
        for what, head in cases.items()
    ]
    await bench.good(bench.ask("tokens=1"))
    return f"{len(seen)} heads of 1 MB and 20000 headers were refused: {_counted(seen)}"


async def _bodies_hide_nothing(bench: Bench) -> str:
    """A body that is not wanted must be read away, or the connection be closed."""
    hidden = bench.ask("tokens=1")
    smuggled = bench.bytes_of(hidden)
    cases = {
        "GET of the models": ("GET", "/v1/models", None),
        "a path that is not there": ("POST", "/v1/nothing", None),
        "a method that is not allowed": ("DELETE", CHAT, None),
        "a wrong key": ("POST", CHAT, "sk-wrong"),
    }
    seen = []
    for what, (method, path, key) in cases.items():
        connection = await bench.connect()
        await connection.send(request(bench.place, path, smuggled, bench.headers(key), method))
        how = await refused(connection, what)
        more = await _says_more(connection)
        connection.leave()
        expect(how is not None or method == "GET", f"{what}: a refusal was expected")
        seen.append(how or "answered")
        expect(not more, f"{what}: its body was answered like a request")
        expect(not await bench.seen(hidden), f"{what}: its body was executed as a request")
    return f"requests whose bodies hold another one: {_counted(seen)}; none of them was executed"


def _check(name: str, meaning: str, look: Look, deadline_s: float = 20.0) -> Check:
    return Check(name=f"parsing/{name}", meaning=meaning, look=look, deadline_s=deadline_s)


CHECKS: tuple[Check, ...] = (
    _check("both-lengths", "Content-Length beside chunks never hides a request", _both_lengths),
    _check("two-lengths", "two different Content-Lengths are refused", _two_lengths),
    _check("odd-lengths", "a Content-Length that is no plain number is refused", _odd_lengths),
    _check("codings", "a transfer coding other than chunked is refused", _codings),
    _check("bare-lf", "lines of a head that end with LF alone are refused", _bare_lf),
    _check("folded", "a folded line is refused, or read as a space", _folded),
    _check("colons", "a space before a colon, or none at all, is refused", _space_before_colon),
    _check("chunk-sizes", "a chunk's size that is no plain hex number is refused", _chunk_sizes),
    _check("host", "a request without Host, or with two, is refused", _host),
    _check("huge-heads", "a head of 1 MB is refused", _huge_heads),
    _check(
        "bodies", "a body that is not wanted is never taken for a request", _bodies_hide_nothing
    ),
)
