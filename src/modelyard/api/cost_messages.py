"""What the management API says of cost.

    GET /api/costs?days=N&by=tenant|key|model|version|day&tenant=T&model=M&top=N → CostReport

Money is in whole billionths of the reporting currency, so that sums are exact.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class CostRow(BaseModel):
    """What the requests of one tenant, key, model, version or day cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Empty for a total; a day as 2026-11-24, a version as `model:3`."""
    requests: int
    priced: int
    """Of them, those whose cost is known."""
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    replica_ms: int | None
    """Time of the replicas that ran for it, asked or not; null: that can't be told by this."""
    accelerator_ms: int | None
    capacity_nanos: int | None
    """What they cost, as far as prices are known."""
    idle_nanos: int | None
    """Of that, what no request paid for; null: not known."""


class CostReport(BaseModel):
    """Whole days of UTC up to now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str
    by: Literal["tenant", "key", "model", "version", "day"]
    since_day: int
    """Days since 1970."""
    rows: tuple[CostRow, ...]
    """The dearest first; of days, the newest last."""
    folded_count: int
    """Rows beyond the `top` ones."""
    folded: CostRow | None
    """Those together."""
    total: CostRow
    idle_nanos: int | None
    """Of all models that ran; null: not known, or not the question."""
    unpriced_models: tuple[str, ...]
    """Of which requests, or time of replicas, have no price."""
    missing_settings: tuple[str, ...]
    """Without which their deployments have none."""
