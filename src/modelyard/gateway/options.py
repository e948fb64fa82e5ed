"""What the gateway process is started with: its command line, or a configuration file."""

import argparse
import contextlib
import ipaddress
import os
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidConfig
from modelyard.core.home import Home
from modelyard.core.telemetry import RequestLogOptions, TelemetryOptions
from modelyard.gateway.cache import CacheBounds
from modelyard.gateway.configured import Configured, address
from modelyard.gateway.filesource import read_config
from modelyard.observe.collectors import Collector, collector_of

_ABOUT = "The gateway process: after a controller's routes, or alone after a file."


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with."""

    home: Home
    host: str
    port: int
    controller: str = ""
    """Whom routes and keys come from; empty: from a configuration file."""
    drain_s: float = 30.0
    """Time that requests in flight get after SIGTERM."""
    when_spool_full: str = "drop"
    max_body_bytes: int = 8 * 1024 * 1024
    explain_last: int = 2000
    cache: CacheBounds = CacheBounds()
    collector: Collector | None = None
    """Where spans go; None: there are none."""
    request_log: RequestLogOptions = RequestLogOptions()
    certificate: tuple[Path, Path] | None = None
    """Certificate and key that clients see; None: plain HTTP."""


def parse(argv: list[str]) -> tuple[GatewayOptions, Path | None, Configured | None]:
    """Parse the command line, and the configuration file that it names; raise InvalidConfig."""
    parser = argparse.ArgumentParser(prog="modelyard-gateway", description=_ABOUT)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--config", type=Path, help="stand alone, with this file")
    parser.add_argument("--listen", help="HOST:PORT")
    parser.add_argument("--controller", default="http://127.0.0.1:8001", help="URL")
    parser.add_argument("--drain-s", type=float, default=30.0)
    parser.add_argument("--when-spool-full", choices=("refuse", "drop"), default="drop")
    parser.add_argument("--max-body-bytes", type=int, default=8 * 1024 * 1024)
    parser.add_argument("--telemetry", help="JSON: traces and request log", default="{}")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    args = parser.parse_args(argv)
    if args.config is not None:
        return _alone(args)
    host, _, port = (args.listen or "127.0.0.1:8000").rpartition(":")
    host = host.strip("[]")
    if not _is_port(port) or not host:
        raise InvalidConfig(
            f"the gateway can't be bound to {args.listen!r}",
            next_step="give a loopback address, such as 127.0.0.1:8000",
        )
    telemetry = msgspec.json.decode(args.telemetry, type=TelemetryOptions)
    options = GatewayOptions(
        home=Home(args.home),
        host=host,
        port=int(port),
        controller=args.controller,
        drain_s=args.drain_s,
        when_spool_full=args.when_spool_full,
        max_body_bytes=args.max_body_bytes,
        collector=collector_of(telemetry.traces),
        request_log=telemetry.request_log,
        certificate=None if args.tls_cert is None else (args.tls_cert, args.tls_key),
    )
    return options, None, None


def _alone(args: argparse.Namespace) -> tuple[GatewayOptions, Path, Configured]:
    found = read_config(args.config, os.environ)
    settings = found.settings
    host, port = found.host, found.port
    if args.listen is not None:
        host, port = address(args.listen)
    folder = args.config.absolute().parent
    state = settings.state_dir
    home = Home(args.home if state is None else folder / Path(state).expanduser())
    options = GatewayOptions(
        home=home,
        host=host,
        port=port,
        drain_s=settings.drain_s,
        max_body_bytes=settings.max_body_bytes,
        explain_last=settings.explain_last,
        cache=settings.cache,
        collector=collector_of(settings.telemetry.traces),
        request_log=settings.records,
    )
    return options, args.config, found


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 1 << 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
