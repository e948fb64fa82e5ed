"""What gateway benchmarks stand on: nginx as an upstream that answers at once, and wrk."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.peers.processes import HOST, free_port, started

ANSWER = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello there, how can I help you today?"},'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
QUESTION = '{"model":"m","messages":[{"role":"user","content":"Hello, how are you?"}]}'
MODEL = "m"
_NGINX = """\
daemon off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  server {{ listen {host}:{port}; location / {{ return 200 '{answer}'; }} }}
}}
"""
_WRK = """\
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{body}'
{headers}
"""


def pinned(core: int, *argv: object) -> list[str]:
    """The command on one processor core."""
    return ["taskset", "-c", str(core), *map(str, argv)]


def program(name: str, package: str) -> str:
    """Where a program is; RuntimeError with the package that has it when it is not."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {package}")
    return found


@contextlib.contextmanager
def canned_upstream(place: Path, core: int) -> Iterator[str]:
    """nginx, answering every request with the same completion; its URL."""
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = place / "nginx.conf"
    config.write_text(_NGINX.format(place=place, host=HOST, port=port, answer=ANSWER))
    argv = pinned(core, program("nginx", "nginx"), "-p", place, "-c", config, "-e",
                  place / "error.log")  # fmt: skip
    with started(argv, log=place / "log", env=os.environ, cwd=place) as server:
        server.until_answers(f"http://{HOST}:{port}/", {})
        yield f"http://{HOST}:{port}"


def requests_per_s(
    url: str, place: Path, core: int, seconds: float, connections: int = 32,
    headers: Sequence[tuple[str, str]] = (), body: str = QUESTION,
) -> float:  # fmt: skip
    """Requests per second that wrk gets answered, back to back on so many connections.

    Raises RuntimeError when any answer was not 2xx, or a connection failed.
    """
    script = place / "post.lua"
    told = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers)
    script.write_text(_WRK.format(body=body, headers=told))
    argv = pinned(core, program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s",
                  "--timeout", "20s", "-s", script, f"{url}/v1/chat/completions")  # fmt: skip
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    wrong = re.search(r"Non-2xx.*|Socket errors.*", done.stdout)
    if wrong is not None:
        raise RuntimeError(f"wrk at {url}: {wrong.group()}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1))
