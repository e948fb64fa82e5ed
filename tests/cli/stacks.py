"""A real `modelyard up` in a home of its own, for tests of commands that need one."""

import contextlib
import importlib.resources
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from modelyard.core.home import Home
from modelyard.registry.registry import Registry


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_stack(root: Path, name: str, *flags: str) -> Iterator[str]:
    """`modelyard up` on `root`, with yardling registered as `name`; the gateway's URL."""
    packaged = importlib.resources.files("modelyard.demo") / "yardling" / "1"
    with importlib.resources.as_file(packaged) as weights:
        Registry(Home(root)).register(name, weights)
    port = free_port()
    arguments = ["up", "--home", root, "--gateway-port", port, "--port", free_port(), *flags]
    with (root / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli.main", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while "Ctrl-C ends" not in (said := (root / "up.log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
