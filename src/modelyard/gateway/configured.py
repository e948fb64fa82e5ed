"""What a configuration file means: checked as far as its types can't say, and turned into routes,
keys and secrets."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from modelyard.core.cost import Price
from modelyard.core.errors import InvalidConfig
from modelyard.core.keyring import secret_hash
from modelyard.core.keys import KeyLogEntry, KeyPut, Limit, ModelLimitsPut, TenantPut
from modelyard.core.limits import unenforceable, unpriced
from modelyard.core.routes import REMOTE, ModelRoute, Policy, ReplicaRoute, RouteSnapshot, SlotRoute
from modelyard.core.telemetry import check_headers, checked_endpoint
from modelyard.gateway.config import (
    GatewayFile,
    Limits,
    ModelSettings,
    PriceSettings,
    TraceSettings,
    UpstreamSettings,
)
from modelyard.gateway.upstream import check_url

_HASH = re.compile(r"[0-9a-f]{64}")


class Secrets:
    """Reads secrets from the environment and from files beside the configuration."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment

    def read(self, variable: str | None, file: str | None, where: str) -> str | None:
        """The secret that is named; None when none is. Raises InvalidConfig, without it."""
        if variable is not None:
            value = self._environment.get(variable, "").strip()
            if not value:
                raise InvalidConfig(
                    f"{where}: the environment variable {variable} is empty or not set",
                    next_step="set it where the gateway is started",
                )
            return _printable(value, where)
        if file is None:
            return None
        path = self.path(file)
        try:
            value = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(
                f"{where}: {path} can't be read: {getattr(error, 'strerror', None) or error}",
                next_step="make it readable for the user that runs the gateway",
            ) from None
        if not value:
            raise InvalidConfig(f"{where}: {path} is empty", next_step="put the secret into it")
        return _printable(value, where)

    def path(self, name: str) -> Path:
        """A file named in the configuration, seen from its folder."""
        return self._folder / Path(name).expanduser()


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """What a file means to the parts."""

    settings: GatewayFile
    host: str
    port: int
    snapshot: RouteSnapshot
    keys: tuple[KeyLogEntry, ...]
    secrets: dict[str, str]
    """By the names that the routes use."""
    ca_file: Path | None
    certificate: tuple[Path, Path] | None
    """Certificate and key."""
    used_files: tuple[Path, ...]
    """Files beside the configuration whose change matters."""


def configured(
    settings: GatewayFile, version: int, now: float, secrets: Secrets, environment_name: str
) -> Configured:
    """Check what the types can't say, and build what the gateway works with.

    Raises InvalidConfig. `environment_name` stands before every message: the file's name.
    """
    try:
        _check(settings)
        _check_traces(settings.telemetry.traces)
        host, port = address(settings.listen)
        upstream_secrets = {
            _credential(upstream): secret
            for model in settings.models
            for number, upstream in enumerate(model.upstreams)
            if (
                secret := secrets.read(
                    upstream.api_key_env,
                    upstream.api_key_file,
                    f"models {model.name!r} upstreams[{number}]",
                )
            )
            is not None
        }
        keys = _keys(settings, secrets, now)
        _count_what_has_a_price(settings, keys)
        snapshot = RouteSnapshot(
            epoch="file",
            version=version,
            published_at=now,
            models=tuple(_route(model, now) for model in settings.models),
            default_model=next((m.name for m in settings.models if m.default), None),
        )
        tls = settings.tls
        files = [each.secret_file for each in settings.keys]
        files += [u.api_key_file for model in settings.models for u in model.upstreams]
        ca_file = settings.upstream_ca_file
        return Configured(
            settings=settings,
            host=host,
            port=port,
            snapshot=snapshot,
            keys=keys,
            secrets=upstream_secrets,
            ca_file=None if ca_file is None else secrets.path(ca_file),
            certificate=None
            if tls is None
            else (secrets.path(tls.cert_file), secrets.path(tls.key_file)),
            used_files=tuple(secrets.path(name) for name in files if name is not None),
        )
    except InvalidConfig as error:
        error.message = f"{environment_name}: {error.message}"
        error.args = (error.message,)
        raise


def _check(settings: GatewayFile) -> None:
    models = [model.name for model in settings.models]
    _once("models", models)
    _once("tenants", [tenant.name for tenant in settings.tenants])
    _once("keys", [key.id for key in settings.keys])
    if sum(model.default for model in settings.models) > 1:
        raise InvalidConfig("models: more than one is the default", next_step="leave one")
    tenants = {"default", *(tenant.name for tenant in settings.tenants)}
    for model in settings.models:
        _known(f"models {model.name!r} fallbacks", model.fallbacks, models)
        if model.name in model.fallbacks:
            raise InvalidConfig(
                f"models {model.name!r} falls back on itself", next_step="take it out of fallbacks"
            )
        _once(f"models {model.name!r} upstreams", map(_told_apart, _places(model), model.upstreams))
        _limits(f"models {model.name!r} limits", model.limits)
    for tenant in settings.tenants:
        _known(f"tenants {tenant.name!r} limits_by_model", tenant.limits_by_model, models)
    for key in settings.keys:
        where = f"keys {key.id!r}"
        _known(f"{where} models", key.models or (), models)
        _known(f"{where} limits_by_model", key.limits_by_model, models)
        if settings.tenants and key.tenant not in tenants:
            _known(f"{where} tenant", (key.tenant,), sorted(tenants))
        sources = [key.sha256, key.secret_env, key.secret_file]
        if sum(source is not None for source in sources) != 1:
            raise InvalidConfig(
                f"{where}: exactly one of sha256, secret_env and secret_file is needed",
                next_step="make a key and its hash with: modelyard keys create --offline",
            )
        if key.sha256 is not None and not _HASH.fullmatch(key.sha256):
            raise InvalidConfig(
                f"{where}: sha256 is not 64 hexadecimal digits",
                next_step="give the SHA-256 of the secret, never the secret",
            )


def _check_traces(traces: TraceSettings) -> None:
    where = "telemetry.traces"
    if traces.endpoint is not None:
        checked_endpoint(traces.endpoint, f"{where}.endpoint")
    check_headers(traces.headers_env, f"{where}.headers_env")


def _once(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidConfig(f"{where}: {name!r} stands twice", next_step="leave one of them")
        seen.add(name)


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise InvalidConfig(
                f"{where}: there is no {name!r}", next_step=f"there are: {', '.join(known)}"
            )


def _count_what_has_a_price(settings: GatewayFile, entries: Iterable[KeyLogEntry]) -> None:
    """Limits of money over what has no price can't be held (promise G14)."""
    priced = {
        model.name: model.price is not None
        or all(upstream.price is not None for upstream in model.upstreams)
        for model in settings.models
    }
    for entry in entries:
        if isinstance(entry, KeyPut):
            asked = priced if entry.models is None else {m: priced[m] for m in entry.models}
            where, limits = f"keys {entry.key_id!r}", entry.limits
        elif isinstance(entry, TenantPut):
            asked, where, limits = priced, f"tenants {entry.tenant!r}", entry.limits
        elif isinstance(entry, ModelLimitsPut):
            asked = {entry.model: priced[entry.model]}
            where, limits = f"models {entry.model!r} limits", entry.limits
        else:
            continue
        reason = unpriced(limits, asked)
        if reason is not None:
            raise InvalidConfig(
                f"{where}: {reason}", next_step="give the model a `price`, or remove that limit"
            )


def _limits(where: str, limits: Limits, by_model: Mapping[str, Limits] = {}) -> tuple[Limit, ...]:
    found = [Limit(kind=kind, amount=amount) for kind, amount in limits.items()]
    found += [
        Limit(kind=kind, amount=amount, model=model)
        for model, more in by_model.items()
        for kind, amount in more.items()
    ]
    reason = unenforceable(found)
    if reason is not None:
        raise InvalidConfig(f"{where}: {reason}", next_step="change or remove that limit")
    return tuple(found)


def _keys(settings: GatewayFile, secrets: Secrets, now: float) -> tuple[KeyLogEntry, ...]:
    entries: list[KeyLogEntry] = []
    for tenant in settings.tenants:
        where = f"tenants {tenant.name!r}"
        limits = _limits(where, tenant.limits, tenant.limits_by_model)
        entries.append(TenantPut(seq=0, at=now, tenant=tenant.name, limits=limits))
    hashes: dict[str, str] = {}
    for key in settings.keys:
        where = f"keys {key.id!r}"
        secret = secrets.read(key.secret_env, key.secret_file, where)
        shown = key.sha256 if secret is None else secret_hash(secret)
        if shown in hashes:
            raise InvalidConfig(
                f"{where} has the same secret as {hashes[shown]!r}", next_step="make another one"
            )
        hashes[str(shown)] = key.id
        expires = key.expires
        if expires is not None and expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        entries.append(
            KeyPut(
                seq=0,
                at=now,
                key_id=key.id,
                secret_sha256=str(shown),
                tenant=key.tenant,
                models=key.models,
                limits=_limits(where, key.limits, key.limits_by_model),
                priority=key.priority,
                expires_at=None if expires is None else expires.timestamp(),
            )
        )
    entries += [
        ModelLimitsPut(seq=0, at=now, model=m.name, limits=_limits(m.name, m.limits))
        for m in settings.models
        if m.limits
    ]
    return tuple(msgspec.structs.replace(entry, seq=n) for n, entry in enumerate(entries, 1))


def _route(model: ModelSettings, now: float) -> ModelRoute:
    slot = SlotRoute(
        slot="blue",
        model=None,
        version=None,
        digest=_identity(model),
        weight=1.0,
        operations=model.operations,
        context_length=model.context_length,
        chat_template=model.chat_template,
        ask_as_stream=model.cancels_streams_only,
        tokenizer=model.tokenizer,
        price=_price(model.price),
        replicas=tuple(
            ReplicaRoute(
                id=replica_id,
                url=upstream.url.rstrip("/"),
                weight=upstream.weight,
                max_concurrency=upstream.max_concurrency,
                upstream_model=upstream.model,
                credential=_credential(upstream) if _has_key(upstream) else None,
                price=_price(upstream.price),
            )
            for replica_id, upstream in zip(_replica_ids(model), model.upstreams, strict=True)
        ),
    )
    policy = Policy(
        **{name: getattr(model, name) for name in Policy.__struct_fields__}  # the same names
    )
    return ModelRoute(
        name=model.name, deployment=model.name, created_at=int(now), slots=(slot,), policy=policy
    )


def _price(settings: PriceSettings | None) -> Price | None:
    return None if settings is None else msgspec.convert(msgspec.to_builtins(settings), Price)


def _identity(model: ModelSettings) -> str:
    """What is declared of weights that can't be hashed from here."""
    places = sorted([each.url.rstrip("/"), each.model or model.name] for each in model.upstreams)
    declared = msgspec.json.encode([places, model.revision])
    return REMOTE + hashlib.sha256(declared).hexdigest()


def _replica_ids(model: ModelSettings) -> list[str]:
    """Names of the upstreams; those of one place, which differ by their keys, are counted."""
    seen: Counter[str] = Counter()
    ids = []
    for place in _places(model):
        seen[place] += 1
        ids.append(place if seen[place] == 1 else f"{place}#{seen[place]}")
    return ids


def _places(model: ModelSettings) -> list[str]:
    return [_place(model, upstream) for upstream in model.upstreams]


def _told_apart(place: str, upstream: UpstreamSettings) -> str:
    """One place may be there with several keys, each with limits of its own."""
    return f"{place} with {_credential(upstream)}" if _has_key(upstream) else place


def _place(model: ModelSettings, upstream: UpstreamSettings) -> str:
    url = upstream.url.rstrip("/")
    check_url(url)
    if url.endswith("/v1"):
        raise InvalidConfig(
            f"models {model.name!r}: the upstream {url} ends with /v1",
            next_step=f"write {url.removesuffix('/v1')}: the gateway adds the path of each request",
        )
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidConfig(
            f"models {model.name!r}: the upstream at {parts.hostname} has a user, a query or a "
            "fragment in its URL",
            next_step="give its key by api_key_env or api_key_file, and the URL alone",
        )
    place = f"{parts.netloc}{parts.path}"
    return f"{model.name}/{place}" + (f"/{upstream.model}" if upstream.model else "")


def _has_key(upstream: UpstreamSettings) -> bool:
    return upstream.api_key_env is not None or upstream.api_key_file is not None


def _credential(upstream: UpstreamSettings) -> str:
    """The name under which an upstream's secret is known."""
    if upstream.api_key_env is not None:
        return f"env:{upstream.api_key_env}"
    return f"file:{upstream.api_key_file}"


def address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; raises InvalidConfig."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise InvalidConfig(
            f"listen: {listen!r} is not an address", next_step="write HOST:PORT, 127.0.0.1:8000"
        )
    return host.strip("[]"), int(port)


def _printable(value: str, where: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidConfig(
            f"{where}: the secret holds spaces or characters that no header can carry",
            next_step="put the secret alone there",
        )
    return value
