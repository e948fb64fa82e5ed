"""Fixtures that every room's tests share."""

import socket
from pathlib import Path

import pytest

from modelyard.core.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A temporary Modelyard home; nothing in it yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
