"""Prometheus's text form, read back by Prometheus's own client."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.parser import text_string_to_metric_families

from modelyard.core.metrics.declaration import Metric
from modelyard.observe.prometheus import Counters, Exposition, Histograms, Reading, Source, one

COUNTER = Metric(name="c", kind="counter", unit="x", help="a\\b\nc", labels=("model", "slot"))
HISTOGRAM = Metric(
    name="h", kind="histogram", unit="s", help="h", labels=("model",), buckets=(0.5, 1, 2.5)
)
GAUGE = Metric(name="g", kind="gauge", unit="x", help="g")


def read(*sources: Source) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    exposition = Exposition()
    exposition.add(*sources)
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition.text().decode())
        for sample in family.samples
    }


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e300))
def test_hostile_label_text_comes_back_as_it_was(text: str, amount: float) -> None:
    counters = Counters(COUNTER)
    counters.child(text, "blue").value += amount

    assert read(counters) == {("c_total", (("model", text), ("slot", "blue"))): amount}


@pytest.mark.parametrize(
    "text", ['a"b', "a\nb", "a\\", 'x"} 1\nevil_total{a="', "мodel 模型 🚀", "", "a,b={}"]
)
def test_a_name_can_not_make_lines_of_its_own(text: str) -> None:
    counters = Counters(COUNTER)
    counters.child(text, "blue").value += 1

    assert read(counters) == {("c_total", (("model", text), ("slot", "blue"))): 1.0}


def test_what_utf_8_can_not_hold_is_replaced() -> None:
    counters = Counters(COUNTER)
    counters.child("a\ud800b", "blue").value += 1

    assert read(counters) == {("c_total", (("model", "a?b"), ("slot", "blue"))): 1.0}


@given(st.lists(st.floats(0, 5), max_size=50))
def test_a_histogram_is_as_prometheuss_own_client_counts_it(values: list[float]) -> None:
    registry = CollectorRegistry()
    theirs = TheirHistogram("h", "h", ["model"], registry=registry, buckets=HISTOGRAM.buckets)
    ours = Histograms(HISTOGRAM)
    mine, reference = ours.child("m"), theirs.labels("m")
    for value in [*values, 0.5, 1.0, 2.5]:  # those on the borders, too
        mine.observe(value)
        reference.observe(value)

    told = read(ours)
    text = generate_latest(registry).decode()
    expected: dict[Any, float] = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }

    assert {(n, tuple(sorted(labels))): v for (n, labels), v in told.items()} == pytest.approx(
        expected
    )


def test_what_is_forgotten_goes_by_the_beginning_of_its_labels() -> None:
    counters = Counters(COUNTER)
    for model, slot in (("a", "blue"), ("a", "green"), ("b", "blue")):
        counters.child(model, slot).value += 1

    counters.forget("a")

    assert counters.labels() == (("b", "blue"),)


def test_values_that_are_no_numbers_are_told_as_prometheus_reads_them() -> None:
    for value in (math.inf, -math.inf):
        assert read(one(GAUGE, lambda value=value: value)) == {("g", ()): value}
    [nan] = read(Reading(GAUGE, lambda: (((), math.nan),))).values()
    assert math.isnan(nan)
