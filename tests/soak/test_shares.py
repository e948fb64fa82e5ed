"""A seeded small share of each long proof; the whole of it: `scripts/soak NAME`."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("name", "count"), [("abandoned_streams", 60), ("registry", 200), ("formats", 20_000)]
)
def test_a_share_of_the_proof_holds(name: str, count: int) -> None:
    proof = importlib.import_module(f"tests.soak.{name}")

    assert proof.main(["--count", str(count), "--seed", "1"]) == 0
