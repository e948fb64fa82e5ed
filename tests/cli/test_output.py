"""How numbers are said."""

import pytest

from modelyard.cli.output import age, human_bytes, human_count, short_digest


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (5_300_000, "5.3 MB"),
        (15e9, "15.0 GB"),
        (2e12, "2.0 TB"),
    ],
)
def test_sizes(size: float, said: str) -> None:
    assert human_bytes(size) == said


@pytest.mark.parametrize(
    ("number", "said"), [(12, "12"), (1_312_768, "1.31M"), (7_000_000_000, "7B"), (5_000, "5k")]
)
def test_counts(number: int, said: str) -> None:
    assert human_count(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (172800, "2d")]
)
def test_ages(seconds: float, said: str) -> None:
    assert age(seconds) == said


def test_a_short_digest_keeps_its_prefix() -> None:
    assert short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"
