"""The gateway process: builds the parts, listens, and drains on SIGTERM.

python -m modelyard.gateway.main --home H --listen 127.0.0.1:8000 --controller http://…:8001
python -m modelyard.gateway.main --home H --config gateway.yaml
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from modelyard.core.errors import Conflict, InvalidConfig, ModelyardError, StorageError
from modelyard.core.metrics import gateway as metrics
from modelyard.core.spans import Sampler
from modelyard.gateway import collecting
from modelyard.gateway.accounting import Accounting
from modelyard.gateway.admin import Admin
from modelyard.gateway.admission import Admission
from modelyard.gateway.app import Gateway
from modelyard.gateway.attempts import Attempts
from modelyard.gateway.cache import AnswerCache
from modelyard.gateway.configured import Configured
from modelyard.gateway.connection import Connection
from modelyard.gateway.context import ContextFitter
from modelyard.gateway.counters import Counters
from modelyard.gateway.dispatch import Dispatcher
from modelyard.gateway.estimates import Estimates
from modelyard.gateway.explanations import Explanations
from modelyard.gateway.filesource import FileSource
from modelyard.gateway.follower import Follower, Link
from modelyard.gateway.keys import KeyTable
from modelyard.gateway.limits import LimitBook, SteadyClock
from modelyard.gateway.meters import Meters
from modelyard.gateway.options import GatewayOptions, is_loopback, parse
from modelyard.gateway.placing import Placer
from modelyard.gateway.probing import Prober
from modelyard.gateway.records import Heard, LogBooks, RecordLog
from modelyard.gateway.request import ConnectionLimits
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.shadowing import MAX_ANSWER_BYTES, Shadowing
from modelyard.gateway.spool import RecordSink, RecordSpool, SpoolPolicy
from modelyard.gateway.standing import Standing
from modelyard.gateway.tls import server_context
from modelyard.gateway.tokens import make_token, read_token
from modelyard.gateway.tracing import Relayed, Tracer
from modelyard.observe.prometheus import one

if TYPE_CHECKING:
    from modelyard.observe.otlp import SpanExporter

log = logging.getLogger("modelyard.gateway")

FIRST_KEYS_S = 10.0
LAST_SPANS_S = 1.0
"""Time to send the last spans, in seconds."""
CUT_S = 1.0
"""Time to tell the clients that are cut, in seconds."""
_NAMED = 8
"""Models that are named at the start."""


class Service:
    """One gateway, from its first byte to its last."""

    def __init__(
        self,
        options: GatewayOptions,
        file: Path | None = None,
        configured: Configured | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """With a `file`, and what was read of it, it stands alone."""
        self._options = options
        self._folder = folder = options.home.gateway
        identity = secrets.token_hex(6)
        draws = random.Random()  # noqa: S311 - spreads load, guards nothing
        self.standing = Standing()
        self._routes = routes = RouteTable()
        self._keys = keys = KeyTable(
            None if file is not None else folder / "keys.json", self._token
        )
        self._counters = Counters(folder / "counters")
        self._clock = SteadyClock()
        estimates = Estimates()
        explanations = Explanations(options.explain_last)
        cache = AnswerCache(options.cache)
        self._requests = RecordLog(folder, options.request_log)
        self._spool: RecordSpool | None = None
        self._link: Link | None = None
        self._spans: SpanExporter | None = None
        self.follower: Follower | None = None
        self.source: FileSource | None = None
        if file is None or configured is None:
            policy = msgspec.convert({"when_full": options.when_spool_full}, SpoolPolicy)
            self._spool = RecordSpool(folder / "spool", identity, policy)
            self._books: RecordSink = self._spool
            self._link = Link(options.controller, options.home.gateway_token)
            self.follower = Follower(
                identity, self._link, routes, keys, self._spool, folder / "snapshot.json",
                self.standing,
            )  # fmt: skip
        else:
            self._books = LogBooks(self._requests)
            self.source = FileSource(file, environment, routes, keys, self.standing)
            self._configured = configured
        book = LimitBook(self._counters, self._clock)
        tracing = self._tracing(identity)
        admission = Admission(routes, keys, book, estimates, self._books, tracing)
        placer = Placer(routes, draws)
        meters = Meters(routes, self._books, cache, placer.room)
        self.accounting = Accounting(identity, self._books, meters, estimates, explanations)
        if self._requests.kept:
            self.accounting.listeners.append(self._requests.ended)
            meters.add(one(metrics.REQUEST_LOG_DROPPED, lambda: self._requests.dropped))
        if isinstance(tracing, Tracer):
            self.accounting.listeners.append(tracing.ended)
            meters.add(tracing.reading())
        self._shadowing = Shadowing(
            Attempts(routes, placer, draws),
            Attempts(routes, placer, draws, MAX_ANSWER_BYTES),
            routes,
            placer.room,
            self.accounting,
            lambda: self._books.waiting,
        )
        fitter = ContextFitter(routes, estimates)
        dispatcher = Dispatcher(routes, admission, self._shadowing, fitter, cache, draws)
        self.gateway = Gateway(
            routes,
            admission,
            Heard(dispatcher) if self._requests.content else dispatcher,
            self.accounting,
            meters,
            self.standing,
            Admin(self._token, routes, explanations, keys, book, self._metrics_token),
        )
        self._prober = Prober(routes)

    def _tracing(self, identity: str) -> Relayed | Tracer:
        """What is done about traces. The exporter is loaded where it is used alone."""
        collector = self._options.collector
        if collector is None:
            return Relayed()
        from modelyard.observe.otlp import SpanExporter

        self._spans = SpanExporter(collector, identity)
        return Tracer(Sampler(collector.sample), self._spans, self.standing)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain. Raises Conflict when the port is taken."""
        try:
            certificate = self._load()
            if self.follower is not None and not is_loopback(self._options.host):
                await self.follower.first_keys(FIRST_KEYS_S)
            self._open_counters()
            server = await self._listen(certificate)
            self._write_run_record()
            if self._spans is not None:
                self._spans.start()
            tasks = [asyncio.create_task(work) for work in self._background()]
            log.info("listening on %s", self.standing.url)
            if self.source is not None:
                self._announce()
            try:
                await stop.wait()
                server.close()
                await self._drain()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._shadowing.close()
                if self._spool is not None:
                    self._spool.flush()
                self._requests.flush()
                if self._spans is not None:
                    await asyncio.to_thread(self._spans.close, LAST_SPANS_S)
                self._routes.close()
                self._remove_run_record()
        finally:
            if self._link is not None:
                self._link.close()
            self._counters.close()

    def reload(self) -> None:
        """SIGHUP: read the configuration file again now."""
        if self.source is not None:
            self.source.reload.set()

    def _load(self) -> ssl.SSLContext | None:
        """Take over what there is from before; the certificate that clients see."""
        if self.source is not None:
            self.source.load(self._configured)
            return self.source.certificate
        try:
            if self._spool is not None:
                self._spool.open()
        except OSError as error:
            raise StorageError(
                f"the gateway can't keep records under {self._folder}: {error.strerror}",
                next_step="make the home writable, or choose another with --home",
            ) from None
        if self.follower is not None:
            self.follower.load()
        files = self._options.certificate
        return None if files is None else server_context(*files)

    def _open_counters(self) -> None:
        """Take over what was counted; raises Conflict where limits could not be held (G14)."""
        try:
            self._counters.open(int(self._clock()) // 86_400)
        except Conflict as error:
            if self._keys.ring.has_limits:
                raise
            log.warning("%s; a request under a limit will be refused", error.message)

    def _background(self) -> Iterator[Coroutine[Any, Any, None]]:
        if self.follower is not None:
            yield self.follower.run()
        if self.source is not None:
            yield self.source.run()
        yield self._prober.run()
        if self._requests.kept:
            yield self._requests.run()

    async def _listen(self, certificate: ssl.SSLContext | None) -> asyncio.Server:
        host, port = self._options.host, self._options.port
        if not is_loopback(host) and not self._keys.ring.required:
            raise InvalidConfig(
                f"the gateway can't be bound to {host}: others can reach it, and no API key exists",
                next_step="make a key first (modelyard keys create), or listen on a loopback "
                "address, such as 127.0.0.1",
            )
        limits = ConnectionLimits(max_body_bytes=self._options.max_body_bytes)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Connection(self.gateway, limits), host, port, backlog=4096, ssl=certificate
            )
        except OSError as error:
            raise Conflict(
                f"the gateway can't listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                next_step="end what listens there, or choose another port with --gateway-port "
                "(alone: listen in the configuration file)",
            ) from None
        bound = server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.standing.url = f"http{'s' if certificate else ''}://{shown}:{bound}"
        return server

    def _token(self) -> str:
        """What the admin routes are guarded by; a file that only its owner can read."""
        return read_token(self._options.home.gateway_token)

    def _metrics_token(self) -> str:
        """What `/metrics` is guarded by where other machines ask."""
        return read_token(self._options.home.metrics_token)

    def _announce(self) -> None:
        """Say on stdout where a client is pointed to, and what it can ask there."""
        models = [model.name for model in self._configured.settings.models]
        more = f" and {len(models) - _NAMED} more" if len(models) > _NAMED else ""
        key = ", to those who have a key" if self._configured.settings.keys else ""
        url = self.standing.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            sys.stdout.write(f"{url}/v1 serves {', '.join(models[:_NAMED])}{more}{key}\n")
            sys.stdout.flush()

    def _write_run_record(self) -> None:
        run = self._options.home.run
        run.mkdir(parents=True, exist_ok=True)
        record = {"pid": os.getpid(), "url": self.standing.url, "started_at": time.time()}
        partial = run / "gateway.json.part"
        partial.write_text(json.dumps(record))
        partial.rename(run / "gateway.json")

    def _remove_run_record(self) -> None:
        (self._options.home.run / "gateway.json").unlink(missing_ok=True)

    async def _drain(self) -> None:
        """Finish what is in flight until the deadline, cut the rest with an error (G21)."""
        self.standing.draining = True
        await self._shadowing.close()
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


async def _serve(options: GatewayOptions, file: Path | None, found: Configured | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    service = Service(options, file, found)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload if file is not None else stop.set)
    collecting.settle()
    await service.run(stop)


def main(argv: list[str] | None = None) -> int:
    """Run the process; return its exit code."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        options, file, found = parse(sys.argv[1:] if argv is None else argv)
        if file is not None:
            make_token(options.home.gateway_token)
            make_token(options.home.metrics_token)
        uvloop.run(_serve(options, file, found))
    except ModelyardError as error:
        sys.stderr.write(f"error: {error.message}\nnext: {error.next_step}\n")
        return 2 if isinstance(error, InvalidConfig) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
