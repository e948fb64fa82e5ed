"""Requests read: prompts, token counts, lengths."""

import pytest

from modelyard.core.errors import InvalidRequest
from modelyard.engines.fake_server.requests import (
    plan_length,
    read_chat,
    read_completion,
    read_embeddings,
    text_tokens,
)


def test_a_chat_is_seeded_by_its_last_user_message_and_counted_whole() -> None:
    ask = read_chat(
        b'{"messages":[{"role":"system","content":"1234"},{"role":"user","content":"old"},'
        b'{"role":"user","content":[{"type":"text","text":"ne"},{"type":"text","text":"w"}]},'
        b'{"role":"assistant","content":null}],"max_tokens":9,"max_completion_tokens":5,'
        b'"temperature":0.1,"never_heard_of":{"x":1},"stop":null,"n":null,"stream":null}'
    )
    assert ask.prompts == ("ne\nw",)
    assert ask.prompt_tokens == 3  # 4 + 3 + 4 bytes
    assert ask.limit == 5
    assert (ask.n, ask.stops, ask.stream) == (1, (), False)


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        ('"12345"', ("12345",), 2),
        ('["a","12345"]', ("a", "12345"), 3),
        ("[7,8,9]", ("7 8 9",), 3),
        ("[[7],[8,9]]", ("7", "8 9"), 3),
    ],
)
def test_prompts_come_in_four_forms(prompt: str, texts: tuple[str, ...], tokens: int) -> None:
    ask = read_completion(b'{"prompt":%b}' % prompt.encode())
    assert (ask.prompts, ask.prompt_tokens) == (texts, tokens)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"prompt":"\xff"}',
        b"{",
        b"[]",
        b'{"prompt":[]}',
        b'{"prompt":["a",1]}',
        b'{"prompt":"a","n":0}',
        pytest.param(b'{"prompt":"a","x":' + b"[" * 100_000, id="too deep"),
    ],
)
def test_what_does_not_fit_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"JSON|fit|empty"):
        read_completion(body)


def test_embeddings_know_their_encoding() -> None:
    ask = read_embeddings(b'{"input":"x","encoding_format":"base64","dimensions":3}')
    assert (ask.base64, ask.dimensions, ask.prompt_tokens) == (True, 3, 1)


@pytest.mark.parametrize(
    ("wanted", "limit", "room", "planned"),
    [
        (None, None, None, (16, "stop")),
        (None, 5, None, (5, "length")),
        (20, 5, None, (5, "length")),
        (20, 50, None, (20, "stop")),
        (20, 20, None, (20, "stop")),
        (None, None, 4, (4, "length")),
        (20, None, 7, (7, "length")),
    ],
)
def test_lengths(
    wanted: int | None, limit: int | None, room: int | None, planned: tuple[int, str]
) -> None:
    assert plan_length(wanted=wanted, limit=limit, default=16, room=room) == planned


def test_ids_count_as_the_rule_says() -> None:
    assert text_tokens("abcde") == [0x64636261, 0x65]
