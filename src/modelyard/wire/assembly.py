"""A whole answer put together from the events of its stream.

Asked for where an engine notices only of a stream at once that nobody waits for it any more
(promise G1). The result has the form that the same request would have got without streaming:
OpenAI API reference, the chat completion object and its chunk, the completion object.
"""

from typing import Any

import msgspec

_WHOLE = {"chat.completion.chunk": "chat.completion"}
_SET = frozenset({"role", "id", "type"})
"""Strings that are repeated, not continued."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Assembly:
    """Takes the events' data in order; `whole` is the answer so far."""

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
