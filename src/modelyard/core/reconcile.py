"""What to do next so that what runs becomes what should be.

`decide` is called again after every change and on a slow tick. It looks at the whole world and
names the steps that are safe now; what must wait is simply not named yet.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

import msgspec

from modelyard.core.deployments import Deployment, DeploymentState, Replica, SlotSpec
from modelyard.core.gateways import GatewayFacts
from modelyard.core.replicas import ALIVE, ReplicaState
from modelyard.core.restarts import RestartRule, failures_in_a_row, wait_s
from modelyard.core.rollout import Rollout
from modelyard.core.routes import Slot
from modelyard.core.sights import Judged, Routed, sight_of
from modelyard.core.signals import Sight, advance

SERVING = frozenset(
    {ReplicaState.STARTING, ReplicaState.WARMING, ReplicaState.READY, ReplicaState.UNHEALTHY}
)
"""States of a replica that counts towards those that are wanted."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that the decisions keep."""

    restart: RestartRule = RestartRule()
    gateway_dead_after_s: float = 10.0
    unhealthy_budget_s: float = 30.0
    """A replica that does not answer its probe for so long is replaced."""
    stopped_kept: int = 20
    """Stopped replicas remembered per deployment."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known at one moment."""

    deployments: tuple[Deployment, ...]
    replicas: tuple[Replica, ...]
    gateways: tuple[GatewayFacts, ...] = ()
    listening_since: float = 0.0
    """Unix seconds; since when gateways could report. Before, silence says nothing."""
    routes_version: int = 0
    """Version of the published snapshot."""
    routed: frozenset[str] = frozenset()
    """Replicas in the published snapshot."""
    routed_live: Mapping[str, Slot] = {}
    """Deployment → the slot that the published snapshot sends its requests to."""
    judged: Mapping[str, Judged] = {}
    """By rollout id."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Start one more replica."""

    deployment: str
    slot: Slot
    spec: SlotSpec


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Send it nothing more; `error` when that is because it failed."""

    replica: str
    error: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """End its worker: nothing is in flight there, or the drain budget has passed."""

    replica: str
    in_flight: int = 0
    """Requests that this cuts."""


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """Move a rollout on, if it still is what was looked at."""

    deployment: str
    seen: Rollout
    next: Rollout


class Remove(msgspec.Struct, frozen=True, kw_only=True):
    """Forget a deployment that was taken away and whose replicas are gone."""

    deployment: str


class ForgetReplicas(msgspec.Struct, frozen=True, kw_only=True):
    """Forget the oldest stopped replicas."""

    replicas: tuple[str, ...]


Action = Launch | Drain | Stop | Advance | Remove | ForgetReplicas


def decide(world: World, now: float, rules: Rules | None = None) -> list[Action]:
    """Name the steps that are safe at `now` (Unix seconds)."""
    rules = rules or Rules()
    each = by_deployment(world.replicas)
    actions: list[Action] = []
    for deployment in world.deployments:
        replicas = each.pop(deployment.name, [])
        moved = _advanced(world, deployment, replicas, now, rules)
        if moved is not None:
            actions.append(moved)  # what it asks for is named when it is in force
        else:
            actions += _deployment_steps(deployment, replicas, now, rules)
        actions += _stops(world, replicas, deployment.policy.timeouts.total_s, now, rules)
        actions += _forgotten(deployment, replicas, rules)
    for orphans in each.values():
        actions += [Drain(replica=r.id) for r in orphans if r.state in SERVING]
        actions += _stops(world, orphans, 0.0, now, rules)
        actions += _forgotten(None, orphans, rules)
    return actions


def by_deployment(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    """The replicas of each deployment that has any, in their order."""
    found: dict[str, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.deployment, []).append(replica)
    return found


def wanted_slots(deployment: Deployment) -> tuple[Slot, ...]:
    """Slots whose replicas should run."""
    return deployment.arranged.runs


def members(deployment: Deployment, slot: Slot, replicas: list[Replica]) -> list[Replica]:
    """The replicas, stopped ones too, that were launched for what is in `slot` now."""
    spec = deployment.slot(slot)
    if spec is None:
        return []
    return [r for r in replicas if r.slot == slot and r.generation == spec.generation]


def state_of(deployment: Deployment, replicas: list[Replica]) -> DeploymentState:
    """Where the deployment is, as people are told."""
    if deployment.removed:
        return DeploymentState.STOPPING
    if deployment.live is None:
        failed = deployment.incoming is None
        return DeploymentState.FAILED if failed else DeploymentState.STARTING
    if deployment.arranged.holds:
        return DeploymentState.MOVING
    if ready_count(deployment, deployment.live, replicas) < wanted_count(
        deployment, deployment.live
    ):
        return DeploymentState.DEGRADED
    return DeploymentState.LIVE if deployment.incoming is None else DeploymentState.MOVING


def wanted_count(deployment: Deployment, slot: Slot) -> int:
    """Replicas that should run in `slot`."""
    spec = deployment.slot(slot)
    return 0 if spec is None else spec.replicas


def ready_count(deployment: Deployment, slot: Slot, replicas: list[Replica]) -> int:
    """Ready replicas of what is in `slot` now."""
    of_slot = members(deployment, slot, replicas)
    return sum(replica.state is ReplicaState.READY for replica in of_slot)


def rollout_sight(
    world: World, deployment: Deployment, replicas: list[Replica], now: float, rules: Rules
) -> Sight | None:
    """What is seen of the deployment's rollout; None when none is under way."""
    rollout = deployment.rollout
    if rollout is None or rollout.over or deployment.removed:
        return None
    routed = Routed(
        version=world.routes_version,
        live=world.routed_live,
        gateways=tuple(_living(world, now, rules)),
        heard=now - world.listening_since > rules.gateway_dead_after_s,
    )
    judged = world.judged.get(rollout.id, Judged())
    return sight_of(deployment, rollout, replicas, routed, judged, rules.restart)


def _advanced(
    world: World, deployment: Deployment, replicas: list[Replica], now: float, rules: Rules
) -> Advance | None:
    sight = rollout_sight(world, deployment, replicas, now, rules)
    if sight is None or deployment.rollout is None:
        return None
    after = advance(deployment.rollout, sight, now)
    if after == deployment.rollout:
        return None
    return Advance(deployment=deployment.name, seen=deployment.rollout, next=after)


def _deployment_steps(
    deployment: Deployment, replicas: list[Replica], now: float, rules: Rules
) -> Iterator[Action]:
    kept: set[str] = set()
    for slot in wanted_slots(deployment):
        spec = deployment.slot(slot)
        if spec is None:
            continue
        of_slot = members(deployment, slot, replicas)
        serving = sorted((r for r in of_slot if r.state in SERVING), key=_worth_keeping)
        kept |= {replica.id for replica in serving[: spec.replicas]}
        if _must_wait(deployment, spec, replicas):
            continue
        failures = failures_in_a_row(of_slot, rules.restart)
        missing = spec.replicas - len(serving)
        due = failures.last_at + wait_s(failures.in_a_row, rules.restart)
        if missing > 0 and not failures.fatal and (failures.in_a_row == 0 or now >= due):
            for _ in range(missing):
                yield Launch(deployment=deployment.name, slot=slot, spec=spec)
    yield from _drains(replicas, kept, now, rules)
    if deployment.removed and all(r.state is ReplicaState.STOPPED for r in replicas):
        yield Remove(deployment=deployment.name)


def _must_wait(deployment: Deployment, spec: SlotSpec, replicas: list[Replica]) -> bool:
    """Whether another version still holds the only accelerator."""
    rollout = deployment.rollout
    exclusive = rollout is not None and rollout.exclusive
    return exclusive and any(r.state in ALIVE and r.generation != spec.generation for r in replicas)


def _drains(replicas: list[Replica], kept: set[str], now: float, rules: Rules) -> Iterator[Action]:
    for replica in replicas:
        if replica.state not in SERVING:
            continue
        if replica.id not in kept:
            yield Drain(replica=replica.id)
        elif (
            replica.state is ReplicaState.UNHEALTHY
            and now - replica.changed_at > rules.unhealthy_budget_s
        ):
            silent_s = now - replica.changed_at
            yield Drain(
                replica=replica.id, error=f"it did not answer its probe for {silent_s:.0f} s"
            )


def _stops(
    world: World, replicas: list[Replica], budget_s: float, now: float, rules: Rules
) -> Iterator[Action]:
    for replica in replicas:
        if replica.state is not ReplicaState.DRAINING:
            continue
        living = _living(world, now, rules)
        in_flight = sum(gateway.in_flight.get(replica.id, 0) for gateway in living)
        if now - replica.changed_at >= budget_s:
            yield Stop(replica=replica.id, in_flight=in_flight)
        elif replica.ready_at is None or _is_drained(world, replica, living, now, rules):
            yield Stop(replica=replica.id)


def _living(world: World, now: float, rules: Rules) -> list[GatewayFacts]:
    return [g for g in world.gateways if now - g.reported_at <= rules.gateway_dead_after_s]


def _is_drained(
    world: World, replica: Replica, living: list[GatewayFacts], now: float, rules: Rules
) -> bool:
    """Whether no gateway can have, or get, a request there (promise D4)."""
    if replica.id in world.routed:
        return False
    heard = living or now - world.listening_since > rules.gateway_dead_after_s
    return bool(heard) and all(
        gateway.routes_version >= world.routes_version and gateway.in_flight.get(replica.id, 0) == 0
        for gateway in living
    )


def _forgotten(
    deployment: Deployment | None, replicas: list[Replica], rules: Rules
) -> Iterator[Action]:
    stopped = sorted(
        (r for r in replicas if r.state is ReplicaState.STOPPED), key=lambda r: r.changed_at
    )
    # What was taken away leaves no record behind that a later one of its name could be judged by.
    keep = 0 if deployment is None or deployment.removed else rules.stopped_kept
    surplus = stopped[: max(0, len(stopped) - keep)]
    if surplus:
        yield ForgetReplicas(replicas=tuple(replica.id for replica in surplus))


def _worth_keeping(replica: Replica) -> tuple[int, float, str]:
    """Sorts what should stay before what may go: what serves first, then the oldest."""
    match replica.state:
        case ReplicaState.READY:
            rank = 0
        case ReplicaState.UNHEALTHY:
            rank = 1
        case ReplicaState.WARMING:
            rank = 2
        case ReplicaState.STARTING:
            rank = 3
        case ReplicaState.DRAINING | ReplicaState.STOPPED:
            rank = 4
        case _:
            assert_never(replica.state)
    return rank, replica.created_at, replica.id
