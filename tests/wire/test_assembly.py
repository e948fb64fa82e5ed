import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire.assembly import Assembly

HEAD = {"id": "c1", "created": 7, "model": "m", "system_fingerprint": "f"}


def _assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    assembly = Assembly()
    for event in events:
        assembly.feed(json.dumps(event).encode())
    answer: dict[str, Any] = json.loads(assembly.whole())
    return answer


def _chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return HEAD | {"object": "chat.completion.chunk", "choices": list(choices)} | more


texts = st.lists(st.text(max_size=5), min_size=1, max_size=6)


@given(texts, texts, st.randoms(use_true_random=False))
def test_two_answers_whose_parts_come_mixed_are_kept_apart(
    first: list[str], second: list[str], order: Any
) -> None:
    parts = [(0, text) for text in first] + [(1, text) for text in second]
    places = [index for index, _ in parts]
    order.shuffle(places)
    left = {0: iter(first), 1: iter(second)}
    events = [_chunk({"index": n, "delta": {"role": "assistant", "content": None}}) for n in (0, 1)]
    events += [_chunk({"index": n, "delta": {"content": next(left[n])}}) for n in places]
    events += [_chunk({"index": n, "delta": {}, "finish_reason": "stop"}) for n in (1, 0)]
    events += [_chunk(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})]

    answer = _assembled(events)

    assert answer == HEAD | {
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(text)},
                "finish_reason": "stop",
            }
            for index, text in ((0, first), (1, second))
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def test_tool_calls_are_joined_by_their_place() -> None:
    def call(index: int, **fields: Any) -> dict[str, Any]:
        return _chunk({"index": 0, "delta": {"tool_calls": [{"index": index} | fields]}})

    answer = _assembled(
        [
            _chunk({"index": 0, "delta": {"role": "assistant", "content": None}}),
            call(0, id="a", type="function", function={"name": "add", "arguments": ""}),
            call(0, function={"arguments": '{"x":'}),
            call(1, id="b", type="function", function={"name": "sub", "arguments": "{"}),
            call(0, function={"arguments": "1}"}),
            call(1, function={"arguments": "}"}),
            _chunk({"index": 0, "delta": {}, "finish_reason": "tool_calls"}),
        ]
    )

    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
        ],
    }


def test_probabilities_and_reasoning_are_joined() -> None:
    def part(**fields: Any) -> dict[str, Any]:
        return _chunk({"index": 0, "delta": fields, "logprobs": {"content": [{"token": "t"}]}})

    answer = _assembled([part(reasoning_content="I th"), part(reasoning_content="ink"), part()])

    (choice,) = answer["choices"]
    assert choice["message"]["reasoning_content"] == "I think"
    assert choice["logprobs"] == {"content": [{"token": "t"}] * 3}


def test_text_completions_are_joined() -> None:
    def part(text: str, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return HEAD | {"object": "text_completion", "choices": [choice]}

    answer = _assembled([part("a"), part(" b"), part("", "length")])

    assert answer == HEAD | {
        "object": "text_completion",
        "choices": [{"index": 0, "text": "a b", "logprobs": None, "finish_reason": "length"}],
    }


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"<html>", b'{"choices": 3}', b'{"choices": ["x"]}',
     b'{"choices": [{"delta": "x"}]}', b'{"choices": [{"text": 1}]}'],
)  # fmt: skip
def test_what_is_no_event_is_said(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        Assembly().feed(payload)
