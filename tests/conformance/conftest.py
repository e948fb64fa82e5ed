"""Fixtures: fake engines that all tests of this folder share."""

from collections.abc import Iterator

import pytest

from modelyard.conformance.yard import EngineProcess, running_engines


@pytest.fixture(scope="session")
def engines() -> Iterator[list[EngineProcess]]:
    """Engines A, B and C as the suite starts them; the runner clears them before each check."""
    with running_engines() as started:
        yield started
