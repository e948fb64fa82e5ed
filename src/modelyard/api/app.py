"""The management application: its routers behind the admin token."""

import hmac

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api import (
    alerts,
    costs,
    deployments,
    errors,
    events,
    keys,
    live,
    models,
    requests,
    rollouts,
    scores,
    status,
    trends,
)
from modelyard.api.parts import ApiParts
from modelyard.core.errors import Unauthenticated


def create_app(parts: ApiParts) -> FastAPI:
    """All routes of `api/messages.py`."""
    app = FastAPI(title="Modelyard", openapi_url=None, docs_url=None, redoc_url=None)
    errors.install(app)
    for noun in (
        alerts,
        status,
        deployments,
        rollouts,
        models,
        keys,
        requests,
        scores,
        events,
        trends,
        live,
        costs,
    ):
        app.include_router(noun.router(parts))
    app.add_middleware(_AdminToken, token=parts.token)
    return app


class _AdminToken:
    """Lets only the admin token's bearer to /api, before a body is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/api"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                refusal = errors.error_response(
                    Unauthenticated(
                        "the admin token is missing or wrong",
                        next_step="send 'Authorization: Bearer TOKEN' with the token from "
                        "secrets/admin.token in the home",
                    )
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
