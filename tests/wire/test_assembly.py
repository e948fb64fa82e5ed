import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire.assembly import ChoicesAssembly, MessageAssembly, ResponseAssembly

HEAD = {"id": "c1", "created": 7, "model": "m", "system_fingerprint": "f"}


def _assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    assembly = ChoicesAssembly()
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
        ChoicesAssembly().feed(payload)


def test_a_response_is_what_its_last_event_holds() -> None:
    assembly = ResponseAssembly()
    assembly.feed(b'{"type": "response.created", "response": {"id": "r", "status": "in_progress"}}')
    assembly.feed(b'{"type": "response.output_text.delta", "delta": "four"}')
    assembly.feed(b'{"type":"response.completed","response":{"id":"r","output":[{"text":"four"}]}}')

    assert assembly.whole() == b'{"id":"r","output":[{"text":"four"}]}'


def _told(*events: dict[str, Any]) -> dict[str, Any]:
    assembly = MessageAssembly()
    for event in events:
        assembly.feed(json.dumps(event).encode())
    answer: dict[str, Any] = json.loads(assembly.whole())
    return answer


def _delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_a_message_is_put_together_block_by_block() -> None:
    start = {"id": "m", "type": "message", "role": "assistant", "content": [], "stop_reason": None,
             "usage": {"input_tokens": 7, "output_tokens": 0}}  # fmt: skip
    thought = {"type": "thinking", "thinking": "", "signature": ""}
    tool = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}

    message = _told(
        {"type": "message_start", "message": start},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": thought},
        _delta(0, type="thinking_delta", thinking="hm"),
        _delta(0, type="thinking_delta", thinking="m"),
        _delta(0, type="signature_delta", signature="sig"),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        _delta(1, type="text_delta", text="2 + "),
        _delta(1, type="text_delta", text="2"),
        _delta(1, type="citations_delta", citation={"cited_text": "x"}),
        {"type": "content_block_start", "index": 2, "content_block": tool},
        _delta(2, type="input_json_delta", partial_json='{"ci'),
        _delta(2, type="input_json_delta", partial_json='ty": "Oslo"}'),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
         "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )  # fmt: skip

    assert message == start | {
        "content": [
            thought | {"thinking": "hmm", "signature": "sig"},
            {"type": "text", "text": "2 + 2", "citations": [{"cited_text": "x"}]},
            tool | {"input": {"city": "Oslo"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 9},
    }


@pytest.mark.parametrize("payload", [b"", b"[]", b"4", b"\xff"])
def test_what_is_no_event_of_a_response_is_said(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        ResponseAssembly().feed(payload)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"\xff", b'{"type": "content_block_delta", "index": 3, "delta": {}}',
     b'{"type": "message_start"}',
     b'{"type": "content_block_start", "index": [], "content_block": {}}'],
)  # fmt: skip
def test_what_is_no_event_of_a_message_is_said(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        MessageAssembly().feed(payload)


def test_a_tools_broken_input_is_said() -> None:
    assembly = MessageAssembly()
    assembly.feed(b'{"type": "content_block_start", "index": 0, "content_block": {}}')
    assembly.feed(
        b'{"type": "content_block_delta", "index": 0, "delta": {"partial_json": "{\\"ci"}}'
    )
    with pytest.raises(ValueError, match="not JSON"):
        assembly.whole()
