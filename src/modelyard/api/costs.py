"""What requests cost, and what was idle."""

import time
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query

from modelyard.api.cost_messages import CostReport, CostRow
from modelyard.api.parts import ApiParts
from modelyard.core.errors import InvalidRequest
from modelyard.observe.costs import DAY_S, By, Name, Row, report


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    @routes.get("/costs")
    def costs(
        days: Annotated[int, Query(ge=1, le=3660)] = 30,
        by: By = "tenant",
        tenant: str | None = None,
        model: str | None = None,
        top: Annotated[int | None, Query(ge=1)] = None,
    ) -> CostReport:
        if tenant is not None and by == "version":
            raise InvalidRequest(
                "what a tenant spent is not kept by version",
                next_step="ask by model, key or day, or for all tenants",
                param="by",
            )
        first = int(parts.clock() // DAY_S) - days + 1
        found = report(parts.store, by, first, tenant=tenant, model=model, top=top)
        return CostReport(
            currency=parts.prices.currency,
            by=by,
            since_day=first,
            rows=tuple(row_view(by, row) for row in found.rows),
            folded_count=found.folded_count,
            folded=None if found.folded is None else row_view(by, found.folded),
            total=row_view(by, found.total),
            idle_nanos=found.idle_nanos,
            unpriced_models=found.unpriced,
            missing_settings=_missing(parts, found.unpriced),
        )

    return routes


def row_view(by: By, row: Row) -> CostRow:
    """A row as it is told."""
    capacity = row.capacity
    return CostRow(
        name=shown_name(by, row.name) if row.name else "",
        requests=row.spent.requests,
        priced=row.spent.priced,
        prompt_tokens=row.spent.prompt_tokens,
        completion_tokens=row.spent.completion_tokens,
        cost_nanos=row.spent.cost_nanos,
        replica_ms=None if capacity is None else capacity.replica_ms,
        accelerator_ms=None if capacity is None else capacity.accelerator_ms,
        capacity_nanos=None if capacity is None else capacity.cost_nanos,
        idle_nanos=row.idle_nanos,
    )


def shown_name(by: By, name: Name) -> str:
    """A row's name for people."""
    if by == "day":
        return time.strftime("%Y-%m-%d", time.gmtime(int(name[0]) * DAY_S))
    if by == "version" and name[1]:
        return f"{name[0]}:{name[1]}"
    nobody = "(no model)" if by in ("model", "version") else "(no key)"
    return str(name[0]) or nobody


def _missing(parts: ApiParts, models: Iterable[str]) -> tuple[str, ...]:
    wanted = set(models)
    found = {
        parts.prices.missing(spec.launcher, spec.accelerators_per_replica)
        for deployment in parts.store.deployments.all()
        if deployment.name in wanted
        for spec in (deployment.blue, deployment.green)
        if spec is not None
    }
    return tuple(sorted(found - {""}))
