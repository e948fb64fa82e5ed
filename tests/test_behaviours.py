"""docs/behaviours.md names a test for each promise; here each of them is looked up."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "behaviours.md"
ROOMS_OF_PROMISES = "GRDEOQSA"
REQUIRED = {"G1", "G3", "G10", "G13", "G20", "G23", "R1", "R6", "E1", "S8"}
ROW = re.compile(r"^\| (?P<id>\w+) \| (?P<promise>.+?) \| (?P<tests>.+?) \|$")
TEST = re.compile(r"`(?P<path>tests/[\w./-]+\.py)::(?P<name>test_\w+)`")


class Row(NamedTuple):
    """One promise."""

    id: str
    promise: str
    tests: list[tuple[str, str]]


def rows() -> list[Row]:
    """The promises, in the order of the document."""
    found = []
    for line in DOCUMENT.read_text().splitlines():
        match = ROW.match(line)
        if match and re.fullmatch(rf"[{ROOMS_OF_PROMISES}]\d+", match["id"]):
            tests = [(test["path"], test["name"]) for test in TEST.finditer(match["tests"])]
            found.append(Row(match["id"], match["promise"], tests))
    return found


def _order(promise: str) -> tuple[int, int]:
    return ROOMS_OF_PROMISES.index(promise[0]), int(promise[1:])


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(), str(path))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_a_promise_has_its_tests(row: Row) -> None:
    assert row.tests, f"{row.id} names no test as `tests/…/test_x.py::test_name`"
    for path, name in row.tests:
        assert (ROOT / path).is_file(), f"{row.id} names {path}, which is not there"
        assert name in _tests_in(ROOT / path), f"{row.id}: there is no {name} in {path}"


def test_the_promises_are_in_order_and_listed_once() -> None:
    ids = [row.id for row in rows()]

    assert ids == sorted(set(ids), key=_order)


def test_every_row_of_the_table_is_understood() -> None:
    lines = [
        line
        for line in DOCUMENT.read_text().splitlines()
        if re.match(rf"^\|\s*[{ROOMS_OF_PROMISES}]\d+", line)
    ]

    assert len(lines) == len(rows())


def test_the_first_promises_are_kept() -> None:
    assert {row.id for row in rows()} >= REQUIRED
