"""The directive grammar, and the rules of the control route."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidRequest
from modelyard.engines.fake_server.faults import FaultBook, FaultRule
from modelyard.engines.fake_server.scripts import (
    PLAIN,
    Script,
    overlay,
    parse_directives,
    parse_script,
    words_of,
)

words = st.text(
    st.characters(codec="ascii", exclude_characters="[]= \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f")
)
counts = st.none() | st.integers(0, 1000)
flags = st.none() | st.booleans()
scripts = st.builds(
    Script,
    tokens=st.none() | st.integers(1, 1000),
    first_token_s=st.none() | st.floats(0, 100),
    refuse=flags,
    hang=flags,
    stall_after=counts,
    truncate_after=counts,
    status=st.none() | st.integers(400, 599),
    retry_after_s=counts,
    crash=flags,
    crash_after=counts,
    crash_code=st.none() | st.integers(0, 255),
    garbage=st.sampled_from([None, "html", "chunk"]),
)


@given(scripts)
def test_a_written_script_reads_back(script: Script) -> None:
    assert parse_script(words_of(script)) == script


@given(scripts, scripts)
def test_an_overlay_keeps_what_the_upper_leaves_out(base: Script, over: Script) -> None:
    both = overlay(base, over)
    for key in Script.__struct_fields__:
        given_above = getattr(over, key)
        expected = getattr(base, key) if given_above is None else given_above
        assert getattr(both, key) == expected


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_directives(text), Script)


@given(words.filter(lambda word: word not in Script.__struct_fields__))
def test_an_unknown_key_is_named(key: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(repr(key))):
        parse_script(f"{key}=1")


def test_a_message_without_a_directive_is_plain() -> None:
    assert parse_directives("What is 2+2? [[not ours]]") is PLAIN


def test_directives_are_found_anywhere_and_joined() -> None:
    script = parse_directives("a [[fake: tokens=20 stall_after=5]] b [[fake:refuse]]")
    assert script == Script(tokens=20, stall_after=5, refuse=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[fake: tokens=3", "not closed"),
        ("[[fake: tokens=3] ]", "not closed"),
        ("[[fake: tokens=0]]", "tokens"),
        ("[[fake: tokens=many]]", "tokens"),
        ("[[fake: tokens]]", "tokens"),
        ("[[fake: status=200]]", "status"),
        ("[[fake: first_token_s=nan]]", "first_token_s"),
        ("[[fake: garbage=xml]]", "garbage"),
        ("[[fake: tokens=1]] [[fake: tokens=2]]", "twice"),
    ],
)
def test_a_bad_directive_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_directives(text)


def test_a_rule_is_spent_after_its_times() -> None:
    book = FaultBook()
    book.add(FaultRule(script="status=500", times=2))
    taken = [book.take(("",)).status for _ in range(3)]
    assert taken == [500, 500, None]
    assert not book


def test_a_rule_applies_to_its_path_and_match_only() -> None:
    book = FaultBook()
    book.add(FaultRule(script="status=503", path="/health"))
    book.add(FaultRule(script="hang", match="blue"))
    assert book.take(("/health",)) == Script(status=503)
    assert book.take(("", "/v1/completions"), "a red one") is PLAIN
    assert book.take(("", "/v1/completions"), "a blue one") == Script(hang=True)


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(script=""),
        FaultRule(script="tokns=3"),
        FaultRule(script="refuse", path="accept"),
        FaultRule(script="hang", path="accept", times=1),
        FaultRule(script="stall_after=3", path="/health"),
    ],
)
def test_a_rule_that_could_not_apply_is_refused(rule: FaultRule) -> None:
    book = FaultBook()
    with pytest.raises(InvalidRequest, match=r"script|directive|meaning"):
        book.add(rule)
    assert not book
