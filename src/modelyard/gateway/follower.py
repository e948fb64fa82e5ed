"""Follows the controller: routes in, reports and records out. Serves on without it (G23)."""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from urllib.parse import quote

import msgspec

from modelyard.core.errors import InvalidConfig, ModelyardError, UpstreamError
from modelyard.core.routes import SNAPSHOT_FORMAT, RouteSnapshot, Timeouts
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.spool import RecordSpool
from modelyard.gateway.upstream import Pool
from modelyard.wire import http
from modelyard.wire.feed import FeedUpdate, GatewayReport

log = logging.getLogger(__name__)

WAIT_S = 20.0
REPORT_EVERY_S = 1.0
RETRY_S = 0.5
MAX_UPDATE_BYTES = 64 * 1024 * 1024


class Link:
    """Requests to the controller over the gateway's own HTTP client."""

    def __init__(self, controller: str, token_file: Path) -> None:
        self._pool = Pool(controller)
        self._token_file = token_file

    async def ask(self, method: bytes, target: str, body: bytes = b"", wait_s: float = 0) -> bytes:
        """Send a request; return the body of a 2xx answer, else raise UpstreamError."""
        try:
            token = self._token_file.read_text().strip().encode()
        except OSError as error:
            raise UpstreamError(f"{self._token_file}: {error.strerror}") from None
        head = http.request_head(
            method,
            self._pool.prefix + target.encode(),
            [
                (b"host", self._pool.authority),
                (b"authorization", b"Bearer " + token),
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
            ],
        )
        timeouts = Timeouts(first_token_s=wait_s + 10, gap_s=10, total_s=wait_s + 30)
        connection = await self._pool.acquire(timeouts.connect_s)
        exchange = connection.send(head + body, timeouts, timeouts.total_s)
        try:
            status = await exchange.head()
            answer = await exchange.body(MAX_UPDATE_BYTES)
        finally:
            exchange.abandon()
        if status // 100 != 2:
            raise UpstreamError(f"the controller answered {status}")
        return answer

    def close(self) -> None:
        """Close kept connections."""
        self._pool.close()


class Follower:
    """Keeps the routes those of the controller, and the controller informed."""

    def __init__(
        self, gateway: str, link: Link, routes: RouteTable, spool: RecordSpool, snapshot_file: Path
    ) -> None:
        self._gateway = gateway
        self._link = link
        self._routes = routes
        self._spool = spool
        self._file = snapshot_file
        self._changed = asyncio.Event()
        self.url = ""
        self.draining = False
        self.connected = False
        """Whether the last request to the controller was answered."""
        self.has_routes = False
        """Whether a snapshot is in force, from the controller or from disk."""

    def load(self) -> None:
        """Start from the snapshot kept on disk, if there is one that can be read."""
        try:
            snapshot = msgspec.json.decode(self._file.read_bytes(), type=RouteSnapshot)
            self._apply(snapshot)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, ModelyardError) as error:
            log.warning("the kept route snapshot %s is not used: %s", self._file, error)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._report())
            tasks.create_task(self._spool.run(self._post_records))

    async def _follow(self) -> None:
        while True:
            try:
                await self._poll()
                self._note_link(None)
            except (UpstreamError, msgspec.MsgspecError) as error:
                self._note_link(error)
                await asyncio.sleep(RETRY_S)

    async def _poll(self) -> None:
        epoch, version = self._routes.applied
        target = (
            f"/feed?gateway={quote(self._gateway)}&epoch={quote(epoch)}"
            f"&routes={version}&keys=0&wait_s={WAIT_S:g}"
        )
        body = await self._link.ask(b"GET", target, wait_s=WAIT_S)
        update = msgspec.json.decode(body, type=FeedUpdate)
        if update.routes is None:
            return
        try:
            self._apply(update.routes)
        except InvalidConfig as error:
            log.error("%s; %s", error.message, error.next_step)
            await asyncio.sleep(RETRY_S)
            return
        self._store(update.routes)
        self._changed.set()

    def _apply(self, snapshot: RouteSnapshot) -> None:
        if snapshot.format > SNAPSHOT_FORMAT:
            raise InvalidConfig(
                f"route snapshot {snapshot.version} has form {snapshot.format}; "
                f"this gateway reads up to {SNAPSHOT_FORMAT}",
                next_step="upgrade the gateway; the old routes stay in force",
            )
        self._routes.apply(snapshot)
        self.has_routes = True

    def _store(self, snapshot: RouteSnapshot) -> None:
        """Keep the snapshot for the next start, whole or not at all."""
        partial = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as out:
                out.write(msgspec.json.encode(snapshot))
                out.flush()
                os.fsync(out.fileno())
            partial.rename(self._file)
        except OSError as error:
            log.error("the route snapshot can't be kept in %s: %s", self._file, error.strerror)

    async def _report(self) -> None:
        while True:
            with contextlib.suppress(UpstreamError):
                await self._link.ask(b"POST", "/feed/report", self._encode_report())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()

    def _encode_report(self) -> bytes:
        epoch, version = self._routes.applied
        return msgspec.json.encode(
            GatewayReport(
                gateway=self._gateway,
                pid=os.getpid(),
                url=self.url,
                epoch=epoch,
                routes_version=version,
                keys_seq=0,
                draining=self.draining,
                in_flight=self._routes.in_flight(),
                dispatched=self._routes.dispatched(),
                records_waiting=self._spool.waiting,
                records_dropped=self._spool.dropped,
            )
        )

    async def _post_records(self, body: bytes) -> bool:
        try:
            await self._link.ask(b"POST", "/feed/records", body)
        except UpstreamError:
            return False
        return True

    def _note_link(self, error: Exception | None) -> None:
        if (error is None) == self.connected:
            return
        self.connected = error is None
        if error is None:
            log.info("following the controller")
        else:
            log.warning("the controller is away (%s); serving on with the routes in force", error)
