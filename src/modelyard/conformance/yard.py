"""What `modelyard conformance self` tests: fake engines and a stand-alone gateway, as processes.

The gateway's configuration gives every need of target.py; the engines alone are what a gateway of
another make is put before.
"""

import contextlib
import hashlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from modelyard.conformance.target import LIMIT_KINDS, LimitedKey, LimitKind, Target
from modelyard.core.errors import LaunchFailed

ENGINE_NAMES = ("A", "B", "C")
DEFAULT_PORTS = (9401, 9402, 9403)
DEFAULT_MODEL = "yard-m"
SINGLE_MODEL = "yard-single"
CACHED_MODEL = "yard-cached"
FALLBACK_MODEL = "yard-fallback"
FORBIDDEN_MODEL = "yard-forbidden"
OPEN_MODELS = (DEFAULT_MODEL, SINGLE_MODEL, CACHED_MODEL, FALLBACK_MODEL)

TOKEN_S = 0.005
"""Time that an engine takes for a token."""
SLOTS = 16
"""Requests that an engine works on at once."""
FIRST_TOKEN_S = 1.0
GAP_S = 1.0
TOTAL_S = 3.0
MAX_BODY_BYTES = 2 * 1024 * 1024
LIMITS: dict[LimitKind, int] = {
    "requests_per_min": 5,
    "tokens_per_min": 1000,
    "concurrent_requests": 3,
}
KEYS_PER_LIMIT = 6
"""So many that no check waits for a minute to pass."""
START_S = 30.0
STOP_S = 15.0
_LOOK_EVERY_S = 0.02


class EngineProcess:
    """A fake engine that runs."""

    def __init__(self, name: str, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.url = url
        self.pid = process.pid
        self._process = process

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()


@contextlib.contextmanager
def running_engines(ports: Sequence[int] = (0, 0, 0)) -> Iterator[list[EngineProcess]]:
    """Engines A, B and C, ended at the end; port 0 is a free one.

    Raises LaunchFailed when one does not start.
    """
    with contextlib.ExitStack() as stack:
        yield [
            _start_engine(stack, name, port) for name, port in zip(ENGINE_NAMES, ports, strict=True)
        ]


class GatewayProcess:
    """Modelyard's own gateway before three engines, in a folder that goes with it."""

    def __init__(self, process: "subprocess.Popen[bytes]", target: Target) -> None:
        self._process = process
        self.target = target

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()


@contextlib.contextmanager
def running_gateway(engines: Sequence[EngineProcess]) -> Iterator[GatewayProcess]:
    """A gateway whose configuration gives all that a check may need; ended at the end.

    Raises LaunchFailed when it does not start.
    """
    with TemporaryDirectory(prefix="modelyard-conformance-") as folder, contextlib.ExitStack() as s:
        place = Path(folder)
        target = planned_target([engine.url for engine in engines])
        file = place / "gateway.yaml"
        file.write_text(json.dumps(gateway_config(target), indent=1))  # JSON is YAML
        log = s.enter_context((place / "log").open("wb"))
        argv = [sys.executable, "-m", "modelyard.gateway.main"]
        argv += ["--home", str(place / "home"), "--config", str(file)]
        process = s.enter_context(_ended(_spawn(argv, stdout=log, stderr=log)))
        url = _until_listening(process, place)
        yield GatewayProcess(process, msgspec.structs.replace(target, url=url, pid=process.pid))


def planned_target(engines: Sequence[str]) -> Target:
    """What will be known of the gateway, but for its URL and process."""
    limited = tuple(
        LimitedKey(_secret(), {kind: LIMITS[kind]})
        for kind in LIMIT_KINDS
        for _ in range(KEYS_PER_LIMIT)
    )
    return Target(
        url="",
        model=DEFAULT_MODEL,
        engines=tuple(engines),
        key=_secret(),
        single_model=SINGLE_MODEL,
        cached_model=CACHED_MODEL,
        fallback_model=FALLBACK_MODEL,
        forbidden_model=FORBIDDEN_MODEL,
        other_tenant_key=_secret(),
        limited_keys=limited,
        first_token_s=FIRST_TOKEN_S,
        gap_s=GAP_S,
        total_s=TOTAL_S,
        max_body_bytes=MAX_BODY_BYTES,
        headers="modelyard",
    )


def gateway_config(target: Target) -> dict[str, Any]:
    """The gateway's configuration file (docs/gateway.reference.yaml)."""
    a, b, c = ({"url": url} for url in target.engines)
    rest = {"breaking": {"open_s": 0.5, "max_open_s": 1.0}}
    short = {"first_token_s": FIRST_TOKEN_S, "gap_s": GAP_S, "total_s": TOTAL_S}
    keys = [_key("main", "one", target.key), _key("other", "two", target.other_tenant_key)]
    keys += [
        _key(f"limited-{number}", "limited", each.key, limits=dict(each.limits))
        for number, each in enumerate(target.limited_keys)
    ]
    return {
        "listen": "127.0.0.1:0",
        "state_dir": "state",
        "max_body_bytes": MAX_BODY_BYTES,
        "drain_s": 10.0,
        "models": [
            {"name": DEFAULT_MODEL, "upstreams": [a, b], **rest},
            {"name": SINGLE_MODEL, "upstreams": [c], "timeouts": short, **rest},
            {
                "name": CACHED_MODEL,
                "upstreams": [a, b],
                "caching": {"mode": "deterministic", "single_flight": True},
                **rest,
            },
            {"name": FALLBACK_MODEL, "upstreams": [c], "fallbacks": [DEFAULT_MODEL], **rest},
            {"name": FORBIDDEN_MODEL, "upstreams": [c], **rest},
        ],
        "tenants": [{"name": name} for name in ("one", "two", "limited")],
        "keys": keys,
    }


def _key(key_id: str, tenant: str, secret: str | None, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(str(secret).encode()).hexdigest()
    return {"id": key_id, "tenant": tenant, "sha256": digest, "models": OPEN_MODELS, **more}


def _secret() -> str:
    return "sk-" + secrets.token_hex(16)


def _start_engine(stack: contextlib.ExitStack, name: str, port: int) -> EngineProcess:
    argv = [sys.executable, "-m", "modelyard.engines.fake", "--port", str(port)]
    argv += ["--step-base-s", str(TOKEN_S), "--parallel", str(SLOTS), "--drain-s", "0"]
    process = stack.enter_context(
        _ended(_spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    )
    line = _first_line(process)
    try:
        url = str(json.loads(line)["url"])
    except (ValueError, KeyError):
        why = b"" if process.stderr is None or process.poll() is None else process.stderr.read()
        raise LaunchFailed(
            f"engine {name} did not start on port {port}: {why.decode(errors='replace').strip()}",
            next_step="give other ports with --port, or 0 for free ones",
        ) from None
    return EngineProcess(name, url, process)


def _spawn(argv: list[str], **streams: Any) -> "subprocess.Popen[bytes]":
    """Its own process group: Ctrl-C is ours, and the order of the end with it."""
    return subprocess.Popen(  # noqa: S603 - our own modules
        argv, stdin=subprocess.DEVNULL, process_group=0, **streams
    )


def _first_line(process: "subprocess.Popen[bytes]") -> bytes:
    """What it says when it listens; empty when it ended or said nothing for too long."""
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        return b"" if process.stdout is None else process.stdout.readline()
    finally:
        timer.cancel()


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """End a process with the block, gently at first."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _until_listening(process: "subprocess.Popen[bytes]", place: Path) -> str:
    """The gateway's URL, from the record that it leaves when it listens."""
    record = place / "state" / "run" / "gateway.json"
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return str(json.loads(record.read_text())["url"])
        time.sleep(_LOOK_EVERY_S)
    said = (place / "log").read_text(errors="replace").strip().splitlines()
    raise LaunchFailed(
        f"the gateway did not start: {said[-1] if said else 'it said nothing'}",
        next_step="run it by itself: modelyard gateway --config FILE",
    )
