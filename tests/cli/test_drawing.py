"""Numbers over time, drawn."""

import pytest

from modelyard.cli import drawing


def test_a_line_of_bars_shows_all_that_is_above_nothing() -> None:
    assert drawing.sparkline([None, 0.0, 0.001, 4.0, 8.0]) == "· ▁▄█"
    assert drawing.sparkline([1.0, 2.0], most=4.0) == "▂▄"
    assert drawing.sparkline([0.0, 0.0]) == "  "
    assert drawing.sparkline([]) == ""


def test_bars_over_several_lines_stand_on_each_other() -> None:
    assert drawing.bars([0.0, 1.0, 12.0, 24.0], 3) == ["   █", "  ▄█", " ▁██"]
    assert drawing.bars([None, 0.0], 2) == ["  ", "  "]


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "-"), (0.0000123, "0.0123 ms"), (0.2054, "205 ms"), (0.9996, "1 s"), (1.017, "1.02 s"),
     (94.7, "94.7 s"), (1234.0, "1234 s")],
)  # fmt: skip
def test_seconds(value: float | None, told: str) -> None:
    assert drawing.seconds(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "-"), (0.0, "0%"), (0.00012, "0.012%"), (0.0134, "1.3%"), (0.5, "50%"), (1.0, "100%")],
)
def test_shares(value: float | None, told: str) -> None:
    assert drawing.share(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.00012, "<0.01"), (0.25, "0.25"), (12.34, "12"), (123.4, "123"),
     (9999.0, "9999"), (12_345.0, "12.3k"),
     (2.5e6, "2.5M"), (3e9, "3G")],
)  # fmt: skip
def test_amounts(value: float, told: str) -> None:
    assert drawing.amount(value) == told


def test_a_gauge_keeps_its_width() -> None:
    assert drawing.gauge(0.3, 10) == "███░░░░░░░"
    assert drawing.gauge(-1.0, 4) == "░░░░"
    assert drawing.gauge(7.0, 4) == "████"
