"""Three ways to put another version before the same users: ours, a restart, nginx's reload."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.peers.nginx import NGINX
from tests.soak._load import STEP_S
from tests.soak._yard import NAME, Process, Yard, free_port, until

SLOW_START_S = 1.0
"""What the engines take to load, beside their process's own start."""
_SETTLE_S = 0.3
"""An operator's pause after a reload, before the old engine is asked whether it is idle."""
_NGINX = """\
daemon off;
worker_processes 2;
pid {place}/nginx.pid;
error_log {place}/error.log warn;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  upstream model {{ server 127.0.0.1:{engine}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""
_GATEWAY = """\
listen: 127.0.0.1:{port}
models:
  - name: {name}
    upstreams:
      - url: http://127.0.0.1:{engine}
    probing: {{path: /health, interval_s: 0.5}}
"""


class Way(Protocol):
    """A service with a version that can be changed."""

    url: str

    def switch(self, number: int) -> None:
        """Put the version of this number (1 or 2) in place; returns when that is over."""


class BlueGreen:
    """`modelyard deploy`, through a controller and a gateway that follows it."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self.url = yard.gateway_urls[0]

    def switch(self, number: int) -> None:
        slow = ("--slow-start-s", str(SLOW_START_S))
        view = self._yard.until_over(self._yard.deploy(number, extra=slow))
        if view.phase != "done":
            raise RuntimeError(f"{view.id} went back: {view.reason}")


class Restart:
    """The engine is stopped and the new one started on its port, before a gateway of ours."""

    def __init__(self, folder: Path) -> None:
        self._port, port = free_port(), free_port()
        self._engine = _engine(self._port, 1, folder)
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "gateway.yaml"
        config.write_text(_GATEWAY.format(port=port, engine=self._port, name=NAME))
        argv = [sys.executable, "-m", "modelyard.gateway.main", "--home", str(folder / "home"),
                "--config", str(config)]  # fmt: skip
        self._folder = folder
        self._gateway = Process(argv, folder / "gateway.log")
        self._gateway.start()

    def switch(self, number: int) -> None:
        self._engine.end(signal.SIGTERM)  # it finishes what it has, and takes nothing new
        self._engine = _engine(self._port, number, self._folder)

    def close(self) -> None:
        self._gateway.end(signal.SIGKILL)
        self._engine.end(signal.SIGKILL)


class Reload:
    """A new engine beside the old, nginx's configuration changed and reloaded, the old one ended.

    As a careful operator does it: the new one is waited for, the old one is ended when it is idle.
    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder, self._listen = folder, free_port()
        self.url = f"http://127.0.0.1:{self._listen}"
        self._port = free_port()
        self._engine = _engine(self._port, 1, folder)
        self._configure()
        argv = [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e",
                str(folder / "error.log")]  # fmt: skip
        self._nginx = Process(argv, folder / "nginx.log")
        self._nginx.start()
        until(lambda: _answers(f"{self.url}/health"), "nginx answers")

    def switch(self, number: int) -> None:
        old, old_port = self._engine, self._port
        self._port = free_port()
        self._engine = _engine(self._port, number, self._folder)
        self._configure()
        self._nginx.signal(signal.SIGHUP)
        time.sleep(_SETTLE_S)
        until(lambda: _idle(old_port), "the old engine is idle")
        old.end(signal.SIGTERM)

    def _configure(self) -> None:
        text = _NGINX.format(place=self._folder, engine=self._port, port=self._listen)
        (self._folder / "nginx.conf").write_text(text)

    def close(self) -> None:
        self._nginx.end(signal.SIGTERM)
        self._engine.end(signal.SIGKILL)


@contextmanager
def blue_green(folder: Path) -> Iterator[Way]:
    """A yard, its first version live."""
    yard = Yard(folder, gateways=1)
    try:
        yard.gateways_follow()
        way = BlueGreen(yard)
        way.switch(1)
        yield way
    finally:
        yard.close()


@contextmanager
def restart(folder: Path) -> Iterator[Way]:
    """A gateway by file and one engine."""
    with contextlib.closing(Restart(folder)) as way:
        until(lambda: _answers(f"{way.url}/ready"), "the gateway answers")
        yield way


@contextmanager
def nginx(folder: Path) -> Iterator[Way]:
    """Debian's nginx and one engine."""
    with contextlib.closing(Reload(folder, program_of(CACHE))) as way:
        yield way


CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard" / "peers"


def program_of(cache: Path) -> Path:
    """nginx, unpacked into the cache if it is not there."""
    NGINX.install(cache)
    return cache / "nginx" / "usr" / "sbin" / "nginx"


def _engine(port: int, number: int, folder: Path) -> Process:
    """A fake engine that is ready to answer."""
    argv = [sys.executable, "-m", "modelyard.engines.fake", "--port", str(port), "--parallel", "64",
            "--step-base-s", str(STEP_S), "--fingerprint", f"fp_{number}",
            "--slow-start-s", str(SLOW_START_S)]  # fmt: skip
    process = Process(argv, folder / f"engine-{port}.log")
    process.start()
    until(lambda: _answers(f"http://127.0.0.1:{port}/health"), "the engine is ready")
    return process


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - a loopback URL
        return bool(reply.status == 200)
    return False


def _idle(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/control/state"
    with urllib.request.urlopen(url, timeout=5) as reply:
        return b'"running":0' in reply.read().replace(b" ", b"")


def version_of(program: Path) -> str:
    """What nginx says of itself."""
    done = subprocess.run([program, "-v"], check=True, stderr=subprocess.PIPE, text=True)
    return done.stderr.strip().rpartition("/")[2]
