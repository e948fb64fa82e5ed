"""The gateway process: builds the parts, listens, and drains on SIGTERM.

python -m modelyard.gateway.main --home H --listen 127.0.0.1:8000 --controller http://…:8001
"""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import random
import secrets
import signal
import sys
import time
from pathlib import Path

import msgspec
import prometheus_client
import uvloop

from modelyard.core.errors import Conflict, InvalidConfig, ModelyardError, StorageError
from modelyard.core.home import Home
from modelyard.gateway.accounting import Accounting
from modelyard.gateway.admission import Admission
from modelyard.gateway.app import Gateway
from modelyard.gateway.connection import Connection
from modelyard.gateway.dispatch import Dispatcher
from modelyard.gateway.follower import Follower, Link
from modelyard.gateway.request import ConnectionLimits
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.spool import RecordSpool, SpoolPolicy

log = logging.getLogger("modelyard.gateway")

CUT_S = 1.0
"""Time to tell the clients that are cut, in seconds."""


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with."""

    home: Home
    host: str
    port: int
    controller: str
    drain_s: float = 30.0
    """Time that requests in flight get after SIGTERM."""
    when_spool_full: str = "drop"
    max_body_bytes: int = 8 * 1024 * 1024


class Service:
    """One gateway, from its first byte to its last."""

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        identity = secrets.token_hex(6)
        policy = msgspec.convert({"when_full": options.when_spool_full}, SpoolPolicy)
        self._spool = RecordSpool(options.home.gateway / "spool", identity, policy)
        self._link = Link(options.controller, options.home.gateway_token)
        routes = self._routes = RouteTable()
        snapshot_file = options.home.gateway / "snapshot.json"
        self.follower = Follower(identity, self._link, routes, self._spool, snapshot_file)
        self.accounting = Accounting(identity, routes, self._spool)
        self.gateway = Gateway(
            routes,
            Admission(routes, self._spool),
            Dispatcher(routes, random.Random()),  # noqa: S311 - spreads load, guards nothing
            self.accounting,
            self.follower,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain. Raises Conflict when the port is taken."""
        try:
            self._spool.open()
        except OSError as error:
            raise StorageError(
                f"the gateway can't keep records under {self._options.home.gateway}: "
                f"{error.strerror}",
                next_step="make the home writable, or choose another with --home",
            ) from None
        self.follower.load()
        server = await self._listen()
        self._write_run_record()
        following = asyncio.create_task(self.follower.run())
        log.info("listening on %s", self.follower.url)
        try:
            await stop.wait()
            server.close()
            await self._drain()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            self._spool.flush()
            self._link.close()
            self._routes.close()
            (self._options.home.run / "gateway.json").unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        host, port = self._options.host, self._options.port
        limits = ConnectionLimits(max_body_bytes=self._options.max_body_bytes)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Connection(self.gateway, limits), host, port, backlog=4096
            )
        except OSError as error:
            raise Conflict(
                f"the gateway can't listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                next_step="choose another port with --gateway-port, or end what listens there",
            ) from None
        bound = server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.follower.url = f"http://{shown}:{bound}"
        return server

    def _write_run_record(self) -> None:
        run = self._options.home.run
        run.mkdir(parents=True, exist_ok=True)
        record = {"pid": os.getpid(), "url": self.follower.url, "started_at": time.time()}
        partial = run / "gateway.json.part"
        partial.write_text(json.dumps(record))
        partial.rename(run / "gateway.json")

    async def _drain(self) -> None:
        """Finish what is in flight until the deadline, cut the rest with an error (G21)."""
        self.follower.draining = True
        ended = self.accounting.ended
        log.info("draining: %d requests in flight", len(self.accounting.open))
        for connection in list(self.gateway.connections):
            connection.close_when_idle()
        await self.gateway.until_quiet(self._options.drain_s)
        finished, cut = self.accounting.ended - ended, len(self.accounting.open)
        for connection in list(self.gateway.connections):
            connection.interrupt()
        await self.gateway.until_quiet(CUT_S)
        log.info("drained: %d requests finished, %d cut", finished, cut)


def parse(argv: list[str]) -> GatewayOptions:
    """Parse the command line; raise InvalidConfig for an address that is not allowed."""
    parser = argparse.ArgumentParser(prog="modelyard-gateway", description=__doc__)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--listen", default="127.0.0.1:8000", help="HOST:PORT")
    parser.add_argument("--controller", default="http://127.0.0.1:8001", help="URL")
    parser.add_argument("--drain-s", type=float, default=30.0)
    parser.add_argument("--when-spool-full", choices=("refuse", "drop"), default="drop")
    parser.add_argument("--max-body-bytes", type=int, default=8 * 1024 * 1024)
    args = parser.parse_args(argv)
    host, _, port = args.listen.rpartition(":")
    host = host.strip("[]")
    if not _is_port(port) or not _is_loopback(host):
        raise InvalidConfig(
            f"the gateway can't be bound to {args.listen!r}",
            next_step="give a loopback address, such as 127.0.0.1:8000; "
            "other addresses are refused while no API key exists",
        )
    return GatewayOptions(
        home=Home(args.home),
        host=host,
        port=int(port),
        controller=args.controller,
        drain_s=args.drain_s,
        when_spool_full=args.when_spool_full,
        max_body_bytes=args.max_body_bytes,
    )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 1 << 16


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _serve(options: GatewayOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Service(options).run(stop)


def main(argv: list[str] | None = None) -> int:
    """Run the process; return its exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    # A second series for every counter is nothing that anybody asked for.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        uvloop.run(_serve(parse(sys.argv[1:] if argv is None else argv)))
    except ModelyardError as error:
        sys.stderr.write(f"error: {error.message}\nnext: {error.next_step}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
