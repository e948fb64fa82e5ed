"""A whole answer told as a stream: the opposite of `wire/assembly.py`, for answers from the cache.

OpenAI API reference, the chat completion chunk object: each choice's message comes in one piece,
then its end, then usage where it was asked for, then `[DONE]`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from modelyard.wire import sse

_STREAMED = {"chat.completion": "chat.completion.chunk"}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def events(whole: bytes, *, with_usage: bool) -> Iterator[bytes]:
    """The events of the answer `whole`; raises ValueError when it is none."""
    try:
        answer = _decode(whole)
        choices = answer.pop("choices")
        usage = answer.pop("usage", None)
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"not an answer that can be streamed: {error}") from None
    kind = str(answer.get("object", ""))
    head = answer | {"object": _STREAMED.get(kind, kind)}
    tail = {"usage": None} if with_usage else {}
    for choice in choices:
        yield _event(head | {"choices": [_begun(choice)]} | tail)
    for choice in choices:
        yield _event(head | {"choices": [_ended(choice)]} | tail)
    if with_usage:
        yield _event(head | {"choices": [], "usage": usage})
    yield sse.event(sse.DONE)


def _begun(choice: dict[str, Any]) -> dict[str, Any]:
    """What a choice says, without its end."""
    told = {key: value for key, value in choice.items() if key not in ("message", "finish_reason")}
    if "message" in choice:
        told["delta"] = _delta(choice["message"])
    return told | {"finish_reason": None}


def _ended(choice: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"delta": {}} if "message" in choice else {"text": ""}
    return {
        "index": choice.get("index", 0),
        **empty,
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


def _delta(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return message | {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}


def _event(told: dict[str, Any]) -> bytes:
    return sse.event(msgspec.json.encode(told))
