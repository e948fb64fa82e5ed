"""The keys, tenants and limits in force: what the log of changes amounts to so far."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from modelyard.core.keys import (
    KeyLogEntry,
    KeyPut,
    KeyRevoked,
    Limit,
    ModelLimitsPut,
    TenantDropped,
    TenantPut,
)
from modelyard.core.limits import Bound, bounds_of, unenforceable


class Gap(Exception):
    """An entry is missing: nothing was applied, and the log is asked for from its start."""


def secret_hash(secret: str | bytes) -> str:
    """What is kept of a secret: its SHA-256. Secrets are 32 random bytes, so no salt is needed."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


class Keyring:
    """Applies the log's entries in order; finds the key that a secret belongs to."""

    def __init__(self) -> None:
        self.seq = 0
        """The last entry applied."""
        self._keys: dict[str, KeyPut] = {}
        self._by_hash: dict[str, str] = {}
        self._tenants: dict[str, TenantPut] = {}
        self._models: dict[str, ModelLimitsPut] = {}
        self._revoked: KeyRevoked | None = None
        """The last one: when no key is left, it says that there were some."""

    def apply(self, entries: Sequence[KeyLogEntry], *, reset: bool = False) -> None:
        """Apply entries, all or none; `reset` forgets what was known before.

        Raises Gap when their numbers don't go on from the last one without a hole (a log that
        begins anew may have holes: what no longer matters was left out of it), ValueError when a
        limit can't be enforced (promise G14).
        """
        last = 0 if reset else self.seq
        for entry in entries:
            if entry.seq <= last or (not reset and entry.seq != last + 1):
                raise Gap(f"entry {entry.seq} came after {last}")
            last = entry.seq
            reason = unenforceable(_limits(entry))
            if reason is not None:
                raise ValueError(f"entry {entry.seq} of the key log can't be enforced: {reason}")
        if reset:
            self._keys, self._by_hash, self._tenants, self._models = {}, {}, {}, {}
            self._revoked = None
        for entry in entries:
            self._apply_one(entry)
        self.seq = last

    @property
    def required(self) -> bool:
        """Whether requests need a key: as soon as there ever was one, revoked or not."""
        return bool(self._keys) or self._revoked is not None

    @property
    def keys(self) -> Iterable[KeyPut]:
        """The keys that were not revoked."""
        return self._keys.values()

    @property
    def tenants(self) -> Iterable[TenantPut]:
        """The tenants that were given limits."""
        return self._tenants.values()

    def find(self, secret: bytes, now: float) -> KeyPut | None:
        """The key of a secret that was shown; None when there is none, or it has expired.

        Which bytes differ can't be told from the time it takes (promise S8): hashes of secrets
        are looked up, and compared in constant time.
        """
        shown = secret_hash(secret)
        key = self._keys.get(self._by_hash.get(shown, ""))
        if key is None:
            return None
        if hmac.compare_digest(shown, key.secret_sha256):
            return key if key.expires_at is None or now < key.expires_at else None
        former = key.former_sha256 or ""
        until = key.former_until
        if hmac.compare_digest(shown, former) and until is not None and now < until:
            return key
        return None

    def bounds(self, key: KeyPut | None, model: str) -> list[Bound]:
        """Every limit that a request of `model` by this key falls under."""
        found: list[Bound] = []
        if key is not None:
            found += bounds_of("key", key.key_id, key.limits, model)
            tenant = self._tenants.get(key.tenant)
            if tenant is not None:
                found += bounds_of("tenant", key.tenant, tenant.limits, model)
        shared = self._models.get(model)
        return found + bounds_of("model", model, shared.limits if shared else (), model)

    @property
    def has_limits(self) -> bool:
        """Whether anything has to be counted."""
        return any(_limits(entry) for entry in self.entries())

    def entries(self) -> tuple[KeyLogEntry, ...]:
        """What is in force: entries with the numbers that they had, those that no longer matter
        left out."""
        found: list[KeyLogEntry] = [*self._tenants.values(), *self._keys.values()]
        found += self._models.values()
        if self._revoked is not None:
            found.append(self._revoked)
        return tuple(sorted(found, key=lambda entry: entry.seq))

    def _apply_one(self, entry: KeyLogEntry) -> None:
        if isinstance(entry, KeyPut):
            self._forget_key(entry.key_id)
            self._keys[entry.key_id] = entry
            self._by_hash[entry.secret_sha256] = entry.key_id
            if entry.former_sha256 is not None:
                self._by_hash[entry.former_sha256] = entry.key_id
        elif isinstance(entry, KeyRevoked):
            self._revoked = entry
            self._forget_key(entry.key_id)
        elif isinstance(entry, TenantPut):
            self._tenants[entry.tenant] = entry
        elif isinstance(entry, TenantDropped):
            self._tenants.pop(entry.tenant, None)
            for key in [key.key_id for key in self._keys.values() if key.tenant == entry.tenant]:
                self._revoked = KeyRevoked(seq=entry.seq, at=entry.at, key_id=key)
                self._forget_key(key)
        else:
            self._models[entry.model] = entry

    def _forget_key(self, key_id: str) -> None:
        known = self._keys.pop(key_id, None)
        if known is not None:
            self._by_hash.pop(known.secret_sha256, None)
            if known.former_sha256 is not None:
                self._by_hash.pop(known.former_sha256, None)


def _limits(entry: KeyLogEntry) -> tuple[Limit, ...]:
    return () if isinstance(entry, KeyRevoked | TenantDropped) else entry.limits
