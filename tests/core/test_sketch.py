"""Distributions: quantiles within two per cent of the raw values, sums of parts, compact bytes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.sketch import ACCURACY, LARGEST, SMALLEST, Sketch

VALUES = st.lists(st.floats(min_value=SMALLEST, max_value=LARGEST), min_size=1, max_size=200)
SHARES = st.sampled_from((0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0))


def raw(values: list[float], share: float) -> float:
    """The value of that rank."""
    return sorted(values)[max(0, math.ceil(share * len(values) - 1e-6) - 1)]


@given(values=VALUES, share=SHARES)
def test_every_quantile_is_within_two_per_cent_of_the_raw_value(
    values: list[float], share: float
) -> None:
    found = Sketch(values).quantile(share)
    assert found == pytest.approx(raw(values, share), rel=ACCURACY + 1e-9)


@given(parts=st.lists(VALUES, min_size=1, max_size=5), share=SHARES)
def test_parts_merged_are_the_whole(parts: list[list[float]], share: float) -> None:
    merged = Sketch()
    for part in parts:
        merged.merge(Sketch(part))
    whole = Sketch(value for part in parts for value in part)
    assert merged == whole
    assert merged.count == sum(map(len, parts))
    assert merged.quantile(share) == whole.quantile(share)


@given(values=VALUES, more=VALUES)
def test_bytes_tell_all_of_it_and_are_counted_on(values: list[float], more: list[float]) -> None:
    sketch = Sketch(values)
    assert Sketch.decode(sketch.encode()) == sketch
    sketch.feed(Sketch(more).encode())
    assert sketch == Sketch([*values, *more])


def test_many_values_take_few_bytes() -> None:
    sketch = Sketch()
    for number in range(1, 2000):
        sketch.add(number / 1000, times=1000)
    assert sketch.count == 1_999_000
    assert len(sketch.encode()) < 700


def test_what_is_out_of_bounds_is_counted_at_the_bound() -> None:
    assert Sketch([0.0]).quantile(0.5) == pytest.approx(SMALLEST, rel=0.05)
    assert Sketch([math.inf]).quantile(0.5) == pytest.approx(LARGEST, rel=0.05)


@pytest.mark.parametrize("value", [-0.1, -math.inf, math.nan])
def test_what_is_no_quantity_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        Sketch().add(value)


def test_nothing_has_no_quantile() -> None:
    assert Sketch().quantile(0.5) is None
    assert Sketch.decode(b"").count == 0


@given(values=VALUES, bound=st.floats(min_value=SMALLEST, max_value=LARGEST))
def test_how_many_are_above_is_exact_but_for_those_beside_the_bound(
    values: list[float], bound: float
) -> None:
    above = Sketch(values).above(bound)
    assert sum(value > bound * 1.05 for value in values) <= above
    assert above <= sum(value > bound / 1.05 for value in values)


@pytest.mark.parametrize(
    "wrong", [b"\x05", b"\x05\x81", b"\x81", b"\xff" * 40 + b"\x01\x01", b"\xff\xff\x7f\x01"]
)
def test_bytes_that_are_none_of_ours_are_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="bytes of a distribution"):
        Sketch.decode(wrong)


@given(wrong=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(wrong: bytes) -> None:
    try:
        sketch = Sketch.decode(wrong)
    except ValueError:
        return
    assert sketch.count >= 0
