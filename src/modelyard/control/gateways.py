"""The gateways' last reports. They come in on the event loop, and are read from any thread."""

from collections import Counter
from collections.abc import Callable, Mapping

from modelyard.core.gateways import GatewayFacts
from modelyard.wire.feed import GATEWAY_DEAD_AFTER_S, GatewayReport


class Gateways:
    """Who reported what, and when. A gateway that fell silent is forgotten."""

    def __init__(self, epoch: str, clock: Callable[[], float]) -> None:
        self._epoch = epoch
        self._clock = clock
        self._facts: dict[str, GatewayFacts] = {}

    def heard(self, report: GatewayReport) -> bool:
        """Take a report; True when it says something that others may be waiting for."""
        known = self._facts.get(report.gateway)
        applied = report.routes_version if report.epoch == self._epoch else 0
        facts = GatewayFacts(
            id=report.gateway,
            pid=report.pid,
            url=report.url,
            reported_at=self._clock(),
            routes_version=applied,
            in_flight=report.in_flight,
            records_waiting=report.records_waiting,
            records_dropped=report.records_dropped,
        )
        # A new dict each time: a thread that reads must neither see it change nor write it back.
        self._facts = {**{g.id: g for g in self.living()}, facts.id: facts}
        return (
            known is None
            or known.routes_version != facts.routes_version
            or known.in_flight != facts.in_flight
        )

    def living(self) -> tuple[GatewayFacts, ...]:
        """Those that reported lately, in the order in which they were first heard."""
        oldest = self._clock() - GATEWAY_DEAD_AFTER_S
        return tuple(g for g in self._facts.values() if g.reported_at >= oldest)

    def in_flight(self) -> Mapping[str, int]:
        """Requests in flight by replica id, summed over the living gateways."""
        total: Counter[str] = Counter()
        for gateway in self.living():
            total.update(gateway.in_flight)
        return total
