"""What the controller knows of a gateway process."""

from collections.abc import Mapping

import msgspec


class GatewayFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway said last."""

    id: str
    pid: int = 0
    url: str = ""
    reported_at: float
    """Unix seconds."""
    routes_version: int
    """Newest snapshot of the current epoch that it has applied; 0: none."""
    in_flight: Mapping[str, int] = {}
    """Requests by replica id; a replica that is not named has none."""
    records_waiting: int = 0
    records_dropped: int = 0
