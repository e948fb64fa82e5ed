"""A whole answer put together from the events of its stream.

Asked for where an engine notices only of a stream at once that nobody waits for it any more
(promise G1). The result has the form that the same request would have got without streaming:
OpenAI API reference, the chat completion object and its chunk, the completion object, the response
object; Anthropic API reference, streaming messages.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from modelyard.core.routes import Operation

_WHOLE = {"chat.completion.chunk": "chat.completion"}
_SET = frozenset({"role", "id", "type"})
"""Strings that are repeated, not continued."""


class _ResponseEvent(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(dict[str, Any]).decode
_response = msgspec.json.Decoder(_ResponseEvent).decode


class Assembly(Protocol):
    """Takes the events' data in order; `whole` is the answer so far."""

    def feed(self, payload: bytes) -> None:
        """Take one event's data. Raises ValueError when it is no JSON object of that form."""

    def whole(self) -> bytes:
        """The answer in the form of one that was not streamed; raises ValueError."""


class ChoicesAssembly:
    """Of chat and completions: choices that every event continues."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, payload: bytes) -> None:
        """Take one event's data. Raises ValueError when it is no JSON object of that form."""
        try:
            event = _decode(payload)
            for choice in event.pop("choices", None) or ():
                self._take(choice)
        except (msgspec.MsgspecError, AttributeError, TypeError) as error:
            raise ValueError(f"not an event of an answer: {error}") from None
        self._answer |= event

    def whole(self) -> bytes:
        """The answer in the form of one that was not streamed."""
        kind = self._answer.get("object")
        choices = [_finished(self._choices[index]) for index in sorted(self._choices)]
        answer = {"choices": choices} | self._answer
        if kind in _WHOLE:
            answer["object"] = _WHOLE[kind]
        return msgspec.json.encode(answer)

    def _take(self, part: dict[str, Any]) -> None:
        index = part.get("index", 0)
        choice = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        for key, value in part.items():
            if key == "delta":
                _join(choice.setdefault("message", {}), value)
            elif key == "text":
                choice["text"] = choice.get("text", "") + value
            elif key == "logprobs" and value is not None:
                _join(choice.setdefault("logprobs", {}), value)
            elif value is not None or key not in choice:
                choice[key] = value


class ResponseAssembly:
    """Of the responses API: its last event holds the whole response."""

    def __init__(self) -> None:
        self._response = msgspec.Raw(b"{}")

    def feed(self, payload: bytes) -> None:
        """Take one event's data. Raises ValueError when it is no JSON object of that form."""
        try:
            self._response = _response(payload).response or self._response
        except msgspec.MsgspecError as error:
            raise ValueError(f"not an event of a response: {error}") from None

    def whole(self) -> bytes:
        """The response of the last event that had one."""
        return bytes(self._response)


class MessageAssembly:
    """Of the messages API: blocks of content, each begun, continued and ended."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        """JSON of what tools are called with, which comes in pieces."""

    def feed(self, payload: bytes) -> None:
        """Take one event's data. Raises ValueError when it is no JSON object of that form."""
        try:
            event = _decode(payload)
            kind = event.get("type")
            if kind == "message_start":
                self._message = event["message"]
            elif kind == "content_block_start":
                self._blocks[event["index"]] = event["content_block"]
            elif kind == "content_block_delta":
                self._continue(event["index"], event["delta"])
            elif kind == "message_delta":
                self._message |= event["delta"]
                self._message["usage"] = self._message.get("usage", {}) | event.get("usage", {})
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise ValueError(f"not an event of a message: {error!r}") from None

    def whole(self) -> bytes:
        """The message with its blocks in order; raises ValueError for a tool's broken input."""
        try:
            for index, text in self._inputs.items():
                self._blocks[index]["input"] = msgspec.json.decode(text or "{}")
        except msgspec.MsgspecError as error:
            raise ValueError(f"a tool's input is not JSON: {error}") from None
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return msgspec.json.encode(self._message | {"content": blocks})

    def _continue(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        for key, value in delta.items():
            if key == "partial_json":
                self._inputs[index] = self._inputs.get(index, "") + value
            elif key == "citation":
                block["citations"] = [*(block.get("citations") or ()), value]
            elif key != "type":
                block[key] = block.get(key, "") + value if isinstance(value, str) else value


ASSEMBLIES: Mapping[Operation, Callable[[], Assembly]] = {
    "chat": ChoicesAssembly,
    "completions": ChoicesAssembly,
    "responses": ResponseAssembly,
    "messages": MessageAssembly,
}
"""Operations whose streams can be put together to a whole answer."""


def _join(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Continue every string and list of `whole` by what `part` brings."""
    for key, value in part.items():
        known = whole.get(key)
        if value is None or known is None or key in _SET:
            if value is not None or key not in whole:
                whole[key] = _indexed(value) if _has_index(value) else value
        elif isinstance(value, str):
            whole[key] = known + value
        elif isinstance(value, list):
            if _has_index(value):
                for item in value:
                    _join(known.setdefault(item["index"], {}), item)
            else:
                known.extend(value)
        elif isinstance(value, dict):
            _join(known, value)
        else:
            whole[key] = value


def _has_index(value: Any) -> bool:
    """Whether it is a list whose items say where they belong, as tool calls do."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "index" in item for item in value)
    )


def _indexed(items: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    by_index: dict[int, dict[str, Any]] = {}
    for item in items:
        _join(by_index.setdefault(item["index"], {}), item)
    return by_index


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice with its tool calls as a list again, without the places they were sent with."""
    message = choice.get("message")
    if message is None:
        return choice
    shown = {
        key: [
            {name: field for name, field in value[index].items() if name != "index"}
            for index in sorted(value)
        ]
        if isinstance(value, dict) and all(isinstance(place, int) for place in value) and value
        else value
        for key, value in message.items()
    }
    return choice | {"message": {"role": "assistant", "content": None} | shown}
