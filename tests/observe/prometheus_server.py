"""A real Prometheus, in a process of its own."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.engines.llamacpp_replica import free_port

DEADLINE_S = 60.0


@contextlib.contextmanager
def prometheus(folder: Path, config: dict[str, Any]) -> Iterator[httpx.Client]:
    """One that scrapes and evaluates as `config` says; a client of its API."""
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
    try:
        end = time.monotonic() + DEADLINE_S
        while not _is_ready(client):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < end, "Prometheus is not ready in time"
            time.sleep(0.05)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(DEADLINE_S)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
