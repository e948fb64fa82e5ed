"""What becomes of a deployment when somebody asks for something. Nothing is started here."""

import msgspec

from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.errors import Conflict
from modelyard.core.routes import Slot


def deployed(
    present: Deployment | None, name: str, spec: SlotSpec, *, now: float, broken: bool = False
) -> Deployment:
    """The deployment with `spec` on its way, or `present` itself when that is there already.

    `broken` says that what is live can't be started again as it is, so that the same wish is a
    new try. Raises Conflict while another move or the removal is under way (promise D10).
    """
    if present is None:
        first = msgspec.structs.replace(spec, generation=1)
        return Deployment(name=name, blue=first, incoming="blue", created_at=now)
    if present.removed:
        raise Conflict(
            f"{name} is being taken away and still finishes what it has",
            next_step="try again in a moment; `modelyard status` shows when it is gone",
            param="as_name",
        )
    if present.incoming is not None:
        coming = present.slot(present.incoming)
        if coming is not None and _same(coming, spec) and coming.replicas == spec.replicas:
            return present
        what = "another version" if coming is None else f"{coming.model}:{coming.version}"
        raise Conflict(
            f"{name} is moving to {what} (generation {present.generation})",
            next_step="wait until that is live or has failed; `modelyard status` shows it",
            param="as_name",
        )
    live = None if present.live is None else present.slot(present.live)
    generation = present.generation + 1
    if live is not None and _same(live, spec) and not broken:
        if live.replicas == spec.replicas:
            return present
        scaled = msgspec.structs.replace(live, replicas=spec.replicas)
        return _with(present, present.live or "blue", scaled, generation)
    other: Slot = "green" if present.live == "blue" else "blue"
    coming = msgspec.structs.replace(spec, generation=generation)
    return msgspec.structs.replace(_with(present, other, coming, generation), incoming=other)


def undeployed(present: Deployment) -> Deployment:
    """The deployment on its way out."""
    if present.removed:
        return present
    return msgspec.structs.replace(
        present, removed=True, live=None, incoming=None, generation=present.generation + 1
    )


def _with(present: Deployment, slot: Slot, spec: SlotSpec, generation: int) -> Deployment:
    """`present` with another spec in `slot`; what went wrong before is history."""
    if slot == "blue":
        return msgspec.structs.replace(present, blue=spec, generation=generation, message="")
    return msgspec.structs.replace(present, green=spec, generation=generation, message="")


def _same(one: SlotSpec, other: SlotSpec) -> bool:
    """Whether both ask for the same worker, however many of them."""
    return msgspec.structs.replace(one, generation=0, replicas=1) == msgspec.structs.replace(
        other, generation=0, replicas=1
    )
