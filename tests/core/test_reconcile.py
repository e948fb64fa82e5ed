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
    Action,
    Advance,
    Drain,
    ForgetReplicas,
    Launch,
    Remove,
    Rules,
    Stop,
    World,
    decide,
    state_of,
    wanted_slots,
)
from modelyard.core.replicas import ALIVE, ReplicaState, can_move
from modelyard.core.rollout import (
    MOVES,
    Phase,
    Plan,
    Signal,
    Step,
    Strategy,
    begin,
    move,
    pause,
    resume,
)
from modelyard.core.routes import ModelRoute, Slot
from modelyard.core.sights import Judged
from modelyard.core.wishes import GIVES_WAY, deployed, undeployed

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


def coming(slot: Slot = "blue", **changes: object) -> Deployment:
    """On its way into `slot`, beside what is live in the other one, if anything is."""
    base = deployment(**changes)
    return base.with_rollout(begin("yardling-2", Plan(), candidate=slot, before=base.live, now=0.0))


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


def _advanced(actions: list[Action]) -> Advance:
    [action] = actions
    assert isinstance(action, Advance)
    return action


def test_damaged_bytes_fail_what_is_coming_at_the_first_try() -> None:
    first = coming(live=None)
    moved = _advanced(steps(first, crashed(1, fatal=True)))
    assert moved.next.phase is Phase.UNDOING
    assert moved.next.reason == "yardling:1 did not start: exit code 3"


def test_a_crash_loop_fails_what_is_coming_with_the_last_words() -> None:
    first = coming(live=None)
    loop = [crashed(n, changed_at=n + 0.5) for n in range(3)]
    assert "3 times in a row: exit code 3" in _advanced(steps(first, *loop)).next.reason


def test_a_crash_loop_of_what_is_live_goes_on_trying_and_is_degraded() -> None:
    loop = [crashed(n, changed_at=n + 0.5) for n in range(8)]
    assert steps(deployment(), *loop, now=20.0) == []
    assert [type(a) for a in steps(deployment(), *loop, now=40.0)] == [Launch]
    assert state_of(deployment(), loop) is DeploymentState.DEGRADED


def test_it_is_tested_when_all_incoming_replicas_are_ready() -> None:
    moving = coming("green", green=spec(2, replicas=2, generation=2))
    old = replica(1, S.READY)
    one = replica(2, S.READY, slot="green", generation=2)
    other = replica(3, S.WARMING, slot="green", generation=2)
    assert steps(moving, old, one, other) == []
    ready = msgspec.structs.replace(other, state=S.READY)
    assert _advanced(steps(moving, old, one, ready)).next.phase is Phase.TESTING


def test_a_candidate_that_crashes_after_it_was_ready_goes_back() -> None:
    moving = coming("green", green=spec(2, generation=2))
    assert moving.rollout
    testing = moving.with_rollout(move(moving.rollout, Signal.READY, "", 5.0))
    dead = crashed(2, slot="green", generation=2, ready_at=4.0)
    moved = _advanced(steps(testing, replica(1, S.READY), dead))
    assert moved.next.phase is Phase.UNDOING
    assert "crashed after it was ready" in moved.next.reason


def test_the_switch_waits_for_every_gateway_and_for_the_snapshot() -> None:
    moving = coming("green", green=spec(2, generation=2))
    rollout = moving.rollout
    for happened in (Signal.READY, Signal.PASSED, Signal.STEPS_OVER):
        assert rollout
        rollout = move(rollout, happened, "", 5.0)
    assert rollout
    switching = moving.with_rollout(rollout)
    both = (replica(1, S.READY), replica(2, S.READY, slot="green", generation=2))
    behind = GatewayFacts(id="g", reported_at=10.0, routes_version=6)
    world: dict[str, object] = {"routes_version": 7, "gateways": (behind,)}
    assert steps(switching, *both, **world, routed_live={NAME: "green"}) == []
    world["gateways"] = (msgspec.structs.replace(behind, routes_version=7),)
    assert steps(switching, *both, **world, routed_live={NAME: "blue"}) == []
    moved = _advanced(steps(switching, *both, **world, routed_live={NAME: "green"}))
    assert moved.next.phase is Phase.BAKING


def test_with_one_accelerator_nothing_is_launched_while_another_version_runs() -> None:
    base = deployment(green=spec(2, generation=2))
    plan = Plan(strategy="recreate")
    moving = base.with_rollout(begin("yardling-2", plan, candidate="green", before="blue", now=0))
    assert steps(moving, replica(1, S.READY)) == [Drain(replica="r1")]
    assert steps(moving, replica(1, S.DRAINING, changed_at=9.0), now=9.5, gateways=(
        GatewayFacts(id="g", reported_at=9.0, routes_version=0, in_flight={"r1": 1}),
    )) == []  # fmt: skip
    gone = _advanced(steps(moving, replica(1, S.STOPPED))).next
    assert gone.phase is Phase.LAUNCHING
    launching = moving.with_rollout(gone)
    assert steps(launching, replica(1, S.DRAINING, changed_at=9.5)) == []
    [launch] = steps(launching, replica(1, S.STOPPED))
    assert isinstance(launch, Launch)
    assert launch.slot == "green"


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
        self.failing_tests = False
        self.worse = False

    @initialize(replicas=st.integers(1, 3), rounds=st.integers(0, 12))
    def deploy_first(self, replicas: int, rounds: int) -> None:
        self.deployment = deployed(None, NAME, spec(1, replicas), now=self.now)
        self.gateways["a"] = GatewayFacts(id="a", reported_at=self.now, routes_version=0)
        self.go_well(rounds)

    # What may happen.

    @rule(
        version=st.integers(1, 4),
        replicas=st.integers(1, 3),
        broken=st.booleans(),
        strategy=st.sampled_from(("blue-green", "canary", "shadow", "recreate")),
    )
    @precondition(lambda self: not (self.deployment and self._is_moving()))
    def deploy(self, version: int, replicas: int, broken: bool, strategy: Strategy) -> None:
        if broken:
            self.broken_versions.add(version)
        else:
            self.broken_versions.discard(version)
        steps = (Step(share=0.25, min_s=10),) if strategy in ("canary", "shadow") else ()
        plan = Plan(strategy=strategy, steps=steps, bake_s=20)
        wished = spec(version, replicas)
        self.deployment = deployed(self.deployment, NAME, wished, now=self.now, plan=plan)

    def _is_moving(self) -> bool:
        assert self.deployment
        rollout = self.deployment.rollout
        moving = rollout is not None and rollout.phase not in GIVES_WAY
        return self.deployment.removed or moving

    @rule(failing=st.booleans(), worse=st.booleans())
    def judge(self, failing: bool, worse: bool) -> None:
        self.failing_tests, self.worse = failing, worse

    @rule(said=st.sampled_from(("pause", "resume", "promote", "abort")))
    @precondition(lambda self: self.deployment and self.deployment.rollout)
    def command(self, said: str) -> None:
        assert self.deployment
        assert self.deployment.rollout
        rollout = self.deployment.rollout
        if said == "pause":
            rollout = pause(rollout, self.now)
        elif said == "resume":
            rollout = resume(rollout, self.now)
        else:
            happened = Signal.PROMOTED if said == "promote" else Signal.ABORTED
            if (rollout.phase, happened) in MOVES:
                rollout = move(rollout, happened, "by ann", self.now)
        self.deployment = self.deployment.with_rollout(rollout)

    @rule(sure=st.integers(0, 4))
    @precondition(lambda self: self.deployment)
    def undeploy(self, sure: int) -> None:
        if sure or self.count < 12:
            return
        assert self.deployment
        self.deployment = undeployed(self.deployment, self.now)

    @rule(pick=st.integers(0, 20), what=st.sampled_from(("crash", "hang", "answer again")))
    def trouble(self, pick: int, what: str) -> None:
        if what == "crash":
            self._change_one(pick, ALIVE, S.STOPPED, error="killed by SIGKILL")
        elif what == "hang":
            self._change_one(pick, {S.READY}, S.UNHEALTHY)
        else:
            self._change_one(pick, {S.UNHEALTHY}, S.READY)

    @rule(pick=st.integers(0, 20))
    def load(self, pick: int) -> None:
        self._advance(pick)

    @rule(rounds=st.integers(1, 8))
    def go_well(self, rounds: int) -> None:
        """Everything loads and is acknowledged for a while: that is how the later phases come."""
        for _ in range(rounds):
            for number in range(len(self.replicas)):
                self._advance(number)
            for name in self.gateways:
                self._report(name, self.version, 0)
            self.now += 4.0
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
    def only_one_slot_is_routed_to_but_in_a_canary(self) -> None:
        for model in self.routes:
            assert sum(slot.weight for slot in model.slots) in (0.0, 1.0)
            shared = sum(slot.weight > 0 for slot in model.slots)
            rollout = self.deployment.rollout if self.deployment else None
            assert shared <= 1 or (rollout and rollout.plan.strategy == "canary")

    @invariant()
    def what_served_goes_on_to_serve(self) -> None:
        """Once a version was live, one is: the routes never lead nowhere but to be held."""
        if self.deployment is None or self.deployment.live is None:
            return
        asked = self.deployment.arranged
        assert asked.live in asked.runs or asked.holds

    @invariant()
    def versions_take_turns_where_only_one_can_run(self) -> None:
        rollout = self.deployment.rollout if self.deployment else None
        if rollout is None or not rollout.exclusive or rollout.before is None:
            return
        starting = {
            r.generation
            for r in self.replicas.values()
            if r.state in ALIVE and r.created_at >= rollout.started_at
        }
        assert len(starting) <= 1

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
        self.failing_tests = self.worse = False
        if self.deployment and self.deployment.rollout:
            resumed = resume(self.deployment.rollout, self.now)
            self.deployment = self.deployment.with_rollout(resumed)
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
        assert not self.deployment.rollout or self.deployment.rollout.over
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
            routed_live={
                m.deployment: s.slot for m in self.routes for s in m.slots if s.weight == 1
            },
            judged=self._judged(),
        )

    def _judged(self) -> dict[str, Judged]:
        rollout = self.deployment.rollout if self.deployment else None
        if rollout is None:
            return {}
        passed = not self.failing_tests if rollout.phase is Phase.TESTING else None
        return {
            rollout.id: Judged(
                tests_passed=passed, alarm="it does worse" if self.worse else "", hold=""
            )
        }

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
            case Advance():
                self._move_on(action)
            case Remove():
                assert not any(r.state in ALIVE for r in self.replicas.values())
                self.deployment = None
            case ForgetReplicas():
                for name in action.replicas:
                    assert self.replicas.pop(name).state is S.STOPPED

    def _move_on(self, action: Advance) -> None:
        assert self.deployment
        assert self.deployment.rollout == action.seen
        if action.next.phase is Phase.SWITCHING:
            wanted = self.deployment.slot(action.next.candidate)
            assert wanted
            own = [r for r in self.replicas.values() if r.generation == wanted.generation]
            assert not self.worse
            assert any(r.ready_at for r in own)
        self.deployment = self.deployment.with_rollout(action.next)

    def _successor_is_live(self, drained: Replica) -> None:
        """A replica of a slot that runs goes only when more serve there than are wanted."""
        if self.deployment is None or drained.slot not in self.deployment.arranged.runs:
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
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCluster = Cluster.TestCase
