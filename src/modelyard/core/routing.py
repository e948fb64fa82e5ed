"""Which slot, and which replica in it, gets a request: loads and draws are arguments."""

import hashlib
import math
from collections.abc import Sequence

import msgspec

from modelyard.core.routes import Balancing, ModelRoute, RouteSnapshot, ShadowRoute, SlotRoute

YIELD_RATIO = 1.5
YIELD_REQUESTS = 4
"""A replica that has the prompt's beginning is passed over when its requests per weight are over
so many times the least, and so many more."""


class Load(msgspec.Struct, frozen=True):
    """What is known of one replica when a request has to be placed."""

    in_flight: int
    weight: float = 1.0
    max_concurrency: int | None = None
    id: str = ""
    """For policies that hold on to a replica."""
    healthy: bool = True
    """Its breaker lets requests through."""

    @property
    def takes_more(self) -> bool:
        """Whether it is in rotation, healthy and has room."""
        return (
            self.weight > 0
            and self.healthy
            and (self.max_concurrency is None or self.in_flight < self.max_concurrency)
        )

    @property
    def pressure(self) -> float:
        """Requests in flight per unit of weight, counting the one to be placed."""
        return (self.in_flight + 1) / self.weight


def choose(
    loads: Sequence[Load],
    balancing: Balancing,
    *,
    draw: float,
    turn: int,
    sticky: str = "",
    favourite: int | None = None,
) -> tuple[int | None, str]:
    """Choose a replica: its index in `loads` (None when none takes more) and the reason, a word.

    `draw` is uniform in [0, 1) and decides where chance does; `turn` counts the choices made so far
    and decides where order does; `sticky` is what `session` holds on to; `favourite` is the replica
    that has the prompt's beginning, for `prefix_affinity`. Power of two choices: Mitzenmacher, "The
    Power of Two Choices in Randomized Load Balancing", 1996.
    """
    able = [index for index, load in enumerate(loads) if load.takes_more]
    if not able:
        return None, "none_ready"
    if len(able) == 1:
        return able[0], "only_one"
    if balancing == "round_robin":
        return _in_turn(loads, able, turn), "round_robin"
    if balancing == "power_of_two":
        pairs = len(able) * (len(able) - 1)
        pair = int(draw * pairs)
        first, other = divmod(pair, len(able) - 1)
        second = other if other < first else other + 1
        pick = min(able[first], able[second], key=lambda index: loads[index].pressure)
        return pick, "power_of_two"
    if balancing == "session" and sticky:
        return max(able, key=lambda i: _score(sticky, loads[i].id, loads[i].weight)), "session"
    lowest = min(loads[index].pressure for index in able)
    if balancing == "prefix_affinity":
        if favourite is None:
            return _at(loads, able, draw), "prefix_miss"
        if favourite in able and not _overloaded(loads[favourite].pressure, lowest):
            return favourite, "prefix_hit"
    least = [index for index in able if loads[index].pressure == lowest]
    reason = "prefix_yields" if balancing == "prefix_affinity" else "least_in_flight"
    return least[int(draw * len(least))], reason


def _overloaded(pressure: float, lowest: float) -> bool:
    return pressure > YIELD_RATIO * lowest and pressure > lowest + YIELD_REQUESTS


def _in_turn(loads: Sequence[Load], able: Sequence[int], turn: int) -> int:
    weights = {loads[index].weight for index in able}
    if len(weights) == 1:
        return able[turn % len(able)]
    # Unequal shares, spread evenly: the turn's bits reversed are a low-discrepancy sequence.
    return _at(loads, able, int(f"{turn % 65_536:016b}"[::-1], 2) / 65_536)


def _at(loads: Sequence[Load], able: Sequence[int], draw: float) -> int:
    """The replica at `draw` of the weights' sum."""
    mark = draw * sum(loads[index].weight for index in able)
    for index in able:
        mark -= loads[index].weight
        if mark < 0:
            return index
    return able[-1]


def _score(sticky: str, candidate: str, weight: float) -> float:
    """Weighted rendezvous hashing: who has the highest score is chosen, in proportion to weights,
    and a weight that changes moves only those that have to move.

    Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005.
    """
    return -weight / math.log(_hashed(f"{candidate}\0{sticky}"))


def _hashed(text: str) -> float:
    """Uniform in (0, 1), and always the same of a text."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return min((int.from_bytes(digest) + 0.5) / 2**64, 1 - 2**-53)


def choose_slot(route: ModelRoute, *, draw: float, sticky: str = "") -> SlotRoute | None:
    """Choose a slot of the model by weight among those that have replicas, None when none has.

    With `sticky`, the same one always gets the same slot while the weights stay, and a slot whose
    weight grows loses nobody (promise D6). Who comes first is another one for each model and
    version: not always the same callers try what is new.
    """
    able = [slot for slot in route.slots if slot.weight > 0 and slot.replicas]
    if len(able) < 2:
        return able[0] if able else None
    if sticky:
        caller = f"{route.name}\0{sticky}"
        return max(able, key=lambda slot: _score(caller, f"{slot.slot} {slot.digest}", slot.weight))
    mark = draw * sum(slot.weight for slot in able)
    for slot in able:
        mark -= slot.weight
        if mark < 0:
            return slot
    return able[-1]


def is_copied(shadow: ShadowRoute, request_id: str) -> bool:
    """Whether a request is one of those whose copies the shadow gets (promise D7).

    By the request and not by who asks: with few callers, a share of them is all requests or none.
    """
    return _hashed(f"shadow\0{request_id}") < shadow.sample


def unenforceable(snapshot: RouteSnapshot, credentials: frozenset[str]) -> str | None:
    """Say which setting of the snapshot this gateway could not enforce, None when it can do all.

    `credentials` are the names of the secrets that it has.
    """
    names = {model.name for model in snapshot.models}
    for model in snapshot.models:
        policy = model.policy
        unknown = [name for name in policy.fallbacks if name not in names]
        missing = [
            replica.credential
            for slot in model.slots
            for replica in slot.replicas
            if replica.credential is not None and replica.credential not in credentials
        ]
        if model.shadow is not None and model.shadow.slot not in {s.slot for s in model.slots}:
            return f"model {model.name!r} copies to {model.shadow.slot}, a slot that it has not"
        if unknown:
            return f"model {model.name!r} falls back on {unknown[0]!r}, which is not a model here"
        if missing:
            return f"model {model.name!r} needs the secret {missing[0]!r}, which is not there"
    return None
