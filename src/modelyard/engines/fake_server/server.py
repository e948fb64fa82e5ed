"""The fake engine in a running event loop: listening, loading, draining."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from modelyard.core.errors import Conflict, NotFound
from modelyard.engines.fake_server.decoding import Decoding
from modelyard.engines.fake_server.faults import ACCEPT, FaultBook
from modelyard.engines.fake_server.generations import Job
from modelyard.engines.fake_server.ledger import Ledger
from modelyard.engines.fake_server.protocol import Connection, Request
from modelyard.engines.fake_server.routes import Routes
from modelyard.engines.fake_server.scheduler import Scheduler
from modelyard.engines.fake_server.settings import Settings

_BACKLOG = 4096


def end_process(code: int) -> None:
    """What a scripted crash does: no clean-up, no flush."""
    os._exit(code)


class FakeServer:
    """One fake engine.

    In tests: `server = FakeServer(Settings())`, `await server.start()`, `server.url`,
    `await server.stop()`; give `crash` there, or a scripted crash ends the test's own process.
    """

    def __init__(self, settings: Settings, *, crash: Callable[[int], None] = end_process) -> None:
        self.settings = settings
        self.draining = False
        self._crash = crash
        self._ready_at = 0.0
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._faults = FaultBook()
        self._ledger = Ledger(settings.log_size)
        scheduler: Scheduler[Job] = Scheduler(
            parallel=settings.parallel, max_waiting=settings.max_waiting, timing=settings.timing
        )
        self._decoding = Decoding(scheduler, asyncio.get_running_loop())
        self._routes = Routes(settings, self, self._decoding, self._ledger, self._faults)

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        if self._socket is None:
            raise RuntimeError("the server was not started")
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it is reached, without `/v1`."""
        host = self.settings.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def loading(self) -> bool:
        """The slow start is not over."""
        return time.monotonic() < self._ready_at

    @property
    def unsent_bytes(self) -> int:
        """What clients have not taken yet of their answers, beyond what the kernel holds."""
        return sum(connection.unsent_bytes for connection in self._connections)

    async def start(self) -> None:
        """Listen; with a refusing slow start, after it.

        Raises Conflict when the address is taken, NotFound when the model path does not exist.
        """
        settings = self.settings
        _check_model_path(settings.model_path)
        self._socket = _bound(settings.host, settings.port)
        self._ready_at = time.monotonic() + settings.slow_start_s
        if settings.slow_start == "refuse":
            await asyncio.sleep(settings.slow_start_s)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, loop), sock=self._socket, backlog=_BACKLOG
        )

    async def stop(self, drain_s: float = 0.0) -> int:
        """Stop listening, give open requests `drain_s` seconds, cut the rest; returns their number.

        A connection with no request on it is closed at once.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        for connection in list(self._connections):
            connection.close_if_idle()
        if self._connections and drain_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained(), drain_s)
        left = list(self._connections)
        for connection in left:
            self._end(connection, "broken")
            connection.cut()
        await self._drained()
        self._decoding.stop()
        return len(left)

    # what connections and routes call

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._all_closed.clear()
        if self._faults and self._faults.take((ACCEPT,)).refuse:
            connection.reset()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._end(connection, "cancelled")
        if not self._connections:
            self._all_closed.set()

    def handle(self, connection: Connection, request: Request) -> None:
        self._routes.handle(connection, request)

    def crash(self, code: int) -> None:
        self._crash(code)

    def cut_all(self) -> int:
        """Reset the connections of all requests under way; returns their number."""
        busy = [connection for connection in self._connections if connection.job is not None]
        for connection in busy:
            self._end(connection, "broken")
            connection.reset()
        return len(busy)

    def _end(self, connection: Connection, outcome: Literal["cancelled", "broken"]) -> None:
        """End what runs for a connection, if anything does."""
        job = connection.job
        if job is not None and job.entry.outcome == "open":
            self._ledger.close(job.entry, outcome)
            self._decoding.leave(job)

    async def _drained(self) -> None:
        if self._connections:
            await self._all_closed.wait()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen: clients are refused until it does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, for asyncio switches Nagle's algorithm off only then.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise Conflict(
            f"can't listen on {host}:{port}: {error.strerror or error}",
            next_step="Give another --port; 0 picks a free one.",
        ) from error
    return bound


def _check_model_path(path: str | None) -> None:
    if path is not None and not Path(path).exists():
        raise NotFound(f"no model at {path}", next_step="Check --model-path.")
