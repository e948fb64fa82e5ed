"""The decisions of the reconcile loop: examples, and properties over any order of events."""

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelyard.core.deployments import Deployment, DeploymentState, Replica, SlotSpec
from modelyard.core.gateways import GatewayFacts
from modelyard.core.publishing import Serving, model_routes
from modelyard.core.reconcile import (
    SERVING,
    AbortIncoming,
    Action,
    Drain,
    ForgetReplicas,
    Launch,
    Remove,
    Rules,
    Stop,
    Switch,
    World,
    decide,
    state_of,
    wanted_slots,
)
from modelyard.core.replicas import ALIVE, ReplicaState, can_move
from modelyard.core.routes import ModelRoute, Slot
from modelyard.core.wishes import deployed, undeployed

S = ReplicaState
NAME = "yardling"
RULES = Rules()
CAN = Serving(operations=("chat",), context_length=512, chat_template=True)


def spec(version: int = 1, replicas: int = 1, generation: int = 1) -> SlotSpec:
    return SlotSpec(
        model=NAME,
        version=version,
        digest=f"sha256:{version}",
        engine="fake",
        replicas=replicas,
        generation=generation,
    )


def deployment(**changes: object) -> Deployment:
    base = Deployment(name=NAME, blue=spec(), live="blue", created_at=0.0)
    return msgspec.structs.replace(base, **changes)


def replica(number: int, state: ReplicaState, *, slot: Slot = "blue", **changes: object) -> Replica:
    base = Replica(
        id=f"r{number}",
        deployment=NAME,
        slot=slot,
        version=1,
        digest="sha256:1",
        engine="fake",
        launcher="process",
        state=state,
        created_at=float(number),
        changed_at=float(number),
        ready_at=1.0 if state in (S.READY, S.UNHEALTHY, S.DRAINING) else None,
        generation=1,
    )
    return msgspec.structs.replace(base, **changes)


def crashed(number: int, **changes: object) -> Replica:
    return replica(number, S.STOPPED, error="exit code 3", **changes)


def steps(
    deployed_: Deployment, *replicas: Replica, now: float = 10.0, **world: object
) -> list[Action]:
    facts = World(deployments=(deployed_,), replicas=replicas, **world)
    return decide(facts, now, RULES)


def test_missing_replicas_are_launched() -> None:
    wished = deployment(blue=spec(replicas=3))
    assert (
        steps(wished, replica(1, S.READY))
        == [Launch(deployment=NAME, slot="blue", spec=spec(replicas=3))] * 2
    )


def test_starting_replicas_count_towards_those_wanted() -> None:
    assert steps(deployment(), replica(1, S.STARTING)) == []


def test_a_killed_replica_is_replaced_at_once() -> None:
    now = 100.0
    dead = crashed(1, changed_at=now, ready_at=99.0)
    assert [type(a) for a in steps(deployment(), dead, now=now)] == [Launch]


def test_a_second_crash_waits() -> None:
    dead = [crashed(1, changed_at=9.0), crashed(9, changed_at=10.0)]
    assert steps(deployment(), *dead, now=10.5) == []
    assert [type(a) for a in steps(deployment(), *dead, now=11.0)] == [Launch]


def test_damaged_bytes_are_not_tried_again() -> None:
    assert steps(deployment(), crashed(1, fatal=True), now=1e6) == []


def test_damaged_bytes_fail_what_is_coming_at_the_first_try() -> None:
    first = deployment(live=None, incoming="blue")
    assert steps(first, crashed(1, fatal=True)) == [
        AbortIncoming(
            deployment=NAME,
            slot="blue",
            generation=1,
            reason="yardling:1 did not start: exit code 3",
        )
    ]


def test_a_crash_loop_fails_what_is_coming_with_the_last_words() -> None:
    first = deployment(live=None, incoming="blue")
    loop = [crashed(n, changed_at=n + 0.5) for n in range(3)]
    [abort] = steps(first, *loop)
    assert isinstance(abort, AbortIncoming)
    assert "3 times in a row: exit code 3" in abort.reason


def test_a_crash_loop_of_what_is_live_goes_on_trying_and_is_degraded() -> None:
    loop = [crashed(n, changed_at=n + 0.5) for n in range(8)]
    assert steps(deployment(), *loop, now=20.0) == []
    assert [type(a) for a in steps(deployment(), *loop, now=40.0)] == [Launch]
    assert state_of(deployment(), loop) is DeploymentState.DEGRADED


def test_the_switch_comes_when_all_incoming_replicas_are_ready() -> None:
    moving = deployment(green=spec(2, replicas=2, generation=2), incoming="green")
    old = replica(1, S.READY)
    one = replica(2, S.READY, slot="green", generation=2)
    other = replica(3, S.WARMING, slot="green", generation=2)
    assert steps(moving, old, one, other) == []
    ready = msgspec.structs.replace(other, state=S.READY)
    assert steps(moving, old, one, ready) == [Switch(deployment=NAME, slot="green", generation=2)]


def test_a_hung_replica_is_replaced() -> None:
    hung = replica(1, S.UNHEALTHY)
    [drain] = steps(deployment(), hung, now=1 + RULES.unhealthy_budget_s + 1)
    assert isinstance(drain, Drain)
    assert "did not answer" in drain.error


def test_a_draining_replica_waits_for_every_living_gateway() -> None:
    draining = replica(5, S.DRAINING)
    behind = GatewayFacts(id="g", reported_at=10.0, routes_version=6)
    world = {"routes_version": 7, "gateways": (behind,)}
    kept = deployment(live=None)
    assert steps(kept, draining, **world) == []
    busy = msgspec.structs.replace(behind, routes_version=7, in_flight={"r5": 1})
    assert steps(kept, draining, routes_version=7, gateways=(busy,)) == []
    idle = msgspec.structs.replace(busy, in_flight={})
    assert steps(kept, draining, routes_version=7, gateways=(idle,)) == [Stop(replica="r5")]
    dead = msgspec.structs.replace(busy, reported_at=-1.0)
    assert steps(kept, draining, gateways=(dead,), listening_since=-20.0) == [Stop(replica="r5")]


def test_a_draining_replica_that_is_still_routed_to_is_not_stopped() -> None:
    current = GatewayFacts(id="g", reported_at=10.0, routes_version=7)
    world = {"routes_version": 7, "gateways": (current,), "routed": frozenset({"r5"})}
    assert steps(deployment(live=None), replica(5, S.DRAINING), **world) == []


def test_what_was_taken_away_leaves_no_record_to_judge_by() -> None:
    gone = deployment(live=None, removed=True)
    assert steps(gone, crashed(1)) == [
        Remove(deployment=NAME),
        ForgetReplicas(replicas=("r1",)),
    ]


def test_a_silent_start_of_the_controller_is_not_taken_for_the_absence_of_gateways() -> None:
    draining = replica(5, S.DRAINING)
    assert steps(deployment(live=None), draining, listening_since=9.0) == []


def test_the_drain_budget_bounds_the_wait_and_tells_what_is_cut() -> None:
    draining = replica(5, S.DRAINING)
    now = 5 + deployment().policy.timeouts.total_s
    busy = GatewayFacts(id="g", reported_at=now, routes_version=1, in_flight={"r5": 2})
    assert steps(deployment(live=None), draining, now=now, gateways=(busy,)) == [
        Stop(replica="r5", in_flight=2)
    ]


def test_scaling_in_takes_the_youngest() -> None:
    ready = [replica(n, S.READY) for n in range(3)]
    assert steps(deployment(), *ready) == [Drain(replica="r1"), Drain(replica="r2")]


def test_replicas_of_no_deployment_are_drained_stopped_and_forgotten() -> None:
    facts = World(
        deployments=(),
        replicas=(replica(1, S.READY), replica(2, S.DRAINING), replica(3, S.STOPPED)),
    )
    assert decide(facts, 10.0) == [
        Drain(replica="r1"),
        Stop(replica="r2"),
        ForgetReplicas(replicas=("r3",)),
    ]


class Cluster(RuleBasedStateMachine):
    """A world that obeys `decide` while replicas crash, load and hang, and gateways lag or die."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.deployment: Deployment | None = None
        self.replicas: dict[str, Replica] = {}
        self.routes: tuple[ModelRoute, ...] = ()
        self.version = 0
        self.gateways: dict[str, GatewayFacts] = {}
        self.count = 0
        self.broken_versions: set[int] = set()

    @initialize(replicas=st.integers(1, 3))
    def deploy_first(self, replicas: int) -> None:
        self.deployment = deployed(None, NAME, spec(1, replicas), now=self.now)
        self.gateways["a"] = GatewayFacts(id="a", reported_at=self.now, routes_version=0)

    # What may happen.

    @rule(version=st.integers(1, 4), replicas=st.integers(1, 3), broken=st.booleans())
    @precondition(
        lambda self: not (self.deployment and (self.deployment.incoming or self.deployment.removed))
    )
    def deploy(self, version: int, replicas: int, broken: bool) -> None:
        if broken:
            self.broken_versions.add(version)
        else:
            self.broken_versions.discard(version)
        self.deployment = deployed(self.deployment, NAME, spec(version, replicas), now=self.now)

    @rule(sure=st.integers(0, 4))
    @precondition(lambda self: self.deployment)
    def undeploy(self, sure: int) -> None:
        if sure:
            return
        assert self.deployment
        self.deployment = undeployed(self.deployment)

    @rule(pick=st.integers(0, 20))
    def crash(self, pick: int) -> None:
        self._change_one(pick, ALIVE, S.STOPPED, error="killed by SIGKILL")

    @rule(pick=st.integers(0, 20))
    def hang(self, pick: int) -> None:
        self._change_one(pick, {S.READY}, S.UNHEALTHY)

    @rule(pick=st.integers(0, 20))
    def answer_again(self, pick: int) -> None:
        self._change_one(pick, {S.UNHEALTHY}, S.READY)

    @rule(pick=st.integers(0, 20))
    def load(self, pick: int) -> None:
        self._advance(pick)

    @rule()
    def load_all(self) -> None:
        for number in range(2 * len(self.replicas)):
            self._advance(number)
        self.step()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    @rule(gateway=st.sampled_from(["a", "b"]), in_flight=st.integers(0, 2))
    def report(self, gateway: str, in_flight: int) -> None:
        """Reports what it has applied before; requests are in flight where routes lead."""
        known = self.gateways.get(gateway)
        self._report(gateway, known.routes_version if known else 0, in_flight)

    @rule(gateway=st.sampled_from(["a", "b"]), in_flight=st.integers(0, 2))
    def acknowledge(self, gateway: str, in_flight: int) -> None:
        self._report(gateway, self.version, in_flight)

    @rule()
    def step(self) -> None:
        """What the controller does: decide, apply, publish."""
        for action in decide(self._world(), self.now, RULES):
            self._apply(action)
        self._publish()

    # What must hold, always.

    @invariant()
    def only_one_slot_is_routed_to(self) -> None:
        for model in self.routes:
            assert sum(slot.weight for slot in model.slots) in (0.0, 1.0)
            assert sum(bool(slot.replicas) for slot in model.slots) <= 1

    @invariant()
    def no_more_serve_than_are_wanted(self) -> None:
        if self.deployment is None:
            return
        for slot in wanted_slots(self.deployment):
            wanted = self.deployment.slot(slot)
            assert wanted
            own = [
                r
                for r in self.replicas.values()
                if r.slot == slot and r.generation == wanted.generation and r.state in SERVING
            ]
            # Scaling in drains in the next step.
            assert len(own) <= max(3, wanted.replicas)

    def teardown(self) -> None:
        """Once faults end, exactly what is wanted runs."""
        self.broken_versions.clear()
        for _ in range(40):
            self.now += 31.0
            for name in self.gateways:
                self._report(name, self.version, 0)
            for number in range(len(self.replicas)):
                for _ in range(2):
                    self._advance(number)
            for r in list(self.replicas.values()):
                if r.state is S.UNHEALTHY:
                    self._move(r, S.READY)
            self.step()
        alive = [r for r in self.replicas.values() if r.state in ALIVE]
        if self.deployment is None or self.deployment.live is None:
            assert not alive
            return
        assert self.deployment.incoming is None
        wanted = self.deployment.slot(self.deployment.live)
        assert wanted
        assert [r.state for r in alive] == [S.READY] * wanted.replicas
        assert {r.generation for r in alive} == {wanted.generation}
        assert {r.id for m in self.routes for s in m.slots for r in s.replicas} == {
            r.id for r in alive
        }

    # How the world obeys.

    def _world(self) -> World:
        return World(
            deployments=(self.deployment,) if self.deployment else (),
            replicas=tuple(self.replicas.values()),
            gateways=tuple(self.gateways.values()),
            listening_since=0.0,
            routes_version=self.version,
            routed=frozenset(r.id for m in self.routes for s in m.slots for r in s.replicas),
        )

    def _apply(self, action: Action) -> None:
        match action:
            case Launch():
                self.count += 1
                self.replicas[f"r{self.count}"] = replica(
                    self.count,
                    S.STARTING,
                    slot=action.slot,
                    version=action.spec.version,
                    created_at=self.now,
                    changed_at=self.now,
                    generation=action.spec.generation,
                )
            case Drain():
                drained = self.replicas[action.replica]
                if not action.error:
                    self._successor_is_live(drained)
                self._move(drained, S.DRAINING, error=action.error)
            case Stop():
                stopped = self.replicas[action.replica]
                self._nobody_is_there(stopped)
                self._move(stopped, S.STOPPED)
            case Switch():
                assert self.deployment
                assert self.deployment.incoming == action.slot
                wanted = self.deployment.slot(action.slot)
                assert wanted
                ready = [
                    r
                    for r in self.replicas.values()
                    if r.generation == wanted.generation and r.state is S.READY
                ]
                assert len(ready) >= wanted.replicas
                self.deployment = msgspec.structs.replace(
                    self.deployment, live=action.slot, incoming=None
                )
            case AbortIncoming():
                assert self.deployment
                self.deployment = msgspec.structs.replace(
                    self.deployment, incoming=None, message=action.reason
                )
            case Remove():
                assert not any(r.state in ALIVE for r in self.replicas.values())
                self.deployment = None
            case ForgetReplicas():
                for name in action.replicas:
                    assert self.replicas.pop(name).state is S.STOPPED

    def _successor_is_live(self, drained: Replica) -> None:
        """A replica of the live slot goes only when more serve there than are wanted."""
        if self.deployment is None or self.deployment.live != drained.slot:
            return
        wanted = self.deployment.slot(drained.slot)
        if wanted and wanted.generation == drained.generation:
            serving = [
                r
                for r in self.replicas.values()
                if r.generation == drained.generation and r.state in SERVING
            ]
            assert len(serving) > wanted.replicas

    def _nobody_is_there(self, stopped: Replica) -> None:
        budget_s = self.deployment.policy.timeouts.total_s if self.deployment else 0.0
        if stopped.ready_at is None or self.now - stopped.changed_at >= budget_s:
            return
        for gateway in self.gateways.values():
            if self.now - gateway.reported_at <= RULES.gateway_dead_after_s:
                assert gateway.routes_version >= self.version
                assert not gateway.in_flight.get(stopped.id)

    def _publish(self) -> None:
        wanted = (self.deployment,) if self.deployment else ()
        routes = model_routes(wanted, tuple(self.replicas.values()), lambda _: CAN)
        if routes != self.routes:
            self.routes, self.version = routes, self.version + 1

    def _report(self, gateway: str, version: int, in_flight: int) -> None:
        routed = [r.id for r in self.replicas.values() if r.state in (S.READY, S.DRAINING)]
        self.gateways[gateway] = GatewayFacts(
            id=gateway,
            reported_at=self.now,
            routes_version=version,
            in_flight=dict.fromkeys(routed, in_flight),
        )

    def _advance(self, pick: int) -> None:
        loading = [r for r in self.replicas.values() if r.state in (S.STARTING, S.WARMING)]
        if not loading:
            return
        chosen = loading[pick % len(loading)]
        if chosen.version in self.broken_versions:
            self._move(chosen, S.STOPPED, error="out of memory")
        elif chosen.state is S.STARTING:
            self._move(chosen, S.WARMING)
        else:
            self._move(chosen, S.READY, ready_at=self.now)

    def _change_one(
        self, pick: int, states: object, after: ReplicaState, **changes: object
    ) -> None:
        fitting = [r for r in self.replicas.values() if r.state in states]  # type: ignore[operator]
        if fitting:
            self._move(fitting[pick % len(fitting)], after, **changes)

    def _move(self, r: Replica, after: ReplicaState, **changes: object) -> None:
        assert can_move(r.state, after)
        self.replicas[r.id] = msgspec.structs.replace(
            r, state=after, changed_at=self.now, **changes
        )


Cluster.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCluster = Cluster.TestCase
