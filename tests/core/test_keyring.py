import hmac

import msgspec
import pytest

from modelyard.core.keyring import Gap, Keyring, secret_hash
from modelyard.core.keys import (
    KeyLogEntry,
    KeyPut,
    KeyRevoked,
    Limit,
    ModelLimitsPut,
    TenantDropped,
    TenantPut,
)


def put(seq: int, key_id: str, secret: str, **fields: object) -> KeyPut:
    return KeyPut(seq=seq, at=0.0, key_id=key_id, secret_sha256=secret_hash(secret),
                  **{"tenant": "t", **fields})  # type: ignore[arg-type]  # fmt: skip


LIMITS = (Limit(kind="requests_per_min", amount=5.0),)


def ring_of(*entries: KeyLogEntry) -> Keyring:
    ring = Keyring()
    ring.apply(entries)
    return ring


def test_a_key_is_found_by_its_secret_until_it_is_revoked_or_expires() -> None:
    ring = ring_of(put(1, "a", "one"), put(2, "b", "two", expires_at=50.0))

    found = ring.find(b"one", 0.0)
    assert found is not None
    assert found.key_id == "a"
    assert ring.find(b"three", 0.0) is None
    assert ring.find(b"two", 49.0) is not None
    assert ring.find(b"two", 50.0) is None

    ring.apply([KeyRevoked(seq=3, at=0.0, key_id="a")])
    assert ring.find(b"one", 0.0) is None


def test_a_secret_is_compared_by_its_hash_and_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise S8: neither the look-up nor the comparison ever sees the secret itself."""
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    ring = ring_of(put(1, "a", "new", former_sha256=secret_hash("old"), former_until=9.0))
    assert "new" not in msgspec.json.encode(ring.entries()).decode()
    for secret in (b"new", b"old", b"ne", b"new "):
        ring.find(secret, 0.0)

    assert compared == [
        (secret_hash("new"), secret_hash("new")),
        (secret_hash("old"), secret_hash("new")),
        (secret_hash("old"), secret_hash("old")),
    ]


def test_revoking_the_last_key_does_not_open_the_door() -> None:
    ring = ring_of(put(1, "a", "one"))
    assert not Keyring().required
    ring.apply([KeyRevoked(seq=2, at=0.0, key_id="a")])
    assert ring.required

    kept = Keyring()
    kept.apply(ring.entries(), reset=True)  # as after a restart
    assert kept.required


def test_a_rotated_key_is_known_by_both_secrets_for_a_while() -> None:
    ring = ring_of(put(1, "a", "old"))
    ring.apply([put(2, "a", "new", former_sha256=secret_hash("old"), former_until=100.0)])

    assert ring.find(b"new", 0.0) is not None
    assert ring.find(b"old", 99.0) is not None
    assert ring.find(b"old", 100.0) is None
    assert ring.find(b"new", 200.0) is not None


def test_a_gap_changes_nothing() -> None:
    ring = ring_of(put(1, "a", "one"))
    for entries in ([put(3, "b", "two")], [put(2, "b", "two"), put(4, "c", "three")],
                    [put(1, "b", "two")]):  # fmt: skip
        with pytest.raises(Gap):
            ring.apply(entries)
    assert [key.key_id for key in ring.keys] == ["a"]
    assert ring.seq == 1


def test_a_log_told_from_its_start_may_have_holes_and_forgets_what_was_there() -> None:
    ring = ring_of(put(1, "a", "one"))
    ring.apply([put(4, "b", "two"), put(9, "c", "three")], reset=True)
    assert sorted(key.key_id for key in ring.keys) == ["b", "c"]
    assert ring.seq == 9
    with pytest.raises(Gap):
        ring.apply([put(9, "d", "x"), put(4, "e", "y")], reset=True)


def test_a_limit_that_can_not_be_held_changes_nothing() -> None:
    ring = ring_of(put(1, "a", "one"))
    broken = put(3, "b", "two", limits=(Limit(kind="cost_per_day", amount=-1.0),))
    with pytest.raises(ValueError, match="money over 0"):
        ring.apply([KeyRevoked(seq=2, at=0.0, key_id="a"), broken])
    assert ring.find(b"one", 0.0) is not None


def test_a_request_falls_under_the_limits_of_key_tenant_and_model() -> None:
    ring = ring_of(
        put(1, "a", "one", limits=LIMITS),
        TenantPut(seq=2, at=0.0, tenant="t", limits=LIMITS),
        ModelLimitsPut(seq=3, at=0.0, model="m", limits=LIMITS),
    )
    key = ring.find(b"one", 0.0)
    assert [bound.shown for bound in ring.bounds(key, "m")] == [
        "requests_per_min:key", "requests_per_min:tenant", "requests_per_min:model",
    ]  # fmt: skip
    assert len(ring.bounds(key, "other")) == 2
    assert len(ring.bounds(None, "m")) == 1
    assert ring.has_limits


def test_a_dropped_tenant_takes_its_keys_along() -> None:
    ring = ring_of(put(1, "a", "one"), put(2, "b", "two", tenant="other"))
    ring.apply([TenantDropped(seq=3, at=0.0, tenant="t")])
    assert [key.key_id for key in ring.keys] == ["b"]
    assert ring.find(b"one", 0.0) is None


def test_what_is_in_force_can_be_told_as_a_log() -> None:
    ring = ring_of(
        put(1, "a", "one"), TenantPut(seq=2, at=0.0, tenant="t", limits=LIMITS),
        ModelLimitsPut(seq=3, at=0.0, model="m", limits=LIMITS),
        KeyRevoked(seq=4, at=0.0, key_id="a"), put(5, "b", "two"),
    )  # fmt: skip
    again = Keyring()
    again.apply(ring.entries(), reset=True)
    assert again.entries() == ring.entries()
    assert [entry.seq for entry in ring.entries()] == [2, 3, 4, 5]
