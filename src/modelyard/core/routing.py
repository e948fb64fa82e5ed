"""Which slot, and which replica in it, gets a request: loads and draws are arguments."""

from collections.abc import Sequence

import msgspec

from modelyard.core.routes import Balancing, ModelRoute, RouteSnapshot, SlotRoute

ENFORCED: frozenset[Balancing] = frozenset({"round_robin", "least_in_flight", "power_of_two"})
"""The policies that `choose` knows; a snapshot that names another is refused (promise G14)."""


class Load(msgspec.Struct, frozen=True):
    """What is known of one replica when a request has to be placed."""

    in_flight: int
    weight: float = 1.0
    max_concurrency: int | None = None

    @property
    def takes_more(self) -> bool:
        """Whether it is in rotation and has room."""
        return self.weight > 0 and (
            self.max_concurrency is None or self.in_flight < self.max_concurrency
        )

    @property
    def pressure(self) -> float:
        """Requests in flight per unit of weight, counting the one to be placed."""
        return (self.in_flight + 1) / self.weight


def choose(
    loads: Sequence[Load], balancing: Balancing, *, draw: float, turn: int
) -> tuple[int | None, str]:
    """Choose a replica: its index in `loads` (None when none takes more) and the reason, a word.

    `draw` is uniform in [0, 1) and decides where chance does; `turn` counts the choices made so far
    and decides where order does. Power of two choices: Mitzenmacher, "The Power of Two Choices in
    Randomized Load Balancing", 1996.
    """
    able = [index for index, load in enumerate(loads) if load.takes_more]
    if not able:
        return None, "none_ready"
    if len(able) == 1:
        return able[0], "only_one"
    if balancing == "round_robin":
        return able[turn % len(able)], "round_robin"
    if balancing == "power_of_two":
        pairs = len(able) * (len(able) - 1)
        pair = int(draw * pairs)
        first, other = divmod(pair, len(able) - 1)
        second = other if other < first else other + 1
        pick = min(able[first], able[second], key=lambda index: loads[index].pressure)
        return pick, "power_of_two"
    lowest = min(loads[index].pressure for index in able)
    least = [index for index in able if loads[index].pressure == lowest]
    return least[int(draw * len(least))], "least_in_flight"


def choose_slot(route: ModelRoute, *, draw: float) -> SlotRoute | None:
    """Choose a slot of the model by weight among those that have replicas, None when none has."""
    able = [slot for slot in route.slots if slot.weight > 0 and slot.replicas]
    mark = draw * sum(slot.weight for slot in able)
    for slot in able:
        mark -= slot.weight
        if mark < 0:
            return slot
    return able[-1] if able else None


def unenforceable(snapshot: RouteSnapshot) -> str | None:
    """Say which setting of the snapshot this gateway could not enforce, None when it can do all."""
    for model in snapshot.models:
        policy = model.policy
        asked = {
            f"balancing {policy.balancing}": policy.balancing not in ENFORCED,
            f"caching {policy.caching.mode}": policy.caching.mode != "off",
            "single-flight": policy.caching.single_flight,
            "queueing": policy.queueing.max_waiting > 0,
            "fallbacks": bool(policy.fallbacks),
            f"context_overflow {policy.context_overflow}": policy.context_overflow != "reject",
            f"sticky_by {policy.sticky_by}": policy.sticky_by != "none",
            "shadow": model.shadow is not None,
            "credentials": any(
                replica.credential is not None for slot in model.slots for replica in slot.replicas
            ),
        }
        for setting, missing in asked.items():
            if missing:
                return f"model {model.name!r} asks for {setting}"
    return None
