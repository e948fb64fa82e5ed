"""Answers → bytes: HTTP heads, OpenAI bodies, SSE chunks. Formatted by hand, for speed.

Answer tokens hold only letters, digits, spaces, `:` and `!`, so they need no JSON escapes.
"""

import base64
import math
import struct
import zlib
from http import HTTPStatus

import msgspec

from modelyard.core.errors import ModelyardError
from modelyard.engines.fake_server.requests import EmbeddingAsk, FinishReason, Kind

encode_json = msgspec.json.encode

_OK_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n%b\r\n"
)
_IDS: dict[Kind, bytes] = {"chat": b"chatcmpl-", "completions": b"cmpl-"}
_OBJECTS: dict[tuple[Kind, bool], bytes] = {
    ("chat", False): b"chat.completion",
    ("chat", True): b"chat.completion.chunk",
    ("completions", False): b"text_completion",
    ("completions", True): b"text_completion",
}
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
"""The last event and the last chunk."""


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int

    def json(self) -> bytes:
        """As OpenAI writes it."""
        return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
            self.prompt_tokens,
            self.completion_tokens,
            self.prompt_tokens + self.completion_tokens,
        )


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every message of one answer begins with."""

    kind: Kind
    stream: bool
    id: bytes
    """Unique part of the answer's id."""
    created: int
    """Unix seconds."""
    model: str
    fingerprint: str

    def opening(self) -> bytes:
        """The fields before `choices`."""
        return (
            b'{"id":"%b%b","object":"%b","created":%d,"model":%b,"system_fingerprint":%b,"choices":['
            % (
                _IDS[self.kind],
                self.id,
                _OBJECTS[self.kind, self.stream],
                self.created,
                encode_json(self.model),
                encode_json(self.fingerprint),
            )
        )


def json_reply(body: bytes, headers: bytes = b"") -> bytes:
    """A whole 200 response; `headers` are further header lines, each with its CRLF."""
    return _OK_JSON % (len(body), headers) + body


def stream_head(headers: bytes) -> bytes:
    """Head of a stream in chunked coding."""
    return _STREAM % headers


def reply(status: int, content_type: bytes, body: bytes, headers: bytes = b"") -> bytes:
    """A whole response of any status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        phrase.encode(),
        content_type,
        len(body),
        headers,
        body,
    )


def error_reply(error: ModelyardError, headers: bytes = b"", status: int | None = None) -> bytes:
    """An error in OpenAI's form, with Retry-After where the error has it."""
    message = f"{error.message}. {error.next_step}" if error.next_step else error.message
    detail = {"message": message, "type": error.type, "param": error.param, "code": error.code}
    if error.retry_after_s is not None:
        headers += b"Retry-After: %d\r\n" % math.ceil(error.retry_after_s)
    body = encode_json({"error": detail})
    return reply(status or error.status, b"application/json", body, headers)


def whole_body(
    envelope: Envelope, choices: list[tuple[bytes, FinishReason]], usage: Usage
) -> bytes:
    """Body of an answer that is not streamed."""
    if envelope.kind == "chat":
        form = (
            b'{"index":%d,"message":{"role":"assistant","content":"%b","refusal":null},'
            b'"logprobs":null,"finish_reason":"%b"}'
        )
    else:
        form = b'{"index":%d,"text":"%b","logprobs":null,"finish_reason":"%b"}'
    parts = [form % (at, text, why.encode()) for at, (text, why) in enumerate(choices)]
    return b'%b%b],"usage":%b}' % (envelope.opening(), b",".join(parts), usage.json())


class StreamForm:
    """The chunks of one streamed answer, all but the token prepared."""

    def __init__(self, envelope: Envelope, choices: int) -> None:
        opening = b"data: " + envelope.opening()
        self._opening = opening
        self._chat = envelope.kind == "chat"
        if self._chat:
            start, end = b'{"index":%d,"delta":{"content":"', b'"},"logprobs":null,'
        else:
            start, end = b'{"index":%d,"text":"', b'","logprobs":null,'
        self._starts = [opening + start % index for index in range(choices)]
        self._end = end + b'"finish_reason":null}]}\n\n'

    def role(self, choice: int) -> bytes:
        """What a chat's stream begins with; nothing for completions."""
        if not self._chat:
            return b""
        return chunk(
            b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}]}\n\n' % (self._opening, choice)
        )

    def token(self, choice: int, token: bytes) -> bytes:
        """The chunk of one token."""
        start, end = self._starts[choice], self._end
        return b"%x\r\n%b%b%b\r\n" % (len(start) + len(token) + len(end), start, token, end)

    def half_token(self, choice: int, token: bytes) -> bytes:
        """A chunk that breaks off amid its token."""
        whole = self.token(choice, token)
        return whole[: len(whole) - len(self._end) - len(token) // 2 - 2]

    def finish(self, choice: int, why: FinishReason) -> bytes:
        """The chunk that says why a choice ended."""
        content = b'"delta":{}' if self._chat else b'"text":""'
        return chunk(
            b'%b{"index":%d,%b,"logprobs":null,"finish_reason":"%b"}]}\n\n'
            % (self._opening, choice, content, why.encode())
        )

    def usage(self, usage: Usage) -> bytes:
        """The chunk that `stream_options.include_usage` asks for."""
        return chunk(b'%b],"usage":%b}\n\n' % (self._opening, usage.json()))


def chunk(data: bytes) -> bytes:
    """One chunk of chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def embedding(text: str, dimensions: int, seed: int) -> list[float]:
    """A unit vector that depends on the text alone: CRC-32 of text and dimension, normalised."""
    start = zlib.crc32(text.encode("utf-8", "surrogatepass"), seed & 0xFFFFFFFF)
    values = [zlib.crc32(b"%d" % at, start) / 2**31 - 1.0 for at in range(dimensions)]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / norm for value in values]


def embeddings_body(ask: EmbeddingAsk, *, model: str, dimensions: int, seed: int) -> bytes:
    """Body of an embeddings answer."""
    data = []
    for index, text in enumerate(ask.prompts):
        values = embedding(text, dimensions, seed)
        vector: list[float] | str = values
        if ask.base64:
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}
    return encode_json({"object": "list", "data": data, "model": model, "usage": usage})
