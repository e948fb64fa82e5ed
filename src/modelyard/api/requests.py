"""Single requests explained, and what keys used."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from modelyard.api.messages import Explained, UsageList, UsageRow
from modelyard.api.messages_scores import ScoreView
from modelyard.api.parts import ApiParts
from modelyard.core.errors import NotFound
from modelyard.core.usage import DAY_S


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    def _scores(request_id: str) -> tuple[ScoreView, ...]:
        said = parts.store.scores.of(request_id)
        return tuple(
            ScoreView(judge=each.judge, score=each.score, reason=each.reason, at=each.at)
            for each in said
        )

    @routes.get("/requests/{request_id}")
    def explain(request_id: str) -> Explained:
        told = parts.runtime.explanation(request_id)
        if told is not None:
            return Explained(
                record=told["record"],
                decisions=tuple(told["decisions"]),
                scores=_scores(request_id),
            )
        record = parts.store.records.find(request_id)
        if record is None:
            raise NotFound(
                f"there is no request {request_id[:100]!r}",
                next_step="give the x-request-id of an answer",
                param="request_id",
            )
        facts: dict[str, Any] = msgspec.to_builtins(record)
        return Explained(record=facts, decisions=(), scores=_scores(request_id))

    @routes.get("/usage")
    def usage(
        days: Annotated[int, Query(ge=1, le=3660)] = 30, tenant: str | None = None
    ) -> UsageList:
        first = int(parts.clock() // DAY_S) - days + 1
        rows = parts.store.usage.since(first, tenant=tenant)
        return UsageList(usage=tuple(UsageRow(**msgspec.to_builtins(row)) for row in rows))

    return routes
