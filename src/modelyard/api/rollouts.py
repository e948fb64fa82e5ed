"""Rollouts, as they stand or ended."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query

from modelyard.api.messages import RolloutList, RolloutView
from modelyard.api.parts import ApiParts
from modelyard.api.views import rollout_view
from modelyard.core.errors import NotFound
from modelyard.state.rollouts import KnownRollout


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    def view(known: KnownRollout) -> RolloutView:
        rollout = known.rollout
        if not rollout.over:
            known = msgspec.structs.replace(known, rollout=parts.runtime.told(rollout))
        return rollout_view(known, parts.runtime.waits_for(rollout))

    @routes.get("/rollouts")
    def list_rollouts(
        deployment: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> RolloutList:
        known = parts.store.rollouts.list(deployment, limit)
        return RolloutList(rollouts=tuple(view(each) for each in known))

    @routes.get("/rollouts/{rollout_id}")
    def show(rollout_id: str) -> RolloutView:
        known = parts.store.rollouts.get(rollout_id)
        if known is None:
            newest = ", ".join(each.rollout.id for each in parts.store.rollouts.list(None, 5))
            raise NotFound(
                f"there is no rollout {rollout_id[:100]!r}; the newest: {newest or 'none'}",
                next_step="modelyard rollouts list shows them",
                param="rollout_id",
            )
        return view(known)

    return routes
