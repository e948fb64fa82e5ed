"""What the controller and its gateways tell each other, as JSON over HTTP.

    GET  /feed?gateway=G&epoch=E&routes=V&keys_epoch=K&keys=S&wait_s=W   → 200 FeedUpdate
        Long poll: answers as soon as there is a snapshot newer than V, or a log entry after S, or
        an epoch is another; after W seconds with an empty update. V and S are what G has applied,
        of the epochs E and K (left out: E). Asked from 0, the entries are the whole log.
    POST /feed/report    GatewayReport                       → 204
        Once a second and after every applied change: the acknowledgement of what is applied, and
        the work in flight per replica. A gateway that has not reported for 10 s is known dead.
    POST /feed/records   RecordBatch                         → 200 RecordReceipt
        Each record is counted once, however often it arrives (by its request id).

Authenticated by `Authorization: Bearer <gateway token>`.
"""

import msgspec

from modelyard.core.keys import KeyLogEntry
from modelyard.core.records import RequestRecord
from modelyard.core.routes import RouteSnapshot

GATEWAY_DEAD_AFTER_S = 10.0


class FeedUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What is new since what the gateway said it has."""

    epoch: str
    routes: RouteSnapshot | None = None
    """The newest snapshot; None when the gateway has it."""
    keys: tuple[KeyLogEntry, ...] = ()
    """Log entries after the one asked from, in order."""
    keys_reset: bool = False
    """The gateway forgets the keys it knows before it applies `keys` (another epoch, a gap)."""


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process has applied and is doing."""

    gateway: str
    pid: int
    url: str
    epoch: str
    routes_version: int
    keys_seq: int
    draining: bool = False
    in_flight: dict[str, int] = {}
    """Requests in flight by replica id; a replica that is not named has none."""
    dispatched: dict[str, int] = {}
    """Requests sent by replica id since the gateway started (promise G11)."""
    records_waiting: int = 0
    records_dropped: int = 0


class RecordBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Finished requests, oldest first."""

    gateway: str
    records: tuple[RequestRecord, ...]


class RecordReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a batch were new, and how many had arrived before."""

    accepted: int
    duplicates: int
