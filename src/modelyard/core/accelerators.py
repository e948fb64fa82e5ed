"""Whether what is wished for fits on the accelerators that there are."""

from collections.abc import Iterable

from modelyard.core.deployments import Deployment
from modelyard.core.errors import Conflict


def held(deployment: Deployment) -> int:
    """Accelerators that a deployment's replicas hold when all that should run does."""
    specs = [deployment.slot(slot) for slot in deployment.arranged.runs]
    return sum(s.replicas * s.accelerators_per_replica for s in specs if s is not None)


def refuse_shortage(name: str, needed: int, others: Iterable[Deployment], there: int) -> None:
    """Raise Conflict when `name` needs more at once than the `others` leave of what is there."""
    holders = {each.name: held(each) for each in others if each.name != name}
    free = there - sum(holders.values())
    if needed <= max(free, 0) or needed == 0:
        return
    by = ", ".join(f"{holder} {count}" for holder, count in holders.items() if count) or "nobody"
    raise Conflict(
        f"{name} needs {needed} accelerators at once, and {max(free, 0)} of {there} are free "
        f"(held by: {by})",
        next_step="deploy it with --strategy recreate, which runs one version at a time, or take "
        "something away with: modelyard undeploy NAME",
        param="replicas",
    )
