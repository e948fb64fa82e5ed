"""Making keys: what a new one is written down as, from secrets drawn elsewhere."""

from collections.abc import Mapping

from modelyard.core.errors import InvalidRequest
from modelyard.core.keyring import secret_hash
from modelyard.core.keys import KeyPut, Limit, LimitKind
from modelyard.core.limits import ENFORCED, unenforceable

SECRET_PREFIX = "sk-my-"  # noqa: S105 - how every secret begins, so that leaks can be searched for
DRAWN_BYTES = 32
"""Random bytes in a secret."""


def secret_of(drawn: str) -> str:
    """The secret made of random letters and digits."""
    return SECRET_PREFIX + drawn


def limits_of(limits: Mapping[str, float], model: str | None = None) -> tuple[Limit, ...]:
    """Limits by kind, of one model's requests or of all; raises InvalidRequest."""
    found = []
    for kind, amount in limits.items():
        known: LimitKind | None = next((each for each in sorted(ENFORCED) if each == kind), None)
        if known is None:
            raise InvalidRequest(
                f"there is no limit {kind!r}",
                next_step=f"use one of: {', '.join(sorted(ENFORCED))}",
                param="limits",
            )
        found.append(Limit(kind=known, amount=amount, model=model))
    reason = unenforceable(found)
    if reason is not None:
        raise InvalidRequest(f"a limit can't be held: {reason}", param="limits")
    return tuple(found)


def rotated(key: KeyPut, seq: int, secret: str, now: float, grace_s: float) -> KeyPut:
    """The key with another secret; the one before is taken for `grace_s` seconds more."""
    return KeyPut(
        seq=seq,
        at=now,
        key_id=key.key_id,
        secret_sha256=secret_hash(secret),
        tenant=key.tenant,
        name=key.name,
        models=key.models,
        limits=key.limits,
        priority=key.priority,
        expires_at=key.expires_at,
        former_sha256=key.secret_sha256 if grace_s > 0 else None,
        former_until=now + grace_s if grace_s > 0 else None,
    )
