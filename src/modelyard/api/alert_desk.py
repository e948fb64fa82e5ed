"""What the routes of alerts stand on."""

import asyncio
from dataclasses import dataclass

from modelyard.observe.alerts import Watch
from modelyard.observe.webhooks import Outcome
from modelyard.state.alerts import Alerts

_TEST_S = 90.0


@dataclass(frozen=True)
class AlertDesk:
    """What the routes stand on; they run in threads beside `loop`."""

    watch: Watch
    table: Alerts
    loop: asyncio.AbstractEventLoop

    def test(self, webhook: str | None) -> tuple[Outcome, ...]:
        """Send the marked message."""
        sending = asyncio.run_coroutine_threadsafe(self.watch.webhooks.test(webhook), self.loop)
        return sending.result(_TEST_S)
