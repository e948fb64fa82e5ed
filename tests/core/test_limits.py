import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.keys import Limit, LimitKind
from modelyard.core.limits import (
    ENFORCED,
    Bound,
    Refusal,
    bounds_of,
    first_refusal,
    told,
    unenforceable,
)

bounds = st.lists(
    st.builds(
        Bound,
        st.sampled_from(sorted(ENFORCED)),
        st.sampled_from(["key", "tenant", "model"]),
        st.just("it"),
        st.integers(1, 1000),
    ),
    max_size=5,
)


@given(bounds, st.integers(0, 500), st.data())
def test_a_request_is_let_in_when_no_bound_would_break(
    held: list[Bound], tokens: int, data: st.DataObject
) -> None:
    used = [data.draw(st.integers(0, 1000)) for _ in held]

    broken = first_refusal(held, used, tokens)

    over = [
        index for index, bound in enumerate(held) if used[index] + bound.need(tokens) > bound.amount
    ]
    if broken is None:
        assert over == []
    else:
        index, surplus = broken
        assert index == over[0]
        assert used[index] - surplus + held[index].need(tokens) == held[index].amount


def test_limits_of_a_model_count_its_requests_only() -> None:
    limits = (Limit(kind="requests_per_min", amount=5), Limit(kind="tokens_per_day", amount=9,
              model="m"))  # fmt: skip
    assert [bound.kind for bound in bounds_of("key", "k", limits, "m")] == [
        "requests_per_min", "tokens_per_day",
    ]  # fmt: skip
    assert [bound.kind for bound in bounds_of("key", "k", limits, "other")] == ["requests_per_min"]


@pytest.mark.parametrize(
    ("kind", "amount", "why"),
    [
        ("cost_per_day", 5.0, "prices"),
        ("requests_per_min", 0.0, "whole number"),
        ("tokens_per_min", 1.5, "whole number"),
        ("tokens_per_min", float("nan"), "whole number"),
        ("tokens_per_min", float("inf"), "whole number"),
    ],
)
def test_what_can_not_be_held_is_said(kind: LimitKind, amount: float, why: str) -> None:
    assert why in str(unenforceable([Limit(kind=kind, amount=amount)]))
    assert unenforceable([Limit(kind="requests_per_min", amount=60)]) is None


def test_a_refusal_tells_the_numbers() -> None:
    bound = Bound("tokens_per_min", "tenant", "blue", 100, "m")
    text = told(Refusal(bound=bound, used=90, need=20, wait_s=5))
    assert "100 tokens per min of model 'm'" in text
    assert "90 are used" in text
    assert "alone needs 200" in told(Refusal(bound=bound, used=0, need=200, wait_s=None))
