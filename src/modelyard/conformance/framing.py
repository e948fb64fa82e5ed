"""Requests put together by hand, so that their framing can be wrong."""

from modelyard.conformance.bench import CHAT, Bench


def head(bench: Bench, *lines: bytes, begin: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A head with the key, without its framing."""
    target = bench.place.target(CHAT).encode()
    first = begin or b"POST " + target + b" HTTP/" + version
    key = [f"{name}: {value}".encode() for name, value in bench.headers().items()]
    named = [first, b"Host: " + bench.place.authority.encode(), *key]
    return b"\r\n".join([*named, b"Content-Type: application/json", *lines, b"", b""])


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks; `end`: the last chunk and the trailers."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end
