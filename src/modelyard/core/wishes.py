"""What becomes of a deployment when somebody asks for something. Nothing is started here."""

import msgspec

from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.errors import Conflict
from modelyard.core.rollout import (
    BEFORE_SWITCH,
    MOVES,
    Phase,
    Plan,
    Rollout,
    Signal,
    begin,
    close,
    move,
    pause,
    resume,
)
from modelyard.core.routes import Slot


def deployed(
    present: Deployment | None,
    name: str,
    spec: SlotSpec,
    *,
    now: float,
    plan: Plan | None = None,
    broken: bool = False,
    generations: int = 0,
) -> Deployment:
    """The deployment with `spec` on its way, or `present` itself when that is there already.

    `broken` says that what is live can't be started again as it is, so that the same wish is a
    new try; `generations`, how many a deployment of this name had that was taken away. Raises
    Conflict while another move or the removal is under way (promise D10).
    """
    plan = plan or Plan()
    if present is None:
        generation = generations + 1
        first = msgspec.structs.replace(spec, generation=generation)
        made = Deployment(name=name, blue=first, created_at=now, generation=generation)
        return made.with_rollout(
            begin(f"{name}-{generation}", plan, candidate="blue", before=None, now=now)
        )
    if present.removed:
        raise Conflict(
            f"{name} is being taken away and still finishes what it has",
            next_step="try again in a moment; `modelyard status` shows when it is gone",
            param="as_name",
        )
    rollout = present.rollout
    if rollout is not None and rollout.phase not in GIVES_WAY:
        coming = present.slot(rollout.candidate)
        same = coming is not None and _same(coming, spec) and coming.replicas == spec.replicas
        otherwise = same and rollout.phase in BEFORE_SWITCH and rollout.plan != plan
        if same and not otherwise and rollout.phase is not Phase.UNDOING:
            return present
        what = "another version" if coming is None else f"{coming.model}:{coming.version}"
        what += " by another plan" if otherwise else ""
        way = "back from" if rollout.phase is Phase.UNDOING else "to"
        raise Conflict(
            f"{name} is moving {way} {what}: rollout {rollout.id} is {rollout.phase}",
            next_step=_way_out(name, rollout),
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
    moved = _with(present, other, coming, generation)
    return moved.with_rollout(
        begin(f"{name}-{generation}", plan, candidate=other, before=present.live, now=now)
    )


GIVES_WAY = frozenset({Phase.DRAINING, Phase.DONE, Phase.UNDONE})
"""Phases in which nothing is decided any more: the next move may begin."""


def _way_out(name: str, rollout: Rollout) -> str:
    if rollout.phase is Phase.UNDOING:
        return (
            "try again when what is in flight there has finished; "
            f"modelyard rollouts watch {rollout.id} waits for it"
        )
    if rollout.phase is Phase.BAKING:
        return f"modelyard promote {name} ends the wait, modelyard rollback {name} goes back"
    return f"wait, or give it up with: modelyard abort {name}"


def promoted(present: Deployment, now: float, actor: str) -> Deployment:
    """Without waiting for the rest of the step or of the bake; raises Conflict."""
    return _told(present, Signal.PROMOTED, f"by {actor}", now, "to promote")


def aborted(present: Deployment, now: float, actor: str) -> Deployment:
    """On its way back to the version before; raises Conflict."""
    return _told(present, Signal.ABORTED, f"given up by {actor}", now, "to abort")


def paused(present: Deployment, now: float) -> Deployment:
    """Staying where it is; raises Conflict."""
    rollout = _under_way(present, "to pause")
    if rollout.phase in (Phase.DRAINING, Phase.UNDOING):
        raise _nothing("to pause", rollout)
    return msgspec.structs.replace(present, rollout=pause(rollout, now))


def resumed(present: Deployment, now: float) -> Deployment:
    """Going on; raises Conflict."""
    rollout = _under_way(present, "to resume")
    if rollout.paused_at is None:
        raise Conflict(f"rollout {rollout.id} is not paused", param="name")
    return msgspec.structs.replace(present, rollout=resume(rollout, now))


def rolled_back(present: Deployment, now: float, actor: str, plan: Plan) -> Deployment:
    """On its way to the version before: while that stands by, at once; else by a rollout.

    Raises Conflict when nothing is known of a version before, or another move is under way.
    """
    rollout = present.rollout
    if rollout is not None and (rollout.phase, Signal.ABORTED) in MOVES:
        return _told(present, Signal.ABORTED, f"rolled back by {actor}", now, "to roll back")
    other: Slot = "green" if present.live == "blue" else "blue"
    spec = present.slot(other)
    undone = rollout is not None and rollout.phase in (Phase.UNDOING, Phase.UNDONE)
    if present.live is None or spec is None or undone:
        live = None if present.live is None else present.slot(present.live)
        serves = "nothing" if live is None else f"{live.model}:{live.version}"
        raise Conflict(
            f"there is nothing to go back to: {present.name} serves {serves}"
            + (" again" if undone else ""),
            next_step="deploy the version that you want with: modelyard deploy NAME:VERSION",
            param="name",
        )
    return deployed(present, present.name, spec, now=now, plan=plan, broken=True)


def _told(present: Deployment, happened: Signal, why: str, now: float, what: str) -> Deployment:
    rollout = _under_way(present, what)
    if (rollout.phase, happened) not in MOVES:
        raise _nothing(what, rollout)
    return present.with_rollout(move(rollout, happened, why, now))


def _nothing(what: str, rollout: Rollout) -> Conflict:
    return Conflict(
        f"there is nothing {what}: rollout {rollout.id} is {rollout.phase}",
        next_step=f"modelyard rollouts show {rollout.id}",
        param="name",
    )


def _under_way(present: Deployment, what: str) -> Rollout:
    rollout = present.rollout
    if rollout is None or rollout.over or present.removed:
        raise Conflict(
            f"there is nothing {what}: no rollout of {present.name} is under way",
            next_step=f"modelyard rollouts list {present.name} shows those of before",
            param="name",
        )
    return rollout


def undeployed(present: Deployment, now: float) -> Deployment:
    """The deployment on its way out, its rollout given up."""
    if present.removed:
        return present
    rollout = None if present.rollout is None else close(present.rollout, "taken away", now)
    return msgspec.structs.replace(
        present, removed=True, live=None, rollout=rollout, generation=present.generation + 1
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
