"""What the gateways should know of the deployments: the models of the next route snapshot."""

from collections.abc import Callable, Sequence

import msgspec

from modelyard.core.cost import Price
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.reconcile import by_deployment, members
from modelyard.core.replicas import ReplicaState
from modelyard.core.routes import (
    ModelRoute,
    Operation,
    ReplicaRoute,
    ShadowRoute,
    Slot,
    SlotRoute,
    Tokenizer,
)


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot's engine and model can do together, and what that costs."""

    operations: tuple[Operation, ...]
    context_length: int | None
    chat_template: bool
    ask_as_stream: bool = False
    tokenizer: Tokenizer = "none"
    price: Price | None = None
    """What it costs to run; None: nobody said."""


def model_routes(
    deployments: Sequence[Deployment],
    replicas: Sequence[Replica],
    serving_of: Callable[[SlotSpec], Serving],
) -> tuple[ModelRoute, ...]:
    """One route per deployment that serves or is on its way; ready replicas only."""
    each = by_deployment(replicas)
    return tuple(
        _model_route(deployment, each.get(deployment.name, []), serving_of)
        for deployment in sorted(deployments, key=lambda deployment: deployment.name)
        if deployment.arranged.runs or deployment.arranged.holds
    )


def default_model(chosen: str | None, models: Sequence[ModelRoute]) -> str | None:
    """The model that serves the simple API's `default`: the one chosen, else the only one."""
    names = [model.name for model in models]
    if chosen in names:
        return chosen
    return names[0] if len(names) == 1 else None


def _model_route(
    deployment: Deployment,
    replicas: list[Replica],
    serving_of: Callable[[SlotSpec], Serving],
) -> ModelRoute:
    arranged = deployment.arranged
    rollout = deployment.rollout
    shown = arranged.runs if arranged.live in arranged.runs else (arranged.live, *arranged.runs)
    slots = tuple(
        _slot_route(deployment, slot, spec, replicas, serving_of(spec))
        for slot in shown
        if slot is not None and (spec := deployment.slot(slot)) is not None
    )
    shadow = None
    if arranged.shadow and rollout is not None:
        shadow = ShadowRoute(slot=rollout.candidate, sample=arranged.shadow)
    return ModelRoute(
        name=deployment.name,
        deployment=deployment.name,
        created_at=int(deployment.created_at),
        slots=slots,
        policy=deployment.policy,
        shadow=shadow,
        holds=arranged.holds,
    )


def _slot_route(
    deployment: Deployment,
    slot: Slot,
    spec: SlotSpec,
    replicas: list[Replica],
    serving: Serving,
) -> SlotRoute:
    ready = sorted(
        (
            replica
            for replica in members(deployment, slot, replicas)
            if replica.state is ReplicaState.READY and slot in deployment.arranged.runs
        ),
        key=lambda replica: replica.id,
    )
    return SlotRoute(
        slot=slot,
        model=spec.model,
        version=spec.version,
        digest=spec.digest,
        weight=_weight(deployment, slot),
        operations=serving.operations,
        context_length=spec.context_length or serving.context_length,
        chat_template=serving.chat_template,
        ask_as_stream=serving.ask_as_stream,
        tokenizer=serving.tokenizer,
        price=serving.price,
        replicas=tuple(ReplicaRoute(id=replica.id, url=replica.url) for replica in ready),
    )


def _weight(deployment: Deployment, slot: Slot) -> float:
    """The slot's share of the requests."""
    arranged = deployment.arranged
    if slot == arranged.live:
        return 1.0 - arranged.share
    rollout = deployment.rollout
    return arranged.share if rollout is not None and slot == rollout.candidate else 0.0
