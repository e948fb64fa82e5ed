"""From everything that is known to what one rollout depends on."""

from collections.abc import Mapping, Sequence

import msgspec

from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.gateways import GatewayFacts
from modelyard.core.replicas import ALIVE, ReplicaState
from modelyard.core.restarts import RestartRule, failures_in_a_row
from modelyard.core.rollout import Phase, Rollout
from modelyard.core.routes import Slot
from modelyard.core.signals import UNPUBLISHED, Sight

UNHEARD = "that reports, if there is one,"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What tests and comparisons said of a rollout's candidate so far."""

    tests_passed: bool | None = None
    tests_told: str = ""
    alarm: str = ""
    hold: str = "the comparison has not begun"


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """What is published, and who is known to route by it."""

    version: int = 0
    live: Mapping[str, Slot] = {}
    """Deployment → the slot that the published snapshot sends its requests to."""
    gateways: tuple[GatewayFacts, ...] = ()
    """Those that are alive."""
    heard: bool = True
    """Whether silence means that there is none: gateways had the time to report."""

    @property
    def behind(self) -> tuple[str, ...]:
        """Living gateways that have not applied it."""
        if not self.gateways and not self.heard:
            return (UNHEARD,)
        return tuple(each.id for each in self.gateways if each.routes_version < self.version)


def sight_of(
    deployment: Deployment,
    rollout: Rollout,
    replicas: Sequence[Replica],
    routed: Routed,
    judged: Judged,
    rule: RestartRule,
) -> Sight:
    """What is seen of a rollout; `replicas` are the deployment's own."""
    spec = deployment.slot(rollout.candidate)
    generation = -1 if spec is None else spec.generation
    candidates = [r for r in replicas if r.generation == generation]
    others = [r for r in replicas if r.generation != generation]
    before = None if rollout.before is None else deployment.slot(rollout.before)
    former = [r for r in others if before is not None and r.generation == before.generation]
    # Of a first version, no gateway can route to anything else.
    behind = routed.behind if routed.gateways or rollout.before is not None else ()
    if not behind and routed.live.get(deployment.name) != deployment.arranged.live:
        behind = (UNPUBLISHED,)
    return Sight(
        ready=_count(candidates, ReplicaState.READY),
        wanted=1 if spec is None else spec.replicas,
        failure=_failure(rollout, spec, candidates, rule),
        tests_passed=judged.tests_passed,
        tests_told=judged.tests_told,
        alarm=judged.alarm,
        hold=judged.hold,
        unacknowledged=behind,
        before_running=sum(r.state in ALIVE for r in others),
        before_ready=_count(former, ReplicaState.READY),
        before_lost=_lost(rollout, former, rule),
        candidate_running=sum(r.state in ALIVE for r in candidates),
    )


def _lost(rollout: Rollout, former: Sequence[Replica], rule: RestartRule) -> str:
    """Why the version before will not come back, as far as it was tried in this phase: how often
    it failed in the time before it stopped says nothing."""
    ever = failures_in_a_row(former, rule)
    now = failures_in_a_row([r for r in former if r.created_at >= rollout.entered_at], rule)
    return ever.last_error if ever.fatal or now.in_a_row >= rule.bring_up_failures else ""


def _failure(
    rollout: Rollout, spec: SlotSpec | None, candidates: Sequence[Replica], rule: RestartRule
) -> str:
    """Why the candidate's replicas do not serve, or should not go on to."""
    if spec is None:
        return "its slot holds something else"
    name = f"{spec.model}:{spec.version}"
    failures = failures_in_a_row(candidates, rule)
    if failures.fatal or failures.in_a_row >= rule.bring_up_failures:
        tries = "" if failures.fatal else f" {failures.in_a_row} times in a row"
        return f"{name} did not start{tries}: {failures.last_error}"
    if rollout.phase is Phase.LAUNCHING:
        return ""
    crashed = [r for r in candidates if r.state is ReplicaState.STOPPED and r.error and r.ready_at]
    if crashed:
        return f"{name} crashed after it was ready: {crashed[-1].error}"
    silent = _count(candidates, ReplicaState.UNHEALTHY)
    if silent and not _count(candidates, ReplicaState.READY):
        return f"{name} was ready and does not answer its probe any more"
    return ""


def _count(replicas: Sequence[Replica], state: ReplicaState) -> int:
    return sum(replica.state is state for replica in replicas)
