"""The loop that makes what runs into what should be: look, decide, apply, publish."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from modelyard.control.abilities import Abilities
from modelyard.control.gateways import Gateways
from modelyard.control.judging import Judge
from modelyard.control.ledger import Ledger
from modelyard.control.lifecycle import Life, LifeParts
from modelyard.control.snapshots import Publisher
from modelyard.control.weights import Weights
from modelyard.core.cost import PriceList
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import ModelyardError
from modelyard.core.publishing import default_model, model_routes
from modelyard.core.reconcile import (
    Action,
    Advance,
    Drain,
    ForgetReplicas,
    Launch,
    Remove,
    Rules,
    Stop,
    World,
    by_deployment,
    decide,
    rollout_sight,
    wanted_slots,
)
from modelyard.core.replicas import ALIVE, ReplicaState
from modelyard.core.rollout import SWITCHED, Phase
from modelyard.core.signals import signal
from modelyard.engines.engine import Engine
from modelyard.launchers.launcher import Launched
from modelyard.state.store import Store

log = logging.getLogger(__name__)
TICK_S = 0.5
_ORPHAN_GRACE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ReconcilerParts:
    """What the loop stands on."""

    store: Store
    ledger: Ledger
    publisher: Publisher
    gateways: Gateways
    weights: Weights
    engines: Mapping[str, Engine]
    life: LifeParts
    judge: Judge
    wake: asyncio.Event
    rules: Rules
    prices: PriceList


class Reconciler:
    """Owns the lives of all replicas. Only it writes replicas and moves deployments along."""

    def __init__(self, parts: ReconcilerParts) -> None:
        self._parts = parts
        self._lives: dict[str, tuple[Life, asyncio.Task[None]]] = {}
        self._abilities = Abilities(parts.weights, parts.engines, parts.prices)
        self._held: frozenset[tuple[str, SlotSpec]] | None = None
        self._draining: dict[str, int] = {}
        """Requests that a replica had in flight when it began to drain."""
        self._ending: set[str] = set()
        """Replicas whose workers were told to end."""
        self.adopted = asyncio.Event()
        """Set when what runs is known: until then, a replica may have ended with its machine."""
        self._listening_since = parts.ledger.now()
        self.waits: dict[tuple[str, Phase], str] = {}
        """What each rollout under way waits for, for people; by rollout id and phase."""

    async def run(self) -> None:
        """Adopt what runs, then reconcile until cancelled; the workers stay as they are."""
        try:
            await self._adopt()
            self.adopted.set()
            trouble = ""
            while True:
                self._parts.wake.clear()
                try:
                    await self._step()
                    if trouble:
                        log.warning("the reconcile loop goes on")
                    trouble = ""
                except ModelyardError as error:
                    if str(error) != trouble:  # a database may be away for hours: said once
                        log.error("the reconcile step failed and is tried again: %s", error)
                    trouble = str(error)
                except Exception:  # the edge: the loop must outlive a fault in one step
                    log.exception("the reconcile step failed and is tried again")
                try:
                    await asyncio.wait_for(self._parts.wake.wait(), TICK_S)
                except TimeoutError:
                    continue
        finally:
            self._parts.judge.close()
            tasks = [task for _, task in self._lives.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def logs(self, deployment: str, lines: int) -> dict[str, list[str]]:
        """The last lines of a deployment's workers, by replica id."""
        launchers = self._parts.life.launchers
        return {
            replica.id: await launchers[replica.launcher].logs(replica.id, lines)
            for replica in self._parts.ledger.all()
            if replica.deployment == deployment and replica.launcher in launchers
        }

    async def _adopt(self) -> None:
        """Match the workers that run with the replicas in the state (promise D9)."""
        ledger = self._parts.ledger
        await ledger.load()
        await self._parts.publisher.load()
        specs = {
            (deployment.name, spec.generation): spec
            for deployment in await ledger.write(self._parts.store.deployments.all)
            for spec in (deployment.blue, deployment.green)
            if spec is not None
        }
        running: dict[str, tuple[str, Launched]] = {
            launched.labels.replica: (name, launched)
            for name, launcher in self._parts.life.launchers.items()
            for launched in await launcher.running()
        }
        for replica in ledger.all():
            if replica.state is ReplicaState.STOPPED:
                continue
            if replica.id not in running:
                # No failure of its own: a machine or a supervisor that stopped took it along.
                ledger.move(replica.id, ReplicaState.STOPPED)
                continue
            _, launched = running.pop(replica.id)
            ledger.note(
                replica.id,
                url=launched.placement.url,
                pid=launched.pid,
                handle=launched.handle,
            )
            ledger.tell("replica.adopted", replica.id, f"pid {launched.pid}")
            spec = specs.get((replica.deployment, replica.generation)) or _spec_of(replica)
            self._live(replica, spec, launched)
        orphans = [
            self._parts.life.launchers[name].stop(launched, _ORPHAN_GRACE_S)
            for name, launched in running.values()
        ]
        for replica_id in running:
            ledger.tell("replica.orphan_ended", replica_id)
        await asyncio.gather(*orphans)

    async def _step(self) -> None:
        parts = self._parts
        deployments = tuple(await parts.ledger.write(parts.store.deployments.all))
        await self._hold(deployments)
        parts.judge.look(deployments, parts.ledger.all(), parts.gateways.living(), self._takes_chat)
        world = self._world(deployments)
        actions = decide(world, parts.ledger.now(), parts.rules)
        self._note_waits(world)
        for action in actions:
            await self._apply(action)
        if actions:
            deployments = tuple(await parts.ledger.write(parts.store.deployments.all))
        await self._publish(deployments)

    def _note_waits(self, world: World) -> None:
        now, waits = self._parts.ledger.now(), {}
        each = by_deployment(world.replicas)
        for deployment in world.deployments:
            own = each.get(deployment.name, [])
            sight = rollout_sight(world, deployment, own, now, self._parts.rules)
            if sight is not None and deployment.rollout is not None:
                rollout = deployment.rollout
                waits[rollout.id, rollout.phase] = signal(rollout, sight, now)[1]
        self.waits = waits

    def _takes_chat(self, spec: SlotSpec) -> bool:
        return self._abilities.of(spec).chat_template

    async def _hold(self, deployments: tuple[Deployment, ...]) -> None:
        """Tell the registry what is used, before it is. A disk that refuses stops nothing that
        runs: it is tried again with the next step."""
        specs = {
            (deployment.name, spec.generation): spec
            for deployment in deployments
            for spec in (deployment.blue, deployment.green)
            if spec is not None
        }
        wanted = {
            (deployment.name, spec)
            for deployment in deployments
            for slot in wanted_slots(deployment)
            if (spec := deployment.slot(slot)) is not None
        }
        running = {
            (name, specs.get((name, replica.generation)) or _spec_of(replica))
            for replica in self._parts.ledger.all()
            if replica.state in ALIVE and (name := replica.deployment)
        }
        used = frozenset(wanted | running)
        if used == self._held:
            return
        try:
            await asyncio.to_thread(self._parts.weights.hold, used)
        except ModelyardError as error:
            log.warning("%s", error)
            return
        self._held = used

    def _world(self, deployments: tuple[Deployment, ...]) -> World:
        parts = self._parts
        snapshot = parts.publisher.current
        return World(
            deployments=deployments,
            replicas=parts.ledger.all(),
            gateways=parts.gateways.living(),
            listening_since=self._listening_since,
            routes_version=snapshot.version,
            routed=frozenset(
                replica.id
                for model in snapshot.models
                for slot in model.slots
                for replica in slot.replicas
            ),
            routed_live={
                model.deployment: slot.slot
                for model in snapshot.models
                for slot in model.slots
                if slot.weight == 1.0
            },
            judged=parts.judge.judged,
        )

    async def _apply(self, action: Action) -> None:
        ledger, store = self._parts.ledger, self._parts.store
        match action:
            case Launch():
                await self._launch(action)
            case Drain():
                if ledger.move(action.replica, ReplicaState.DRAINING, error=action.error):
                    in_flight = self._parts.gateways.in_flight()
                    self._draining[action.replica] = in_flight.get(action.replica, 0)
                    self._parts.wake.set()
            case Stop():
                await self._count(action)
                self._end(action)
            case Advance():
                await self._advance(action)
            case Remove():
                await ledger.write(store.deployments.change, action.deployment, _gone)
                ledger.tell("deployment.removed", action.deployment)
                self._parts.wake.set()
            case ForgetReplicas():
                ledger.forget(action.replicas)
            case _:
                assert_never(action)

    async def _count(self, action: Stop) -> None:
        """Note in the rollout what became of the requests that a replica had when it drained."""
        replica = self._parts.ledger.get(action.replica)
        had = self._draining.pop(action.replica, action.in_flight)
        if replica is None or not had or action.replica in self._ending:
            return

        def step(present: Deployment | None) -> Deployment | None:
            if present is None:
                return None
            finished = max(had - action.in_flight, 0)
            return present.with_drained(replica.generation, finished, action.in_flight)

        change = self._parts.store.deployments.change
        await self._parts.ledger.write(change, replica.deployment, step)

    async def _advance(self, action: Advance) -> None:
        """Journal a rollout's move with the routes it asks for, in one transaction."""
        moved = []
        after = self._parts.judge.told(action.next)

        def step(present: Deployment | None) -> Deployment | None:
            if present is None or present.removed or present.rollout != action.seen:
                return present  # somebody said otherwise meanwhile
            moved.append(present)
            return present.with_rollout(after)

        ledger = self._parts.ledger
        await ledger.write(self._parts.store.deployments.change, action.deployment, step)
        self._parts.wake.set()
        if not moved:
            return
        ledger.tell(f"rollout.{after.phase}", action.deployment, after.history[-1].why)
        if action.seen.phase not in SWITCHED and after.phase is Phase.SWITCHING:
            ledger.tell("deployment.live", action.deployment, f"slot {after.candidate}")
        if after.phase is Phase.UNDOING:
            ledger.tell("deployment.failed", action.deployment, after.reason)

    async def _launch(self, action: Launch) -> None:
        now = self._parts.ledger.now()
        spec = action.spec
        replica = Replica(
            id=f"{action.deployment}-{action.slot}-{secrets.token_hex(4)}",
            deployment=action.deployment,
            slot=action.slot,
            version=spec.version,
            digest=spec.digest,
            engine=spec.engine,
            launcher=spec.launcher,
            state=ReplicaState.STARTING,
            created_at=now,
            changed_at=now,
            generation=spec.generation,
        )
        await self._parts.ledger.add(replica)
        self._parts.ledger.tell("replica.starting", replica.id)
        self._live(replica, spec, None)

    def _live(self, replica: Replica, spec: SlotSpec, launched: Launched | None) -> None:
        life = Life(self._parts.life, replica, spec, launched)
        task = asyncio.create_task(life.run(), name=f"life of {replica.id}")
        self._lives[replica.id] = (life, task)
        task.add_done_callback(lambda _: self._over(replica.id))

    def _over(self, replica_id: str) -> None:
        self._lives.pop(replica_id, None)
        self._draining.pop(replica_id, None)
        self._ending.discard(replica_id)

    def _end(self, action: Stop) -> None:
        entry = self._lives.get(action.replica)
        if entry is None:
            self._parts.ledger.move(action.replica, ReplicaState.STOPPED)
            return
        if action.replica in self._ending:
            return  # told before: its worker takes a moment to end
        self._ending.add(action.replica)
        if action.in_flight:
            self._parts.ledger.tell(
                "replica.cut", action.replica, f"{action.in_flight} requests were in flight"
            )
        entry[0].end()

    async def _publish(self, deployments: tuple[Deployment, ...]) -> None:
        parts = self._parts
        for deployment in deployments:
            for slot in wanted_slots(deployment):
                try:
                    await self._abilities.learn(deployment.slot(slot))
                except ModelyardError as error:
                    log.warning("%s, slot %s: %s", deployment.name, slot, error)
        models = model_routes(deployments, parts.ledger.all(), self._abilities.of)
        chosen = await parts.ledger.write(parts.store.meta.default_model)
        if await parts.publisher.publish(models, default_model(chosen, models)):
            parts.wake.set()


def _spec_of(replica: Replica) -> SlotSpec:
    """Enough to watch a worker whose slot holds something else by now until it has drained."""
    return SlotSpec(
        model=replica.deployment,
        version=replica.version,
        digest=replica.digest,
        engine=replica.engine,
        launcher=replica.launcher,
        generation=replica.generation,
    )


def _gone(deployment: Deployment | None) -> Deployment | None:
    return None if deployment is None or deployment.removed else deployment
