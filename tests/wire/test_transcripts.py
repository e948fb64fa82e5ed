"""What an answer says, in the forms of four APIs, within a bound."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.routes import Operation
from modelyard.wire import sse
from modelyard.wire.transcripts import MAX_WHOLE_BYTES, Transcript


def streamed(operation: Operation, events: list[Any], **bounds: int) -> str | None:
    transcript = Transcript(operation, **bounds)
    for event in events:
        transcript.feed(sse.event(json.dumps(event).encode()))
    transcript.feed(sse.event(sse.DONE))
    return transcript.text


def read(operation: Operation, body: Any) -> str | None:
    transcript = Transcript(operation)
    transcript.read(json.dumps(body).encode())
    return transcript.text


def delta(index: int = 0, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": said}]}


CALL = {"name": "look", "arguments": '{"at":1}'}
STREAMS: dict[str, tuple[Operation, list[Any], Any]] = {
    "chat": (
        "chat",
        [delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"),
         {"choices": [], "usage": {"prompt_tokens": 1}}],
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]},
    ),
    "several choices": (
        "chat",
        [delta(1, content="two"), delta(0, content="one"), delta(1, content="!")],
        {"choices": [{"index": 0, "message": {"content": "one"}},
                     {"index": 1, "message": {"content": "two!"}}]},
    ),
    "a tool's call": (
        "chat",
        [delta(tool_calls=[{"index": 0, "function": {"name": "look", "arguments": ""}}]),
         delta(tool_calls=[{"index": 0, "function": {"arguments": '{"at":'}}]),
         delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}])],
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": CALL}]}}]},
    ),
    "completions": (
        "completions",
        [{"choices": [{"text": "Hel"}]}, {"choices": [{"text": "lo"}]}],
        {"choices": [{"text": "Hello"}]},
    ),
    "messages": (
        "messages",
        [{"type": "message_start", "message": {"content": []}},
         {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
         {"type": "content_block_delta", "index": 0,
          "delta": {"type": "text_delta", "text": "Hel"}},
         {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
         {"type": "content_block_start", "index": 1,
          "content_block": {"type": "tool_use", "name": "look", "input": {}}},
         {"type": "content_block_delta", "index": 1,
          "delta": {"type": "input_json_delta", "partial_json": '{"at":1}'}},
         {"type": "message_stop"}],
        {"content": [{"type": "text", "text": "Hello"},
                     {"type": "tool_use", "name": "look", "input": {"at": 1}}]},
    ),
    "responses": (
        "responses",
        [{"type": "response.created", "response": {"output": []}},
         {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
         {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"},
         {"type": "response.output_text.done", "output_index": 0, "text": "Hello"}],
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_what_its_whole_says(name: str) -> None:
    operation, events, whole = STREAMS[name]
    text = streamed(operation, events)

    assert text
    assert read(operation, whole) == text.replace('{"at":1}', _spaced(operation))


def _spaced(operation: Operation) -> str:
    """The input of a tool as `json.dumps` writes it, where it is an object in the whole answer."""
    return '{"at": 1}' if operation == "messages" else '{"at":1}'


@given(st.text(min_size=1, max_size=300), st.integers(1, 20))
def test_events_may_come_in_any_pieces(text: str, size: int) -> None:
    stream = b"".join(sse.event(json.dumps(delta(content=letter)).encode()) for letter in text)
    transcript = Transcript("chat")
    for start in range(0, len(stream), size):
        transcript.feed(stream[start : start + size])

    assert transcript.text == text


def test_of_an_answer_that_is_too_long_nothing_is_kept() -> None:
    events = [delta(content="x" * 10)] * 10

    assert streamed("chat", events, max_chars=100) == "x" * 100
    assert streamed("chat", events, max_chars=99) is None
    assert read("chat", {"choices": [{"message": {"content": "x" * MAX_WHOLE_BYTES}}]}) is None


@pytest.mark.parametrize(
    "garbage", [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b'data: {"choices": 3}\n\n']
)
def test_what_can_not_be_read_has_no_text(garbage: bytes) -> None:
    transcript = Transcript("chat")
    transcript.feed(sse.event(json.dumps(delta(content="a")).encode()))
    transcript.feed(garbage)
    transcript.feed(sse.event(json.dumps(delta(content="a")).encode()))

    assert transcript.text is None
    assert streamed("embeddings", []) is None


@given(st.binary(max_size=200), st.sampled_from(["chat", "completions", "responses", "messages"]))
def test_nothing_makes_it_raise(body: bytes, operation: Operation) -> None:
    for fed in (body, b"data: " + body + b"\n\n"):
        Transcript(operation).feed(fed)
        Transcript(operation).read(fed)
