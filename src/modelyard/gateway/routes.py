"""The routes in force: the applied snapshot, and what this process knows of each replica."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from modelyard.core.cost import Price, SharedTime
from modelyard.core.errors import InvalidConfig
from modelyard.core.health import Circuit
from modelyard.core.routes import REMOTE, ModelRoute, ReplicaRoute, RouteSnapshot, SlotRoute
from modelyard.core.routing import unenforceable
from modelyard.gateway.credentials import Credentials
from modelyard.gateway.upstream import Pool

log = logging.getLogger(__name__)


class LiveReplica:
    """A replica and the requests this process has with it. `in_flight` returns to zero (G3)."""

    __slots__ = (
        "_shared", "circuit", "dispatched", "in_flight", "model", "on_free", "pool", "route",
        "slot",
    )  # fmt: skip

    def __init__(self, model: str, slot: SlotRoute, route: ReplicaRoute, pool: Pool) -> None:
        self.model = model
        self.slot = slot
        self.route = route
        self.pool = pool
        self.circuit = Circuit()
        self.in_flight = 0
        self.dispatched = 0
        self.on_free: Callable[[str], None] = _nobody
        """Told the model when it has room for one more."""
        self._shared = SharedTime()

    def share_s(self) -> float:
        """Seconds of this replica that each of its requests has had, since it is known here."""
        return self._shared.share_s(time.monotonic(), self.in_flight)

    @property
    def price(self) -> Price | None:
        """What it costs; None: nobody said."""
        return self.route.price or self.slot.price

    def place(self, model: str, slot: SlotRoute, route: ReplicaRoute) -> None:
        """Take over what a newer snapshot says of it."""
        self.model = model
        self.slot = slot
        self.route = route

    def __enter__(self) -> "LiveReplica":
        self.share_s()
        self.in_flight += 1
        self.dispatched += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.share_s()
        self.in_flight -= 1
        self.on_free(self.model)


def _same_weights(one: SlotRoute, other: SlotRoute) -> bool:
    """Whether a replica of one slot can be one of the other. What is declared of remote weights
    changes with every upstream that is added; the connections and counts of the others stay."""
    remote = one.digest.startswith(REMOTE) and other.digest.startswith(REMOTE)
    return remote or one.digest == other.digest


def _nobody(_model: str) -> None:
    """Nobody waits."""


class Applied(NamedTuple):
    """Identity of the snapshot in force."""

    epoch: str
    version: int


class RouteTable:
    """Routes by public model name; replaced whole by each new snapshot."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials()
        self.on_change: list[Callable[[], None]] = []
        """Told when a snapshot was put into force."""
        self.on_free: Callable[[str], None] = _nobody
        """Told a model when one of its replicas has room for one more."""
        self._models: dict[str, ModelRoute] = {}
        self._replicas: dict[str, LiveReplica] = {}
        self._leaving: list[LiveReplica] = []
        self._default: str | None = None
        self.applied = Applied("", 0)
        self._turns: Counter[str] = Counter()

    def apply(self, snapshot: RouteSnapshot) -> None:
        """Put a snapshot into force in one step.

        Raises InvalidConfig, and changes nothing, when it holds a policy that can't be enforced.
        """
        missing = unenforceable(snapshot, self._credentials.names)
        if missing is not None:
            raise InvalidConfig(
                f"route snapshot {snapshot.version} can't be enforced: {missing}",
                next_step="correct or remove the setting",
            )
        named = [
            (model.name, slot, route)
            for model in snapshot.models
            for slot in model.slots
            for route in slot.replicas
        ]
        # All new ones are made before any known one changes: a URL may turn out to be none.
        replicas = {place[2].id: self._keep_or_make(*place) for place in named}
        for name, slot, route in named:
            replicas[route.id].place(name, slot, route)
        gone = [old for key, old in self._replicas.items() if replicas.get(key) is not old]
        for replica in gone:
            replica.pool.close()
        self._leaving = [old for old in (*self._leaving, *gone) if old.in_flight]
        self._replicas = replicas
        self._turns = Counter({model.name: self._turns[model.name] for model in snapshot.models})
        self._models = {model.name: model for model in snapshot.models}
        self._default = snapshot.default_model
        self.applied = Applied(snapshot.epoch, snapshot.version)
        log.info("routes %d applied: %d models", snapshot.version, len(self._models))
        for told in self.on_change:
            told()

    def close(self) -> None:
        """Close every kept connection."""
        for replica in self.replicas:
            replica.pool.close()

    def _keep_or_make(self, model: str, slot: SlotRoute, route: ReplicaRoute) -> LiveReplica:
        known = self._replicas.get(route.id)
        if known is None or known.route.url != route.url or not _same_weights(known.slot, slot):
            made = LiveReplica(model, slot, route, Pool(route.url, self._credentials.tls))
            made.on_free = lambda name: self.on_free(name)
            return made
        return known

    def authorization(self, replica: LiveReplica) -> bytes | None:
        """What authenticates to a replica, None where nothing is needed."""
        name = replica.route.credential
        return None if name is None else self._credentials.header(name)

    @property
    def credentials(self) -> Credentials:
        """The secrets in use."""
        return self._credentials

    def use(self, credentials: Credentials) -> None:
        """Take other secrets; those of the next snapshot must be there before it is applied."""
        self._credentials = credentials

    @property
    def names(self) -> list[str]:
        """Public model names, sorted."""
        return sorted(self._models)

    @property
    def models(self) -> list[ModelRoute]:
        """All routes, by name."""
        return [self._models[name] for name in self.names]

    def model(self, name: str) -> ModelRoute | None:
        """The route of a public model name."""
        return self._models.get(name)

    @property
    def default(self) -> ModelRoute | None:
        """The model marked default, else the only one."""
        if self._default is not None and self._default in self._models:
            return self._models[self._default]
        return next(iter(self._models.values())) if len(self._models) == 1 else None

    def live(self, slot: SlotRoute) -> list[LiveReplica]:
        """The slot's replicas; the slot may be of an earlier snapshot, and some of them gone."""
        found = (self._replicas.get(route.id) for route in slot.replicas)
        return [live for live in found if live is not None and live.slot.digest == slot.digest]

    def next_turn(self, model: str) -> int:
        """Requests of the model placed so far, for policies that take turns."""
        self._turns[model] += 1
        return self._turns[model]

    @property
    def replicas(self) -> list[LiveReplica]:
        """All replicas that are routed to, and those left that still have requests."""
        self._leaving = [old for old in self._leaving if old.in_flight]
        return [*self._replicas.values(), *self._leaving]

    def in_flight(self) -> dict[str, int]:
        """Requests in flight by replica id, those without any left out."""
        counts: dict[str, int] = {}
        for replica in self.replicas:
            if replica.in_flight:
                key = replica.route.id
                counts[key] = counts.get(key, 0) + replica.in_flight
        return counts

    def dispatched(self) -> dict[str, int]:
        """Requests sent so far by replica id."""
        return {replica.route.id: replica.dispatched for replica in self.replicas}
