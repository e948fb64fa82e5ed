"""The journal, read in pieces."""

from typing import Annotated

from fastapi import APIRouter, Query

from modelyard.api.messages import EventList, EventView
from modelyard.api.parts import ApiParts


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api")

    @routes.get("/events")
    def events(
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> EventList:
        found = parts.store.events.after(after, limit)
        return EventList(
            events=tuple(
                EventView(
                    seq=event.seq,
                    at=event.at,
                    kind=event.kind,
                    subject=event.subject,
                    actor=event.actor,
                    message=event.message,
                    details=event.details,
                )
                for event in found
            )
        )

    return routes
