"""Follows the controller: routes in, reports and records out. Serves on without it (G23)."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import msgspec

from modelyard.core.errors import InvalidConfig, ModelyardError, UpstreamError
from modelyard.core.keyring import Gap
from modelyard.core.routes import SNAPSHOT_FORMAT, RouteSnapshot, Timeouts
from modelyard.gateway.keys import KeyTable
from modelyard.gateway.routes import Applied, RouteTable
from modelyard.gateway.spool import Receipt, RecordSpool
from modelyard.gateway.standing import Standing
from modelyard.gateway.upstream import Pool
from modelyard.wire import http
from modelyard.wire.feed import FeedUpdate, GatewayReport

log = logging.getLogger(__name__)

WAIT_S = 20.0
REPORT_EVERY_S = 1.0
RETRY_S = 0.5
MAX_UPDATE_BYTES = 64 * 1024 * 1024


REFUSED = frozenset({400, 413, 422})
"""What the controller answers to records that it will never take."""


class BadAnswer(UpstreamError):
    """The controller answered with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the controller answered {status}")
        self.answered = status


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
            raise BadAnswer(status)
        return answer

    def close(self) -> None:
        """Close kept connections."""
        self._pool.close()


class Follower:
    """Keeps the routes those of the controller, and the controller informed."""

    def __init__(
        self,
        gateway: str,
        link: Link,
        routes: RouteTable,
        keys: KeyTable,
        spool: RecordSpool,
        snapshot_file: Path,
        standing: Standing,
    ) -> None:
        self._gateway = gateway
        self._link = link
        self._routes = routes
        self._keys = keys
        self._spool = spool
        self._file = snapshot_file
        self._standing = standing
        self._keys_from = 0
        """The entry of the key log that the next question begins behind."""
        self._changed = asyncio.Event()
        self._refused: Applied | None = None
        """The snapshot that could not be applied: said once, however often it comes."""

    def load(self) -> None:
        """Start from the keys and the snapshot kept on disk, if they are there.

        Raises InvalidConfig for keys that can't be read: without them everybody would be let in.
        """
        self._keys.load()
        self._keys_from = self._keys.seq
        try:
            snapshot = msgspec.json.decode(self._file.read_bytes(), type=RouteSnapshot)
            self._apply(snapshot)
        except FileNotFoundError:
            return
        except (OSError, ValueError, msgspec.MsgspecError, ModelyardError) as error:
            log.warning("the kept route snapshot %s is not used: %s", self._file, error)

    async def first_keys(self, within_s: float) -> None:
        """Ask for the keys until there is one: a gateway that others reach needs them to start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._keys.ring.required:
                    try:
                        await self._poll()
                    except (UpstreamError, ValueError, msgspec.MsgspecError):
                        await asyncio.sleep(RETRY_S)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_keep_on(self._follow))
            tasks.create_task(_keep_on(self._report))
            tasks.create_task(_keep_on(lambda: self._spool.run(self._post_records)))

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                brought = await self._poll()
                self._note_link(None)
            except (UpstreamError, ValueError, msgspec.MsgspecError) as error:
                brought = False
                self._note_link(error)
            if not brought and loop.time() - begun < RETRY_S:
                await asyncio.sleep(RETRY_S)  # what has nothing to say must not be asked in a rush

    async def _poll(self) -> bool:
        """Ask once, and apply what is new; whether there was any."""
        epoch, version = self._routes.applied
        target = (
            f"/feed?gateway={quote(self._gateway)}&epoch={quote(epoch)}"
            f"&routes={version}&keys={self._keys_from}&keys_epoch={quote(self._keys.epoch)}"
            f"&wait_s={WAIT_S:g}"
        )
        whole_log = self._keys_from == 0
        body = await self._link.ask(b"GET", target, wait_s=WAIT_S)
        update = msgspec.json.decode(body, type=FeedUpdate)
        new_keys = self._apply_keys(update, reset=update.keys_reset or whole_log)
        if new_keys:
            await asyncio.to_thread(self._keys.store)
            self._changed.set()
        return await self._take_routes(update.routes) or new_keys

    def _apply_keys(self, update: FeedUpdate, *, reset: bool) -> bool:
        """Put changes of keys into force; whether there were any."""
        if not update.keys and not update.keys_reset:
            return False
        try:
            self._keys.apply(update.epoch, update.keys, reset=reset)
        except Gap as error:
            # What is known stays in force until the log has come whole, from its start.
            log.error("the key log has a gap (%s); asking for all of it", error)
            self._keys_from = 0
            return False
        except InvalidConfig as error:
            if self._keys_from != update.keys[-1].seq:
                log.error("%s; the keys stay as they were", error.message)
            self._keys_from = update.keys[-1].seq
            return False
        self._keys_from = self._keys.seq
        return True

    async def _take_routes(self, routes: RouteSnapshot | None) -> bool:
        """Put a snapshot into force and keep it; whether it was a new one."""
        known = (self._routes.applied, self._refused)
        if routes is None or (routes.epoch, routes.version) in known:
            return False
        try:
            self._apply(routes)
        except InvalidConfig as error:
            self._refused = Applied(routes.epoch, routes.version)
            log.error("%s; %s", error.message, error.next_step)
            return False
        await asyncio.to_thread(self._store, routes)  # a slow disk must not hold up requests
        self._changed.set()
        return True

    def _apply(self, snapshot: RouteSnapshot) -> None:
        if snapshot.format > SNAPSHOT_FORMAT:
            raise InvalidConfig(
                f"route snapshot {snapshot.version} has form {snapshot.format}; "
                f"this gateway reads up to {SNAPSHOT_FORMAT}",
                next_step="upgrade the gateway; the old routes stay in force",
            )
        self._routes.apply(snapshot)
        self._standing.has_routes = True

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
                url=self._standing.url,
                epoch=epoch,
                routes_version=version,
                keys_seq=self._keys.seq,
                draining=self._standing.draining,
                in_flight=self._routes.in_flight(),
                dispatched=self._routes.dispatched(),
                records_waiting=self._spool.waiting,
                records_dropped=self._spool.dropped,
            )
        )

    async def _post_records(self, body: bytes) -> Receipt:
        try:
            await self._link.ask(b"POST", "/feed/records", body)
        except BadAnswer as error:
            return "refused" if error.answered in REFUSED else "later"
        except UpstreamError:
            return "later"
        return "taken"

    def _note_link(self, error: Exception | None) -> None:
        if (error is None) == self._standing.connected:
            return
        self._standing.connected = error is None
        if error is None:
            log.info("following the controller")
        else:
            log.warning("the controller is away (%s); serving on with the routes in force", error)


async def _keep_on(loop: Callable[[], Awaitable[None]]) -> None:
    """The edge of a loop: a defect in one must not end it for ever, nor the others with it."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("following the controller failed; going on")
            await asyncio.sleep(RETRY_S)
