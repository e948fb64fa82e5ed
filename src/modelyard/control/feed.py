"""The routes that gateways speak with (`wire/feed.py` says what they mean)."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard.control.gateways import Gateways
from modelyard.control.ledger import Ledger
from modelyard.control.snapshots import Publisher
from modelyard.core.errors import InvalidRequest, Unauthenticated
from modelyard.core.records import RequestRecord
from modelyard.state.store import Store
from modelyard.wire.feed import FeedUpdate, GatewayReport, RecordBatch, RecordReceipt

MAX_WAIT_S = 60.0
_T = TypeVar("_T")
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class FeedParts:
    """What the feed stands on."""

    token: str
    epoch: str
    store: Store
    ledger: Ledger
    publisher: Publisher
    gateways: Gateways
    hear: Callable[[Sequence[RequestRecord]], None]
    """Told of the records that were not known before."""
    wake: Callable[[], None]
    count: Callable[[int, int, float], None] = lambda taken, duplicate, took_s: None
    """Told of each batch of records: those that were new, those that were not, seconds to store."""


class Feed:
    """The three routes."""

    def __init__(self, parts: FeedParts) -> None:
        self._parts = parts
        self._closing = False

    def routes(self) -> list[Route]:
        """To be mounted on the management application."""
        return [
            Route("/feed", self._guarded(self._poll), methods=["GET"]),
            Route("/feed/report", self._guarded(self._report), methods=["POST"]),
            Route("/feed/records", self._guarded(self._records), methods=["POST"]),
        ]

    def close(self) -> None:
        """Answer all long polls now, so that the server can end."""
        self._closing = True
        self._parts.publisher.release()

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._parts.token.encode()):
                raise Unauthenticated(
                    "the gateway token is missing or wrong",
                    next_step="start the gateway on the same --home as the controller",
                )
            return await endpoint(request)

        return guarded

    async def _poll(self, request: Request) -> Response:
        epoch = request.query_params.get("epoch", "")
        keys_epoch = request.query_params.get("keys_epoch", epoch)
        routes = _number(request, "routes", int)
        keys = _number(request, "keys", int)
        wait_s = min(_number(request, "wait_s", float), MAX_WAIT_S)
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            change = self._parts.publisher.next_change()
            update = await self._update(epoch, routes, keys_epoch, keys)
            left_s = deadline - asyncio.get_running_loop().time()
            if update.routes or update.keys or update.keys_reset or left_s <= 0 or self._closing:
                return _json(update)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), left_s)

    async def _update(self, epoch: str, routes: int, keys_epoch: str, keys: int) -> FeedUpdate:
        parts = self._parts
        same = epoch == parts.epoch
        last = await parts.ledger.write(parts.store.keys.last_seq)
        # A gateway that knows no keys yet has nothing to forget.
        reset = (keys_epoch != parts.epoch and bool(keys_epoch or keys)) or keys > last
        after = 0 if reset else keys
        entries = await parts.ledger.write(parts.store.keys.after, after) if last > after else ()
        # The empty snapshot is version 0: a gateway of another epoch gets it too, and serves
        # nothing; one of this epoch has it from the start.
        current = parts.publisher.current
        return FeedUpdate(
            epoch=parts.epoch,
            routes=current if not same or current.version > routes else None,
            keys=entries,
            keys_reset=reset,
        )

    async def _report(self, request: Request) -> Response:
        if self._parts.gateways.heard(_body(await request.body(), GatewayReport)):
            self._parts.wake()
        return Response(status_code=204)

    async def _records(self, request: Request) -> Response:
        batch = _body(await request.body(), RecordBatch)
        # Not through the ledger's writer: a large batch must not hold up the reconcile loop.
        accepted, took_s = await asyncio.to_thread(self._add, batch.records)
        self._parts.hear(accepted)
        known = len(batch.records) - len(accepted)
        self._parts.count(len(accepted), known, took_s)
        return _json(RecordReceipt(accepted=len(accepted), duplicates=known))

    def _add(self, records: Sequence[RequestRecord]) -> tuple[Sequence[RequestRecord], float]:
        """Store them; those that were new, and the seconds that it took."""
        began = time.monotonic()
        accepted = self._parts.store.records.add(records)
        return accepted, time.monotonic() - began


def _number(request: Request, name: str, kind: Callable[[str], _T]) -> _T:
    text = request.query_params.get(name, "0")
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{name}={text!r} is not a number", next_step="see wire/feed.py", param=name
        ) from error


def _body(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(
            f"the body is not a {kind.__name__}: {error}", next_step="see wire/feed.py"
        ) from error


def _json(message: object) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json")
