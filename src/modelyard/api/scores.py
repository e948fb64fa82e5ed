"""What judges say of answers. Whoever has the admin token may judge."""

from typing import Annotated

from fastapi import APIRouter, Query

from modelyard.api.messages_scores import DueList, DueView, ScoreReceipt, ScoresWish
from modelyard.api.parts import ApiParts
from modelyard.core.scores import MOST_AT_ONCE, Score

_LATELY_S = 3600.0


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    @routes.post("/scores")
    def judge(wish: ScoresWish) -> ScoreReceipt:
        at = parts.clock()
        told = [Score(**each.model_dump(), at=at) for each in wish.scores]
        accepted, unknown = parts.store.scores.add(told)
        parts.hear_scores(accepted)
        parts.wake()
        return ScoreReceipt(
            accepted=len(accepted), duplicates=len(told) - len(accepted), unknown=unknown
        )

    @routes.get("/scores/due")
    def due(
        judge: Annotated[str, Query(min_length=1, max_length=128)],
        limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 100,
        seconds: Annotated[float, Query(gt=0, le=30 * 86_400)] = _LATELY_S,
    ) -> DueList:
        found = parts.store.scores.due(judge, parts.clock() - seconds, limit)
        return DueList(requests=tuple(DueView(**each._asdict()) for each in found))

    return routes
