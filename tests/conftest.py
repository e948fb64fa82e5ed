"""Fixtures that every room's tests share."""

import os
import signal
import socket
from pathlib import Path

import pytest
from tests.launchers.daemon import containers, docker_api, worker_image  # noqa: F401 - fixtures
from tests.services import MISSING

from modelyard.core.home import Home


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, where whoever started us ignores it (a shell's `&`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.service(name)`: skip where it is absent; under CI=true that is a failure."""
    for marker in item.iter_markers("service"):
        why = MISSING[marker.args[0]]()
        if why and os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        if why:
            pytest.skip(why)


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
