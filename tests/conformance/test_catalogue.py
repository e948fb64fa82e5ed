"""What holds for every check."""

import re
from collections import Counter

import pytest

from modelyard.conformance.check import Check
from modelyard.conformance.checks.catalogue import CHECKS
from modelyard.conformance.target import GIVEN_BY

NAME = re.compile(r"[a-z]+/[a-z0-9]+([-.][a-z0-9]+)*")


def test_names_are_unique() -> None:
    twice = [name for name, count in Counter(check.name for check in CHECKS).items() if count > 1]

    assert twice == []


def test_there_are_checks_of_all_themes() -> None:
    themes = {check.theme for check in CHECKS}

    assert themes >= {
        "leaving", "streaming", "truncation", "failover", "timeouts", "breakers", "drain",
        "errors", "parsing", "limits", "caching",
    }  # fmt: skip
    assert len(CHECKS) >= 100


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_is_well_described(check: Check) -> None:
    assert NAME.fullmatch(check.name)
    assert len(check.name.partition("/")[2]) <= 26, "the table has 80 columns"
    assert "\n" not in check.meaning
    assert 10 <= len(check.meaning) <= 100
    assert not check.meaning.endswith(".")
    assert set(check.needs) <= set(GIVEN_BY)
    assert check.deadline_s <= 120


def test_only_the_last_checks_end_the_gateway() -> None:
    assert [check.name for check in CHECKS if check.last] == ["drain/sigterm"]
    assert all("pid" in check.needs for check in CHECKS if check.last)
