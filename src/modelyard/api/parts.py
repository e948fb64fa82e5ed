"""What the management API stands on; the composition root hands it in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard.api.alert_desk import AlertDesk
from modelyard.core.cost import PriceList
from modelyard.core.deployments import SlotSpec
from modelyard.core.facts import ModelFacts
from modelyard.core.gateways import GatewayFacts
from modelyard.core.rollout import Rollout
from modelyard.core.scores import Score
from modelyard.core.smoke import SmokeTest
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion
from modelyard.state.store import Store


class Runtime(Protocol):
    """What is known only in the controller's memory."""

    def gateways(self) -> tuple[GatewayFacts, ...]:
        """The gateways that reported lately."""

    def in_flight(self) -> Mapping[str, int]:
        """Requests in flight by replica id."""

    def routes_version(self) -> int:
        """Version of the newest snapshot."""

    def waits_for(self, rollout: Rollout) -> str:
        """What a rollout that is under way waits for, for people; empty when nobody knows."""

    def told(self, rollout: Rollout) -> Rollout:
        """The rollout with what tests and comparisons have shown so far."""

    def logs(self, deployment: str, lines: int) -> Mapping[str, Sequence[str]]:
        """The last lines of its workers, by replica id. May be called from any thread."""

    def explanation(self, request_id: str) -> Mapping[str, Any] | None:
        """What a gateway remembers of a request: its record and decisions. May be called from any
        thread; None when none of those that live does."""


@dataclass(frozen=True, kw_only=True)
class About:
    """The controller's own facts."""

    url: str
    gateway_url: str
    """What the gateway was told to listen on; empty when nobody said so."""
    pid: int
    version: str
    started_at: float
    home: str


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """The API's collaborators. `store` and `registry` block: routes run in threads."""

    token: str
    about: About
    store: Store
    registry: Registry
    choose_engine: Callable[[ModelFacts, str | None], str]
    """Name of the engine for a model; raises Unsupported, or NotFound for an unknown name."""
    check_schema: Callable[[SmokeTest], None]
    """Raises InvalidConfig when a smoke test's JSON schema is none."""
    accelerators: Callable[[], int]
    """How many of them this machine has."""
    refuse: Callable[[ModelVersion], None]
    """Raises Untrusted when the trust policy lets nobody start a version."""
    check_launch: Callable[[SlotSpec], None] = lambda spec: None
    """Raises when it is known beforehand that no such worker can be started."""
    prices: PriceList = field(default_factory=PriceList)
    """What running replicas costs."""
    runtime: Runtime
    hear_scores: Callable[[Sequence[Score]], None] = lambda scores: None
    """Tells comparisons what judges said; may be called from any thread."""
    alerts: AlertDesk | None = None
    """Alerts as they stand; None: nobody looks at rules."""
    wake: Callable[[], None]
    """Lets the reconcile loop look at once; may be called from any thread."""
    announce_keys: Callable[[], None]
    """Lets the gateways see at once that the key log has grown; from any thread."""
    clock: Callable[[], float]
