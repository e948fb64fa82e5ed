"""Deployments and replicas as the API shows them."""

from collections.abc import Mapping, Sequence

import msgspec

from modelyard.api.messages import (
    DeploymentView,
    EntryView,
    ReplicaView,
    RolloutBrief,
    RolloutView,
    SmokeView,
)
from modelyard.core.deployments import Deployment, DeploymentState, Replica
from modelyard.core.reconcile import members, ready_count, state_of, wanted_count
from modelyard.core.replicas import ReplicaState
from modelyard.core.restarts import RestartRule, failures_in_a_row
from modelyard.core.routes import Slot
from modelyard.state.rollouts import KnownRollout


def deployment_view(
    deployment: Deployment,
    replicas: Sequence[Replica],
    default: str | None,
    note: str = "",
    waits_for: str = "",
) -> DeploymentView:
    """The slot shown is the live one, else the incoming one, else the one that failed."""
    own = [replica for replica in replicas if replica.deployment == deployment.name]
    shown = _shown_slot(deployment)
    spec = deployment.slot(shown)
    incoming = None if deployment.incoming is None else deployment.slot(deployment.incoming)
    state = state_of(deployment, own)
    trouble = ""
    if state is DeploymentState.DEGRADED:
        trouble = _trouble(members(deployment, shown, own))
    message = note or trouble or deployment.message
    return DeploymentView(
        name=deployment.name,
        model=spec.model if spec else "",
        version=spec.version if spec else 0,
        digest=spec.digest if spec else "",
        engine=spec.engine if spec else "",
        state=state,
        live=deployment.live,
        incoming=deployment.incoming,
        incoming_version=incoming.version if incoming else None,
        replicas_wanted=0 if deployment.removed else wanted_count(deployment, shown),
        replicas_ready=ready_count(deployment, shown, own),
        generation=deployment.generation,
        default=deployment.name == default,
        message=message,
        created_at=deployment.created_at,
        rollout=_brief(deployment, waits_for),
    )


def rollout_view(known: KnownRollout, waits_for: str) -> RolloutView:
    """One rollout with its history."""
    rollout = known.rollout
    return RolloutView(
        id=rollout.id,
        deployment=known.deployment,
        version=known.version,
        version_before=known.version_before,
        phase=rollout.phase,
        step=rollout.step,
        started_at=rollout.started_at,
        entered_at=rollout.entered_at,
        paused=rollout.paused_at is not None,
        reason=rollout.reason,
        waits_for="" if rollout.over else waits_for,
        history=tuple(
            EntryView(at=entry.at, phase=entry.phase, step=entry.step, why=entry.why)
            for entry in rollout.history
        ),
        smoke=tuple(SmokeView(**msgspec.to_builtins(result)) for result in rollout.smoke),
        finished=rollout.finished,
        cut=rollout.cut,
        finding=None if rollout.finding is None else msgspec.to_builtins(rollout.finding),
        plan=msgspec.to_builtins(rollout.plan),
    )


def _brief(deployment: Deployment, waits_for: str) -> RolloutBrief | None:
    rollout = deployment.rollout
    if rollout is None:
        return None
    spec = deployment.slot(rollout.candidate)
    return RolloutBrief(
        id=rollout.id,
        version="" if spec is None else f"{spec.model}:{spec.version}",
        strategy=rollout.plan.strategy,
        phase=rollout.phase,
        step=rollout.step,
        steps=len(rollout.plan.steps),
        share=deployment.arranged.share,
        paused=rollout.paused_at is not None,
        reason=rollout.reason,
        waits_for="" if rollout.over else waits_for,
    )


def replica_view(replica: Replica, in_flight: Mapping[str, int]) -> ReplicaView:
    """One worker with what the gateways have in flight there."""
    return ReplicaView(
        id=replica.id,
        deployment=replica.deployment,
        version=replica.version,
        digest=replica.digest,
        slot=replica.slot,
        state=replica.state,
        engine=replica.engine,
        launcher=replica.launcher,
        pid=replica.pid,
        url=replica.url,
        created_at=replica.created_at,
        ready_at=replica.ready_at,
        error=replica.error,
        in_flight=in_flight.get(replica.id, 0),
    )


def _trouble(replicas: Sequence[Replica]) -> str:
    """Why replicas are missing; what was mended since by one that serves is history."""
    failures = failures_in_a_row(replicas, RestartRule())
    mended = any(
        replica.state is ReplicaState.READY and (replica.ready_at or 0.0) > failures.last_at
        for replica in replicas
    )
    return "" if mended else failures.last_error


def _shown_slot(deployment: Deployment) -> Slot:
    if deployment.live is not None:
        return deployment.live
    if deployment.incoming is not None:
        return deployment.incoming
    blue, green = deployment.blue, deployment.green
    newer_green = green is not None and (blue is None or green.generation > blue.generation)
    return "green" if newer_green else "blue"
