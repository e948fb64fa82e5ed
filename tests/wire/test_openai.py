import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidRequest, LimitExceeded
from modelyard.core.routes import Operation
from modelyard.wire.openai import (
    Usage,
    ask_for_usage,
    error_body,
    read_answer,
    read_request,
    with_bound,
    with_fields,
)

CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


def test_a_request_is_read_as_far_as_it_matters() -> None:
    view = read_request("chat", CHAT[:-1] + b', "stream": true, "unknown": [1, {"a": 2}]}')
    assert (view.model, view.stream) == ("m", True)


@pytest.mark.parametrize(
    ("operation", "body", "said"),
    [
        ("chat", b"", "not JSON"),
        ("chat", b"{", "not JSON"),
        ("chat", b"\xff\xfe", "not JSON"),
        ("chat", CHAT[:-1] + b', "unknown": "\xff"}', "not JSON"),
        ("chat", b"[]", "not valid"),
        ("chat", b'{"messages": [{}]}', "model"),
        ("chat", b'{"model": 3, "messages": [{}]}', "model"),
        ("chat", b'{"model": "m"}', "messages"),
        ("chat", b'{"model": "m", "messages": []}', "messages"),
        ("chat", b'{"model": "m", "messages": [{}], "stream": "yes"}', "stream"),
        ("completions", b'{"model": "m"}', "prompt"),
        ("chat", b"[" * 100_000, "not"),
    ],
)
def test_what_can_not_be_served_is_refused_and_named(
    operation: Operation, body: bytes, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_request(operation, body)


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert read_request("chat", body).model


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(max_size=8), json_values, max_size=5),
    st.sampled_from([None, 1]),
    st.none() | st.booleans(),
)
def test_asking_for_usage_changes_nothing_else(
    fields: dict[str, object], indent: int | None, asked: bool | None
) -> None:
    request = fields | {"model": "m", "messages": [{}], "stream": True}
    request.pop("stream_options", None)
    for typed in ("n", "user", "max_tokens", "max_completion_tokens", "n_predict", "n_cmpl"):
        request.pop(typed, None)
    if asked is not None:
        request["stream_options"] = {"include_usage": asked}
    body = json.dumps(request, indent=indent).encode()

    changed = json.loads(ask_for_usage(read_request("chat", body), body))

    assert changed == request | {"stream_options": {"include_usage": True}}


def test_fields_are_replaced() -> None:
    assert json.loads(with_fields(b'{"model": "a", "x": 1}', {"model": "b"})) == {
        "model": "b",
        "x": 1,
    }


@pytest.mark.parametrize(
    ("said", "wanted", "bounded"),
    [
        ({}, None, {"max_tokens": 9}),
        ({"max_tokens": 5}, 5, {"max_tokens": 5}),
        ({"max_completion_tokens": 50}, 50, {"max_completion_tokens": 9}),
        ({"max_tokens": 1, "n_predict": 50}, 50, {"max_tokens": 1, "n_predict": 9}),
        ({"max_tokens": -1}, None, {"max_tokens": 9}),
        ({"max_tokens": 5, "n_predict": -2}, None, {"max_tokens": 5, "n_predict": 9}),
        ({"n_predict": 1}, None, {"max_tokens": 9, "n_predict": 1}),
        ({"max_output_tokens": 1}, None, {"max_tokens": 9, "max_output_tokens": 1}),
    ],
)
def test_of_several_bounds_none_lets_an_answer_grow_over_the_limit(
    said: dict[str, int], wanted: int | None, bounded: dict[str, int]
) -> None:
    """Engines heed one or another of them; llama.cpp takes a negative one for none."""
    body = json.dumps({"model": "m", "messages": [{}], **said}).encode()
    view = read_request("chat", body)
    assert view.wanted_tokens == wanted
    fields = json.loads(with_bound(view, "chat", body, 9))
    assert {name: fields[name] for name in fields if name not in ("model", "messages")} == bounded


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ('"a"', 2),
        ('["a"]', 2),
        ('["a", "b", "c"]', 6),
        ("[1, 2, 3]", 2),
        ("[[1, 2], [3]]", 4),
        ("[]", 2),
    ],
)
def test_each_prompt_of_a_list_is_answered(prompt: str, answers: int) -> None:
    body = '{"model": "m", "n": 2, "prompt": %s}' % prompt  # noqa: UP031 - braces
    assert read_request("completions", body.encode()).answers == answers


def test_each_api_is_bounded_by_the_name_that_its_engines_heed() -> None:
    names: dict[Operation, str] = {
        "chat": "max_completion_tokens",
        "completions": "max_tokens",
        "messages": "max_tokens",
        "responses": "max_output_tokens",
    }
    for operation, name in names.items():
        body = json.dumps({"model": "m", "messages": [{}], "prompt": "a", name: 5}).encode()
        view = read_request(operation, body)
        assert view.wanted_tokens == 5, operation
    assert view.answers == 1
    body = b'{"model": "m", "messages": [{}], "n": 2, "n_cmpl": 7}'
    assert read_request("chat", body).answers == 7


def test_usage_and_the_end_are_read_from_an_answer() -> None:
    view = read_answer(
        b'{"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3,'
        b'"completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}}'
    )
    assert view is not None
    assert view.usage is not None
    assert (view.usage.prompt_tokens, view.usage.completion_tokens) == (3, 2)
    told = view.counted()
    assert told is not None
    assert told.cached_tokens == 1
    assert view.choices[0].finish_reason == "stop"
    assert read_answer(b"<html>") is None


def test_an_error_has_the_form_that_clients_read() -> None:
    error = LimitExceeded("over the limit", next_step="wait", param="rpm", retry_after_s=3)
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "over the limit; wait",
            "type": "rate_limit_error",
            "param": "rpm",
            "code": "rate_limit_exceeded",
        }
    }


def test_an_engines_error_is_seen_and_null_is_none() -> None:
    failed = read_answer(b'{"error": {"message": "out of memory"}}')
    assert failed is not None
    assert failed.failed
    assert bytes(failed.error) == b'{"message": "out of memory"}'
    for body in (b'{"error": null, "choices": []}', b"{}"):
        view = read_answer(body)
        assert view is not None
        assert not view.failed


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ('{"usage": {"prompt_tokens": 3, "completion_tokens": 2}}', (3, 2, None)),
        ('{"usage": {"input_tokens": 3, "output_tokens": 2}}', (3, 2, None)),
        (
            (
                '{"type": "response.completed", "response": {"usage": {"input_tokens": 3, '
                '"output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}}}'
            ),
            (3, 2, 1),
        ),
        (
            (
                '{"type": "message_start", "message": {"usage": {"input_tokens": 1, '
                '"cache_read_input_tokens": 2, "cache_creation_input_tokens": 4}}}'
            ),
            (7, None, 2),
        ),
        ('{"message": "what went wrong"}', None),
        ('{"response": [1]}', None),
        ('{"choices": []}', None),
    ],
)
def test_each_apis_usage_is_counted_alike(
    told: str, counts: tuple[int | None, int | None, int | None] | None
) -> None:
    view = read_answer(told.encode())
    assert view is not None
    counted = view.counted()
    assert (None if counted is None else tuple(counted)) == counts


def test_what_comes_later_adds_to_what_was_said() -> None:
    first, later = Usage(prompt_tokens=7, completion_tokens=0), Usage(completion_tokens=5)
    assert tuple(first.followed_by(later)) == (7, 5, None)
