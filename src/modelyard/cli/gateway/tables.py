"""A stand-alone gateway's settings as tables of 80 columns."""

from collections.abc import Iterable, Mapping
from typing import Any

from modelyard.gateway.config import (
    KeySettings,
    Limits,
    ModelSettings,
    TenantSettings,
    UpstreamSettings,
)


def model_table(models: Iterable[ModelSettings]) -> Any:
    """Name, upstreams and policy of each."""
    table = _table("model", "upstreams", "limits, and what else is set")
    for model in models:
        table.add_row(
            model.name + ("\n(default)" if model.default else ""),
            "\n".join(_upstream(each) for each in model.upstreams),
            "\n".join(_policy(model)) or "none",
        )
    return table


def tenant_table(tenants: Iterable[TenantSettings]) -> Any:
    """The limits of each."""
    table = _table("tenant", "limits of its keys together")
    for tenant in tenants:
        table.add_row(tenant.name, _limits(tenant.limits, tenant.limits_by_model) or "none")
    return table


def key_table(keys: Iterable[KeySettings]) -> Any:
    """Who may ask what; where a secret is, never the secret."""
    table = _table("key", "tenant", "may ask", "limits", "its secret")
    for key in keys:
        limits = [_limits(key.limits, key.limits_by_model) or "none"]
        if key.priority != "normal":
            limits.append(f"{key.priority} priority")
        if key.expires is not None:
            limits.append(f"until {key.expires.isoformat()}")
        table.add_row(
            key.id,
            key.tenant,
            "all models" if key.models is None else ", ".join(key.models),
            "\n".join(limits),
            _secret(key.secret_env, key.secret_file) or "known by its hash",
        )
    return table


def _table(*titles: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _upstream(upstream: UpstreamSettings) -> str:
    more = [f"  as {upstream.model}"] if upstream.model else []
    if upstream.weight != 1:
        more.append(f"  weight {upstream.weight:g}")
    if upstream.max_concurrency is not None:
        more.append(f"  {upstream.max_concurrency} at once")
    if key := _secret(upstream.api_key_env, upstream.api_key_file):
        more.append(f"  key: {key}")
    return "\n".join([upstream.url, *more])


def _secret(variable: str | None, file: str | None) -> str:
    return f"${variable}" if variable else file or ""


def _limits(limits: Limits, by_model: Mapping[str, Limits] = {}) -> str:
    parts = [_limit(kind, amount) for kind, amount in limits.items()]
    parts += [
        f"{_limit(kind, amount)} of {model}"
        for model, more in by_model.items()
        for kind, amount in more.items()
    ]
    return ", ".join(parts)


def _limit(kind: str, amount: float) -> str:
    return f"{amount:.0f} {kind.replace('_per_', '/').replace('_', ' ')}"


def _policy(model: ModelSettings) -> list[str]:
    """Its limits, then whatever is not the default."""
    lines = [_limits(model.limits)] if model.limits else []
    for name in type(model).__struct_fields__:
        if name in ("name", "upstreams", "default", "limits"):
            continue
        value, default = getattr(model, name), _DEFAULTS[name]
        if value == default:
            continue
        if hasattr(default, "__struct_fields__"):
            lines += [
                f"{name}.{below}: {_shown(getattr(value, below))}"
                for below in default.__struct_fields__
                if getattr(value, below) != getattr(default, below)
            ]
        else:
            lines.append(f"{name}: {_shown(value)}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


_DEFAULTS: Mapping[str, Any] = {
    name: getattr(
        ModelSettings(name="any", upstreams=(UpstreamSettings(url="http://127.0.0.1"),)), name
    )
    for name in ModelSettings.__struct_fields__
}
