from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.cacheable import AFFECTING, NEUTRAL, cache_key, cacheable, deterministic
from modelyard.core.routes import Caching, Operation

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}],
                        "temperature": 0}  # fmt: skip
ALL = Caching(mode="all")
GREEDY = Caching(mode="deterministic")
values = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 2) | st.text(max_size=5)


@pytest.mark.parametrize("operation", sorted(AFFECTING))
def test_a_field_is_classified_once(operation: Operation) -> None:
    assert not AFFECTING[operation] & NEUTRAL


@given(st.text(min_size=1, max_size=12), values)
def test_a_field_that_nobody_classified_is_not_cached(name: str, value: Any) -> None:
    known = AFFECTING["chat"] | NEUTRAL
    assert cacheable(ALL, "chat", CHAT | {name: value}, opted_in=True) is (name in known)


@given(st.sampled_from(sorted(AFFECTING["chat"])), values, values)
def test_every_field_that_can_change_the_answer_changes_the_key(
    name: str, one: Any, other: Any
) -> None:
    first = cache_key("t", "d", "chat", CHAT | {name: one})
    second = cache_key("t", "d", "chat", CHAT | {name: other})
    same = type(one) is type(other) and one == other
    assert (first == second) is same


@given(st.sampled_from(sorted(NEUTRAL)), values)
def test_fields_that_can_not_change_the_answer_do_not_change_the_key(name: str, value: Any) -> None:
    assert cache_key("t", "d", "chat", CHAT | {name: value}) == cache_key("t", "d", "chat", CHAT)


def test_tenant_version_and_operation_are_in_the_key() -> None:
    keys = {
        cache_key(tenant, digest, operation, {"model": "m"})
        for tenant in ("", "a", "b")
        for digest in ("sha256:1", "sha256:2")
        for operation in ("chat", "completions")
    }
    assert len(keys) == 12


def test_the_order_of_fields_and_a_null_change_nothing() -> None:
    turned = dict(reversed(list(CHAT.items())))
    assert cache_key("t", "d", "chat", CHAT | {"seed": None}) == cache_key("t", "d", "chat", turned)
    nested = CHAT | {"messages": [{"content": "x", "role": "user"}]}
    assert cache_key("t", "d", "chat", nested) == cache_key("t", "d", "chat", CHAT)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0}, True), ({"temperature": 0.0}, True), ({"seed": 7}, True),
        ({}, False), ({"temperature": 1}, False), ({"temperature": None}, False),
        ({"temperature": False}, False), ({"seed": None}, False),
    ],
)  # fmt: skip
def test_what_gets_the_same_answer_each_time(fields: dict[str, Any], expected: bool) -> None:
    assert deterministic("chat", fields) is expected
    assert cacheable(GREEDY, "chat", fields, opted_in=False) is expected
    assert cacheable(GREEDY, "chat", fields, opted_in=True)
    assert cacheable(ALL, "chat", fields, opted_in=False)
    assert not cacheable(Caching(), "chat", fields, opted_in=True)


def test_operations_without_a_list_are_not_cached() -> None:
    assert cacheable(GREEDY, "embeddings", {"model": "m", "input": "x"}, opted_in=False)
    assert not cacheable(ALL, "responses", {"model": "m"}, opted_in=True)
    assert not cacheable(ALL, "messages", {"model": "m"}, opted_in=True)
