"""A seeded small share of each long proof; the whole of it: `scripts/soak NAME`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("abandoned_streams", 60),
        ("registry", 200),
        ("formats", 20_000),
        ("deploy", 2),
        ("deploy_faults", 2),
    ],
)
def test_a_share_of_the_proof_holds(name: str, count: int) -> None:
    """In a process of its own: a proof may bound the memory that its process gets."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.soak.{name}", "--count", str(count), "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "holds" in done.stderr
