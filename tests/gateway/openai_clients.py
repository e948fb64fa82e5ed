"""The `openai` package's clients as people set them up, and a replica that keeps its requests."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai
from tests.gateway.raw_replica import SSE, Client, replica, whole
from tests.gateway.rig import Engine, Rig


def alone(*urls: str, names: Sequence[str] = ("m",), **settings: Any) -> dict[str, Any]:
    """The configuration of a gateway before these upstreams."""
    upstreams = [{"url": url} for url in urls]
    base = {"upstreams": upstreams, "retries": {"backoff_base_s": 0.001}}
    return {"models": [{"name": name} | base | settings for name in names]}


def alone_before(engines: Sequence[Engine], **settings: Any) -> dict[str, Any]:
    """The same, before fake engines."""
    return alone(*(engine.url for engine in engines), **settings)


def blocking(rig: Rig, **options: Any) -> openai.OpenAI:
    """A client to be used in a thread: the gateway runs in the test's loop. It tries once."""
    http = openai.DefaultHttpxClient(trust_env=False)
    chosen = {"api_key": "sk-none", "max_retries": 0, "http_client": http} | options
    return openai.OpenAI(base_url=f"{rig.url}/v1", **chosen)


def awaiting(rig: Rig, **options: Any) -> openai.AsyncOpenAI:
    """A client for the test's loop. It tries once."""
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    chosen = {"api_key": "sk-none", "max_retries": 0, "http_client": http} | options
    return openai.AsyncOpenAI(base_url=f"{rig.url}/v1", **chosen)


class Sent:
    """One request as a replica got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode().split("\r\n")
        self.target = lines[0].split(" ")[1]
        pairs = (line.split(": ", 1) for line in lines[1:])
        self.headers = {name.lower(): value for name, value in pairs}
        self.body: dict[str, Any] = json.loads(body)


@contextlib.asynccontextmanager
async def recorded(answer: bytes, stream: bytes = b"") -> AsyncIterator[tuple[str, list[Sent]]]:
    """A replica that gives `answer` to every request, and `stream` to those who ask for one."""
    sent: list[Sent] = []

    async def speak(client: Client) -> None:
        head = (await client.reader.readuntil(b"\r\n\r\n"))[:-4]
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        sent.append(Sent(head, await client.reader.readexactly(length)))
        if sent[-1].body.get("stream"):
            await client.say(SSE + b"\r\n", stream)
        else:
            await client.say(whole(answer, b"content-type: application/json"))

    async with replica(speak) as url:
        yield url, sent


def events(*payloads: dict[str, Any], named: bool = False, done: bool = True) -> bytes:
    """A stream of these events; `named` after their type, as the responses API names them."""
    parts = [
        (b"event: %b\n" % payload["type"].encode() if named else b"")
        + b"data: %b\n\n" % json.dumps(payload).encode()
        for payload in payloads
    ]
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat's stream."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]}  # fmt: skip


USED = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}}  # fmt: skip
"""The last chunk of a stream, where usage was asked for."""
