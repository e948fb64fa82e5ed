"""docs/conformance.md lists the checks as they are, and names every option."""

import subprocess
import sys
from pathlib import Path

from modelyard.conformance.target import GIVEN_BY

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_of_checks_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "conformance_list.py")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_every_option_is_told() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()

    for need, told in GIVEN_BY.items():
        option = told.partition(",")[0].partition(" ")[0]
        assert option in text, f"{need} is given by {option}"
