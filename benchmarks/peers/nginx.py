"""nginx from Debian's package, unpacked into the cache: no service is installed or started.

It is an HTTP server that reads no bodies, and no gateway for models; it is here to show how far
plain HTTP goes.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.peer import NOT_MODELYARD, Peer, Running
from benchmarks.peers.processes import HOST, free_port, started, written

from modelyard.conformance.target import Target
from modelyard.conformance.yard import EngineProcess

TEMPLATE = Path(__file__).with_name("nginx.conf")
READ_TIMEOUT_S = 3.0
MODEL = "fake"
"""What the engines call their model: /v1/models is theirs."""
MAX_BODY_BYTES = 2 * 1024 * 1024
_BODIES = "reads no bodies (ngx_http_proxy_module): what is in them, the engine decides"


def _program(cache: Path) -> Path:
    return cache / "nginx" / "usr" / "sbin" / "nginx"


def _install(cache: Path) -> str:
    program = _program(cache)
    if not program.exists():
        folder = cache / "nginx"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", "nginx"], check=True, cwd=folder)
        package = max(folder.glob("nginx_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    done = subprocess.run([program, "-v"], check=True, stderr=subprocess.PIPE, text=True)
    return done.stderr.strip().rpartition("/")[2]


@contextmanager
def _start(cache: Path, place: Path, engines: Sequence[EngineProcess]) -> Iterator[Running]:
    port = free_port()
    a, b = (urlsplit(engine.url).netloc for engine in engines[:2])
    values = {
        "place": place,
        "host": HOST,
        "port": port,
        "a": a,
        "b": b,
        "max_body_bytes": MAX_BODY_BYTES,
        "read_timeout_s": f"{READ_TIMEOUT_S:g}s",
    }
    config = written(TEMPLATE, place / "nginx.conf", values)
    argv = [_program(cache), "-p", place, "-c", config, "-e", place / "error.log"]
    with started(argv, log=place / "log", env=os.environ, cwd=place) as server:
        server.until_answers(f"http://{HOST}:{port}/health", {})
        target = Target(
            url=f"http://{HOST}:{port}",
            model=MODEL,
            engines=tuple(engine.url for engine in engines),
            first_token_s=READ_TIMEOUT_S,
            gap_s=READ_TIMEOUT_S,
            max_body_bytes=MAX_BODY_BYTES,
        )
        yield Running(target, server.exit_code)


NGINX = Peer(
    name="nginx",
    configs=("benchmarks/peers/nginx.conf",),
    install=_install,
    start=_start,
    not_claimed={
        **NOT_MODELYARD,
        "keys": "knows no keys of an API; auth_basic and auth_request are something else",
        "limits": "limit_req and limit_conn count by address, not by key or token",
        "caching": "proxy_cache goes by the URL, not by what is asked in the body",
        "fallbacks": _BODIES,
        "drain/sigterm": "SIGTERM is its fast shutdown, SIGQUIT the graceful one (nginx(8))",
        "timeouts/total*": "has timeouts between reads only (proxy_read_timeout)",
        "errors/malformed-json": _BODIES,
        "errors/not-an-object": _BODIES,
        "errors/unknown-model": _BODIES,
        "errors/missing-model": _BODIES,
        "errors/wrong-types": _BODIES,
        "errors/engines-failure": _BODIES,
        "http/after-errors": _BODIES,
        "routing/model-page": _BODIES,
        "truncation/connection-after": _BODIES,
        "truncation/page-as-*": _BODIES,
        "truncation/error-event": _BODIES,
    },
)
