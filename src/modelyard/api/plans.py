"""What a deployment would do, in lines for people."""

from collections.abc import Iterator

import msgspec

from modelyard.api.messages import PlanView
from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.rollout import Plan


def plan_view(after: Deployment, spec: SlotSpec, live: SlotSpec | None, plan: Plan) -> PlanView:
    """`after`: the deployment with the wish granted; `live`: what serves now."""
    alone = live is None or plan.strategy == "recreate"
    former = 0 if alone or live is None else live.replicas
    peak = spec.replicas + former
    return PlanView(
        deployment=after.name,
        version=f"{spec.model}:{spec.version}",
        digest=spec.digest,
        version_before="" if live is None else f"{live.model}:{live.version}",
        engine=spec.engine,
        replicas=spec.replicas,
        replicas_at_peak=peak,
        accelerators_at_peak=accelerators_at_peak(spec, live, plan),
        steps=tuple(_steps(spec, live, plan)),
        gates=tuple(_gates(plan, compared=live is not None)),
        plan=msgspec.to_builtins(plan),
    )


def accelerators_at_peak(spec: SlotSpec, live: SlotSpec | None, plan: Plan) -> int:
    """What both versions hold while both run."""
    alone = live is None or plan.strategy == "recreate"
    former = 0 if alone or live is None else live.replicas * live.accelerators_per_replica
    return spec.replicas * spec.accelerators_per_replica + former


def _steps(spec: SlotSpec, live: SlotSpec | None, plan: Plan) -> Iterator[str]:
    recreate = plan.strategy == "recreate" and live is not None
    if recreate and live is not None:
        yield f"hold requests, let {live.model}:{live.version} finish, stop it"
    count = "1 replica" if spec.replicas == 1 else f"{spec.replicas} replicas"
    yield (
        f"verify the bytes, launch {count} on {spec.engine}, wait for a first generation "
        f"(at most {plan.launch_deadline_s:g} s)"
    )
    if plan.smoke:
        yield f"ask {len(plan.smoke)} smoke tests (at most {plan.test_deadline_s:g} s)"
    if live is None:
        yield "switch: it is live"
        return
    for step in () if recreate else plan.steps:
        what = "copies of" if plan.strategy == "shadow" else "share of requests"
        yield (
            f"{what} {step.share:.0%} for {step.min_s:g} s and "
            f"{plan.canary.min_requests} requests at least"
        )
    yield "switch: one new snapshot of the routes, acknowledged by every gateway"
    if not recreate:
        yield f"keep {live.model}:{live.version} standing by for {plan.bake_s:g} s, then stop it"


def _gates(plan: Plan, *, compared: bool) -> Iterator[str]:
    yield "every byte hashes to what was registered"
    for test in plan.smoke:
        yield f"smoke test {test.title}: {test.prompt!r}"
    if compared and plan.steps:
        yield (
            f"not worse than what is live in {', '.join(plan.canary.watch)} "
            f"(false alarms: at most {plan.canary.alpha:.0%})"
        )
    if plan.levels.max_error_ratio is not None:
        yield f"at most {plan.levels.max_error_ratio:.1%} of its requests fail"
    if plan.levels.ttft_p95_s is not None:
        yield f"first tokens within {plan.levels.ttft_p95_s:g} s at the 95th percentile"
