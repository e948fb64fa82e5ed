import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.keys import Limit, LimitKind
from modelyard.core.limits import (
    ENFORCED,
    Bound,
    Refusal,
    Use,
    bounds_of,
    first_refusal,
    told,
    unenforceable,
    unpriced,
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


@given(bounds, st.builds(Use, st.integers(0, 500), st.integers(0, 500)), st.data())
def test_a_request_is_let_in_when_no_bound_would_break(
    held: list[Bound], use: Use, data: st.DataObject
) -> None:
    used = [data.draw(st.integers(0, 1000)) for _ in held]

    broken = first_refusal(held, used, use)

    over = [
        index for index, bound in enumerate(held) if used[index] + bound.need(use) > bound.amount
    ]
    if broken is None:
        assert over == []
    else:
        index, surplus = broken
        assert index == over[0]
        assert used[index] - surplus + held[index].need(use) == held[index].amount


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
        ("tokens_per_week", 5.0, "not known"),
        ("cost_per_day", 0.0, "money over 0"),
        ("cost_per_day", -1.0, "money over 0"),
        ("cost_per_month", float("nan"), "money over 0"),
        ("cost_per_month", float("inf"), "money over 0"),
        ("cost_per_month", 1e10, "money over 0"),
        ("requests_per_min", 0.0, "whole number"),
        ("tokens_per_min", 1.5, "whole number"),
        ("tokens_per_min", float("nan"), "whole number"),
        ("tokens_per_min", float("inf"), "whole number"),
    ],
)
def test_what_can_not_be_held_is_said(kind: LimitKind, amount: float, why: str) -> None:
    assert why in str(unenforceable([Limit(kind=kind, amount=amount)]))
    assert unenforceable([Limit(kind="requests_per_min", amount=60)]) is None


def test_money_is_counted_in_billionths() -> None:
    limit = Limit(kind="cost_per_day", amount=0.1)
    assert unenforceable([limit]) is None
    (bound,) = bounds_of("key", "k", [limit], "m")
    assert bound.amount == 100_000_000
    text = told(Refusal(bound=bound, used=99_500_000, need=1_000_000, wait_s=5))
    assert text == ("key 'k' may spend 0.1 per day; 0.0995 are used, and this request needs 0.001")


def test_a_limit_of_money_over_what_has_no_price_can_not_be_held() -> None:
    of_all = Limit(kind="cost_per_day", amount=5)
    of_one = Limit(kind="cost_per_month", amount=5, model="own")
    some = {"own": False, "remote": True}
    assert unpriced([of_all], some) is None  # others are refused where they are asked
    assert "cost_per_month needs prices, and 'own' has none" in str(unpriced([of_one], some))
    assert "cost_per_day needs prices" in str(unpriced([of_all], {"own": False}))
    assert "'own' has none" in str(unpriced([of_one], {}))
    assert unpriced([Limit(kind="tokens_per_day", amount=5)], {}) is None


def test_a_refusal_tells_the_numbers() -> None:
    bound = Bound("tokens_per_min", "tenant", "blue", 100, "m")
    text = told(Refusal(bound=bound, used=90, need=20, wait_s=5))
    assert "100 tokens per min of model 'm'" in text
    assert "90 are used" in text
    assert "alone needs 200" in told(Refusal(bound=bound, used=0, need=200, wait_s=None))
