"""A real llama.cpp worker for tests, started as the launcher would."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from modelyard.engines.engine import EngineLaunch
from modelyard.engines.llamacpp import LlamaCpp

DEADLINE_S = 30.0


class Worker(msgspec.Struct):
    """A started worker and a client of it."""

    process: subprocess.Popen[str]
    http: httpx.Client
    port: int

    def busy(self) -> int:
        """Slots at work."""
        return sum(slot["is_processing"] for slot in self.http.get("/slots").json())


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    look: Callable[[], bool], deadline_s: float = DEADLINE_S, *, every_s: float = 0.01
) -> None:
    """Wait until `look` is true."""
    end = time.monotonic() + deadline_s
    while not look():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(every_s)


def spawn(model: Path, port: int, *extra: str, parallel: int = 2) -> subprocess.Popen[str]:
    """Start a worker; its words come by `stderr`."""
    launch = EngineLaunch(
        model_path=str(model),
        served_name="tiny",
        host="127.0.0.1",
        port=port,
        parallel=parallel,
        drain_s=20.0,
        extra_args=extra,
    )
    argv = LlamaCpp().command(launch).argv
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


@contextmanager
def worker(model: Path, *extra: str, parallel: int = 2) -> Iterator[Worker]:
    """A worker that serves: its weights are loaded, and a SIGTERM lets it drain; ended afterwards.

    The C++ side answers a moment before the signals are taken.
    """
    port = free_port()
    process = spawn(model, port, *extra, parallel=parallel)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)

    def loaded() -> bool:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            return client.get("/health").status_code == 200 and _takes_sigterm(process.pid)
        except httpx.TransportError:
            return False

    try:
        until(loaded)
        yield Worker(process=process, http=client, port=port)
    finally:
        client.close()
        process.kill()
        process.communicate()


def _takes_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it (proc_pid_status(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
