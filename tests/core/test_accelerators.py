"""What does not fit on the accelerators is refused, with who holds them."""

import msgspec
import pytest

from modelyard.core.accelerators import held, refuse_shortage
from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.errors import Conflict
from modelyard.core.wishes import deployed


def _spec(version: int = 1, replicas: int = 1, each: int = 1) -> SlotSpec:
    return SlotSpec(
        model="m", version=version, digest=f"sha256:{version}", engine="fake",
        replicas=replicas, accelerators_per_replica=each,
    )  # fmt: skip


def _live(name: str, replicas: int, each: int) -> Deployment:
    first = deployed(None, name, _spec(1, replicas, each), now=1.0)
    return msgspec.structs.replace(first, live="blue", rollout=None)


def test_both_versions_of_a_rollout_hold_theirs() -> None:
    live = _live("a", replicas=2, each=2)
    moving = deployed(live, "a", _spec(2, replicas=1, each=2), now=2.0)

    assert (held(live), held(moving)) == (4, 6)


def test_what_fits_is_let_through() -> None:
    refuse_shortage("b", 4, [_live("a", 2, 2), _live("b", 8, 8)], there=8)
    refuse_shortage("b", 0, [_live("a", 2, 2)], there=0)


def test_what_does_not_fit_is_refused_with_who_holds_them() -> None:
    with pytest.raises(Conflict, match="b needs 5 accelerators at once, and 4 of 8 are free") as no:
        refuse_shortage("b", 5, [_live("a", 2, 2)], there=8)

    assert "(held by: a 4)" in no.value.message
    assert "--strategy recreate" in no.value.next_step
