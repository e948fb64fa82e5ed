"""A real `mlflow server` process on a SQLite file of its own."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.services import mlflow_program

_START_S = 90.0


@dataclass(frozen=True)
class MlflowServer:
    """Where it listens, and what it stores into."""

    uri: str
    database: Path


@contextlib.contextmanager
def running_server(folder: Path, port: int) -> Iterator[MlflowServer]:
    """Start it, wait until it answers, and end it with all its processes."""
    database = folder / "mlflow.db"
    command = [
        str(mlflow_program()),
        "server",
        f"--backend-store-uri=sqlite:///{database}",
        f"--artifacts-destination={folder / 'artifacts'}",
        "--host=127.0.0.1",
        f"--port={port}",
        "--workers=1",
    ]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTHON"))},
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_S
        while not _answers(f"{uri}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()[-2000:])
        yield MlflowServer(uri, database)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own process
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        time.sleep(0.05)
        return False
