"""A whole answer told as a stream is the same answer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire import sse
from modelyard.wire.assembly import ChoicesAssembly
from modelyard.wire.replay import events

texts = st.text(max_size=20)
calls = st.lists(
    st.fixed_dictionaries(
        {"id": texts, "type": st.just("function"),
         "function": st.fixed_dictionaries({"name": texts, "arguments": texts})},
    ),
    min_size=1, max_size=3,
)  # fmt: skip
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts},
    optional={"tool_calls": calls, "reasoning_content": texts, "refusal": st.none()},
)
usages = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)}
)


def chat_answers() -> st.SearchStrategy[dict[str, Any]]:
    def whole(parts: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m",
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
                for index, (message, reason) in enumerate(parts)
            ],
        }  # fmt: skip

    part = st.tuples(messages, st.sampled_from(["stop", "length", "tool_calls"]))
    return st.lists(part, min_size=1, max_size=3).map(whole)


@given(chat_answers(), usages)
def test_a_chat_answer_comes_out_as_it_went_in(
    answer: dict[str, Any], usage: dict[str, int]
) -> None:
    told = list(events(msgspec.json.encode(answer | {"usage": usage}), with_usage=True))

    assert told[-1] == b"data: [DONE]\n\n"
    assembly = ChoicesAssembly()
    for event in told[:-1]:
        payload = sse.data_of(event)
        assert payload is not None
        assert msgspec.json.decode(payload)["object"] == "chat.completion.chunk"
        assembly.feed(payload)
    again = msgspec.json.decode(assembly.whole())
    assert again == answer | {"usage": usage}


@given(st.lists(texts, min_size=1, max_size=3))
def test_a_completion_comes_out_as_it_went_in(parts: list[str]) -> None:
    answer = {
        "id": "cmpl-1", "object": "text_completion", "created": 5, "model": "m",
        "choices": [
            {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
            for index, text in enumerate(parts)
        ],
    }  # fmt: skip
    assembly = ChoicesAssembly()
    for event in events(msgspec.json.encode(answer), with_usage=False):
        payload = sse.data_of(event)
        if payload is not None and payload != sse.DONE:
            assembly.feed(payload)
    assert msgspec.json.decode(assembly.whole()) == answer


def test_usage_is_told_only_where_it_was_asked_for() -> None:
    answer = {"choices": [{"index": 0, "message": {"content": "x"}}], "usage": {"prompt_tokens": 1}}
    body = msgspec.json.encode(answer)
    assert b"usage" not in b"".join(events(body, with_usage=False))
    assert b'"choices":[],"usage":{"prompt_tokens":1}' in b"".join(events(body, with_usage=True))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": []}', b"\xff"])
def test_what_can_not_be_streamed_is_said(body: bytes) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        list(events(body, with_usage=False))
