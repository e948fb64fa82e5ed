"""What the controller measures, and its `GET /metrics`.

Whoever reads it needs a token of its own (`secrets/metrics.token`), which opens nothing else: a
Prometheus need not hold the token that rules everything. The admin token opens it too.
"""

import asyncio
import hmac
import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import modelyard
from modelyard.control.gateways import Gateways
from modelyard.control.ledger import Ledger
from modelyard.control.snapshots import Publisher
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import StorageError, Unauthenticated
from modelyard.core.metrics import controller as metrics
from modelyard.core.metrics.gateway import BUILD_INFO
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase
from modelyard.observe.prometheus import (
    CONTENT_TYPE,
    Counter,
    Counters,
    Exposition,
    Histograms,
    Labels,
    Reading,
    Source,
    one,
)

log = logging.getLogger(__name__)
EVERY_S = 2.0
"""How often it is looked what is deployed."""
_ENDED = {f"rollout.{phase}": str(phase) for phase in (Phase.DONE, Phase.UNDONE)}


class ControllerMeters:
    """Counters and histograms of what happened; what there is, is read when somebody asks."""

    def __init__(
        self,
        ledger: Ledger,
        gateways: Gateways,
        publisher: Publisher,
        read: Callable[[], Sequence[Deployment]],
    ) -> None:
        """`read` gets the deployments from the state; it may block."""
        self._ledger = ledger
        self._read = read
        self._deployments: Sequence[Deployment] = ()
        self._versions: dict[str, str] = {}
        """Replica → its version, as told; its slot may hold another by now."""
        self._failures = Counters(metrics.REPLICA_FAILURES)
        self._rollouts = Counters(metrics.ROLLOUTS)
        self._taken, self._duplicate = Counter(), Counter()
        store = Histograms(metrics.STORE_SECONDS)
        self._writes, self._batches = store.child("write"), store.child("records")
        self._all = Exposition()
        self._all.add(
            Reading(BUILD_INFO, lambda: ((("controller", modelyard.__version__), 1),)),
            one(metrics.DEPLOYMENTS, lambda: len(self._deployments)),
            Reading(metrics.REPLICAS, self._by_state),
            Reading(metrics.REPLICAS_WANTED, self._wanted),
            Reading(metrics.REPLICAS_READY, self._ready),
            self._failures,
            self._rollouts,
            one(metrics.GATEWAYS, lambda: len(gateways.living())),
            one(metrics.PUBLISHED_VERSION, lambda: publisher.current.version),
            one(metrics.RECORDS_TAKEN, lambda: self._taken.value),
            one(metrics.RECORDS_DUPLICATE, lambda: self._duplicate.value),
            store,
        )
        ledger.listeners.append(self._moved)
        ledger.on_tell.append(self._told)
        ledger.on_write = self._writes.observe

    def add(self, sources: Sequence[Source]) -> None:
        """Tell these too."""
        self._all.add(*sources)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text form."""
        return self._all.text()

    async def run(self) -> None:
        """Look what is deployed until cancelled; while the state is away, what was known holds."""
        while True:
            try:
                self._deployments = await asyncio.to_thread(self._read)
            except StorageError as error:
                log.debug("deployments can't be read: %s", error)
            self._note()
            await asyncio.sleep(EVERY_S)

    def received(self, taken: int, duplicate: int, took_s: float) -> None:
        """A batch of records came, so many of them new, and was stored in so many seconds."""
        self._taken.value += taken
        self._duplicate.value += duplicate
        self._batches.observe(took_s)

    def version_of(self, replica: Replica) -> str:
        """What a replica serves, as `name:3`."""
        known = self._versions.get(replica.id)
        return known if known is not None else self._name(replica)

    def routes(self, *tokens: str) -> list[Route]:
        """`GET /metrics`, for the bearers of one of the tokens."""
        expected = [f"Bearer {token}".encode() for token in tokens]

        async def page(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if not any(hmac.compare_digest(given, each) for each in expected):
                raise Unauthenticated(
                    "the metrics token is missing or wrong",
                    next_step="send 'Authorization: Bearer TOKEN' with the token from "
                    "secrets/metrics.token in the home",
                )
            return Response(self.exposition(), media_type=CONTENT_TYPE)

        return [Route("/metrics", page, methods=["GET"])]

    def _note(self) -> None:
        """Begin the counters of new deployments at zero, end those of removed ones."""
        names = {each.name for each in self._deployments}
        for name in names:
            self._failures.child(name)
            for outcome in _ENDED.values():
                self._rollouts.child(name, outcome)
        for family in (self._failures, self._rollouts):
            for name in {labels[0] for labels in family.labels()} - names:
                family.forget(name)
        replicas = self._ledger.all()
        self._versions = {each.id: self.version_of(each) for each in replicas}

    def _name(self, replica: Replica) -> str:
        for deployment in self._deployments:
            spec = deployment.slot(replica.slot) if deployment.name == replica.deployment else None
            if spec is not None and spec.version == replica.version:
                return f"{spec.model}:{replica.version}"
        return f"{replica.deployment}:{replica.version}"

    def _moved(self, replica: Replica) -> None:
        if replica.state is ReplicaState.STOPPED and replica.error:
            self._failures.child(replica.deployment).value += 1

    def _told(self, kind: str, subject: str) -> None:
        if kind in _ENDED:
            self._rollouts.child(subject, _ENDED[kind]).value += 1

    def _by_state(self) -> Iterator[tuple[Labels, float]]:
        tally: Tally[Labels] = Tally(
            (each.deployment, self.version_of(each), each.slot, str(each.state))
            for each in self._ledger.all()
            if each.state is not ReplicaState.STOPPED
        )
        yield from sorted(tally.items())

    def _wanted(self) -> Iterator[tuple[Labels, float]]:
        for each, spec in self._live():
            yield (each.name,), spec.replicas

    def _ready(self) -> Iterator[tuple[Labels, float]]:
        ready = Tally(
            (replica.deployment, replica.generation)
            for replica in self._ledger.all()
            if replica.state is ReplicaState.READY
        )
        for each, spec in self._live():
            yield (each.name,), ready[each.name, spec.generation]

    def _live(self) -> Iterator[tuple[Deployment, SlotSpec]]:
        """Deployments that should serve, with what serves them."""
        for each in self._deployments:
            spec = None if each.live is None else each.slot(each.live)
            if spec is not None and not each.removed:
                yield each, spec
