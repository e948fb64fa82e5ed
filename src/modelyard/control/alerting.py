"""The parts of alerting, put together for a controller."""

import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.control.ledger import Ledger
from modelyard.core.alerting import AnyRule
from modelyard.core.gateways import GatewayFacts
from modelyard.core.webhooks import Receiver
from modelyard.observe.alert_facts import Facts
from modelyard.observe.alerts import Watch
from modelyard.observe.webhooks import Clocks, Webhooks
from modelyard.state.store import Store


@dataclass(frozen=True)
class Alerting:
    """What raises an alert, and who is told."""

    rules: tuple[AnyRule, ...]
    receivers: tuple[Receiver, ...]
    every_s: float

    def watch(
        self,
        store: Store,
        ledger: Ledger,
        gateways: Callable[[], Sequence[GatewayFacts]],
        folder: Path,
    ) -> Watch:
        """The loop over them; `folder`: the home, whose disk is looked at."""
        clocks = Clocks(time.time, time.monotonic, random.random, lambda: secrets.token_hex(6))

        def tell(kind: str, subject: str, message: str) -> None:
            ledger.tell(kind, subject, message, actor="alerts")

        return Watch(
            self.rules,
            Facts(store, gateways, folder, clocks),
            store.alerts,
            Webhooks(self.receivers, store.alerts, tell, clocks),
            tell,
            clocks,
            every_s=self.every_s,
        )
