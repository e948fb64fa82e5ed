"""Keys, tenants and limits: every change is an entry of the log that gateways follow.

A secret is shown once, in the answer that made it; its SHA-256 alone is kept.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable

from fastapi import APIRouter

from modelyard.api.messages import (
    KeyCreated,
    KeyList,
    KeyView,
    KeyWish,
    LimitsWish,
    LimitView,
    RotateWish,
    TenantList,
    TenantView,
)
from modelyard.api.parts import ApiParts
from modelyard.core.deployments import Event
from modelyard.core.errors import Conflict, InvalidRequest, NotFound
from modelyard.core.keyring import Keyring, secret_hash
from modelyard.core.keys import (
    KeyLogEntry,
    KeyPut,
    KeyRevoked,
    Limit,
    ModelLimitsPut,
    TenantDropped,
    TenantPut,
)
from modelyard.core.limits import unpriced
from modelyard.core.newkeys import DRAWN_BYTES, limits_of, rotated, secret_of
from modelyard.core.refs import check_name


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    keys = _Keys(parts)
    routes = APIRouter(prefix="/api")

    @routes.get("/keys")
    def list_keys() -> KeyList:
        return KeyList(keys=tuple(_view(key) for key in keys.all().values()))

    @routes.post("/keys", status_code=201)
    def create(wish: KeyWish) -> KeyCreated:
        return keys.create(wish)

    @routes.delete("/keys/{key_id}", status_code=204)
    def revoke(key_id: str) -> None:
        keys.revoke(key_id)

    @routes.post("/keys/{key_id}/rotate")
    def rotate(key_id: str, wish: RotateWish) -> KeyCreated:
        return keys.rotate(key_id, wish.grace_s)

    @routes.get("/tenants")
    def list_tenants() -> TenantList:
        return TenantList(tenants=keys.tenants())

    @routes.put("/tenants/{tenant}", status_code=204)
    def set_tenant(tenant: str, wish: LimitsWish) -> None:
        keys.set_tenant(tenant, wish)

    @routes.delete("/tenants/{tenant}", status_code=204)
    def drop_tenant(tenant: str) -> None:
        keys.drop_tenant(tenant)

    @routes.put("/limits/{model}", status_code=204)
    def set_model(model: str, wish: LimitsWish) -> None:
        keys.set_model(model, wish)

    return routes


class _Keys:
    """The log, and what it amounts to. One change at a time, so that what was looked at holds."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._log = parts.store.keys
        self._ring = Keyring()
        self._lock = threading.RLock()

    def all(self) -> dict[str, KeyPut]:
        """The keys that were not revoked, by id."""
        with self._lock:
            return {key.key_id: key for key in self._caught_up().keys}

    def create(self, wish: KeyWish) -> KeyCreated:
        tenant = check_name(wish.tenant)
        key_id = check_name(wish.key_id) if wish.key_id else f"key-{secrets.token_hex(4)}"
        now = self._parts.clock()
        if wish.expires_at is not None and wish.expires_at <= now:
            raise InvalidRequest("the key would have expired already", param="expires_at")
        limits = _limits(wish)
        _refuse_unpriced(self._parts, limits, wish.models)
        secret = secret_of(secrets.token_urlsafe(DRAWN_BYTES))
        with self._lock:
            if key_id in self.all():
                raise Conflict(
                    f"there is a key {key_id!r} already",
                    next_step="choose another id, or rotate that one",
                    param="key_id",
                )
            entry = self._append(
                lambda seq: KeyPut(
                    seq=seq,
                    at=now,
                    key_id=key_id,
                    secret_sha256=secret_hash(secret),
                    tenant=tenant,
                    name=wish.name,
                    models=wish.models,
                    limits=limits,
                    priority=wish.priority,
                    expires_at=wish.expires_at,
                ),
                "key.created",
                key_id,
            )
        return KeyCreated(key=_view(entry), secret=secret)

    def revoke(self, key_id: str) -> None:
        now = self._parts.clock()
        with self._lock:
            self._find(key_id)
            self._append(
                lambda seq: KeyRevoked(seq=seq, at=now, key_id=key_id), "key.revoked", key_id
            )

    def rotate(self, key_id: str, grace_s: float) -> KeyCreated:
        now = self._parts.clock()
        secret = secret_of(secrets.token_urlsafe(DRAWN_BYTES))
        with self._lock:
            key = self._find(key_id)
            entry = self._append(
                lambda seq: rotated(key, seq, secret, now, grace_s), "key.rotated", key_id
            )
        return KeyCreated(key=_view(entry), secret=secret)

    def tenants(self) -> tuple[TenantView, ...]:
        with self._lock:
            limits = {entry.tenant: entry.limits for entry in self._caught_up().tenants}
            counts = Counter(key.tenant for key in self.all().values())
        return tuple(
            TenantView(tenant=name, keys=counts[name], limits=_shown(limits.get(name, ())))
            for name in sorted(counts.keys() | limits.keys())
        )

    def set_tenant(self, tenant: str, wish: LimitsWish) -> None:
        check_name(tenant)
        limits, now = _limits(wish), self._parts.clock()
        _refuse_unpriced(self._parts, limits, None)
        self._append(
            lambda seq: TenantPut(seq=seq, at=now, tenant=tenant, limits=limits),
            "tenant.set",
            tenant,
        )

    def drop_tenant(self, tenant: str) -> None:
        now = self._parts.clock()
        with self._lock:
            if all(view.tenant != tenant for view in self.tenants()):
                raise NotFound(f"there is no tenant {tenant!r}", param="tenant")
            self._append(
                lambda seq: TenantDropped(seq=seq, at=now, tenant=tenant), "tenant.dropped", tenant
            )

    def set_model(self, model: str, wish: LimitsWish) -> None:
        check_name(model)
        if wish.limits_by_model:
            raise InvalidRequest("a model's own limits name no model", param="limits_by_model")
        limits, now = _limits(wish), self._parts.clock()
        _refuse_unpriced(self._parts, limits, (model,))
        self._append(
            lambda seq: ModelLimitsPut(seq=seq, at=now, model=model, limits=limits),
            "limits.set",
            model,
        )

    def _find(self, key_id: str) -> KeyPut:
        key = self.all().get(key_id)
        if key is None:
            raise NotFound(
                f"there is no key {key_id[:100]!r}",
                next_step="see them with: modelyard keys list",
                param="key_id",
            )
        return key

    def _caught_up(self) -> Keyring:
        if self._log.last_seq() > self._ring.seq:
            self._ring.apply(self._log.after(self._ring.seq))
        return self._ring

    def _append(self, make: Callable[[int], KeyLogEntry], kind: str, subject: str) -> KeyLogEntry:
        with self._lock:
            entry = self._log.append(make)
        self._parts.store.events.append(
            Event(at=entry.at, kind=kind, subject=subject, actor="user:admin", message="")
        )
        self._parts.announce_keys()
        return entry


def _limits(wish: KeyWish | LimitsWish) -> tuple[Limit, ...]:
    found = limits_of(wish.limits)
    for model, limits in wish.limits_by_model.items():
        found += limits_of(limits, check_name(model))
    return found


def _refuse_unpriced(
    parts: ApiParts, limits: tuple[Limit, ...], models: Iterable[str] | None
) -> None:
    """Refuse limits of money over what has no price (promise G14).

    Of models that are not deployed, none is known to have none, unless nothing has a price at all.
    """
    prices = parts.prices
    deployed = {each.name: each for each in parts.store.deployments.all()}
    priced: dict[str, bool] = {}
    missing: set[str] = set()
    named = {limit.model for limit in limits if limit.model is not None}
    for name in named | set(deployed if models is None else models):
        specs = [] if name not in deployed else [deployed[name].blue, deployed[name].green]
        lacks = {
            prices.missing(spec.launcher, spec.accelerators_per_replica)
            for spec in specs
            if spec is not None
        } - {""}
        priced[name] = not prices.empty and not lacks
        missing |= lacks
    if models is None and not deployed:
        priced[""] = not prices.empty
    reason = unpriced(limits, priced)
    if reason is not None:
        settings = ", ".join(sorted(missing)) or "cost.replica_hour.process"
        raise InvalidRequest(
            f"a limit can't be held: {reason}",
            next_step=f"set {settings} in config.yaml and start Modelyard again",
            param="limits",
        )


def _shown(limits: tuple[Limit, ...]) -> tuple[LimitView, ...]:
    return tuple(LimitView(kind=each.kind, amount=each.amount, model=each.model) for each in limits)


def _view(entry: KeyLogEntry) -> KeyView:
    if not isinstance(entry, KeyPut):  # pragma: no cover - only keys are shown
        raise TypeError(type(entry).__name__)
    return KeyView(
        key_id=entry.key_id,
        name=entry.name,
        tenant=entry.tenant,
        models=entry.models,
        limits=_shown(entry.limits),
        priority=entry.priority,
        created_at=entry.at,
        expires_at=entry.expires_at,
    )
