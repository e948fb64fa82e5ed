"""Every error of the management API in one form: OpenAI's, with the next step."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from modelyard.core.errors import InvalidRequest, ModelyardError, NotFound

log = logging.getLogger(__name__)


def error_response(error: ModelyardError) -> JSONResponse:
    """The answer that tells of `error`."""
    body = {
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
        "next_step": error.next_step,
    }
    return JSONResponse({"error": body}, status_code=error.status)


def install(app: FastAPI) -> None:
    """Answer every exception of `app` in that form."""

    async def on_ours(_: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, ModelyardError):  # pragma: no cover - registered for it alone
            raise error
        return error_response(error)

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        problems = error.errors() if isinstance(error, RequestValidationError) else []
        return error_response(_invalid(problems))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        known: ModelyardError
        if status == 404:
            known = NotFound(
                f"there is nothing at {request.url.path}", next_step="see api/messages.py"
            )
        else:
            known = InvalidRequest(f"{request.method} {request.url.path} is not served here")
        response = error_response(known)
        response.status_code = status
        return response

    async def on_other(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(
            ModelyardError(
                f"the controller failed at this: {type(error).__name__}",
                next_step="see logs/controller.log in the home",
            )
        )

    app.add_exception_handler(ModelyardError, on_ours)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_other)


def _invalid(problems: Sequence[Any]) -> InvalidRequest:
    if not problems:
        return InvalidRequest("the request can't be understood")
    first = problems[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(where)
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not JSON", next_step="send a JSON object")
    return InvalidRequest(
        f"{field or 'the body'}: {first['msg']}",
        next_step="see the fields of this route in api/messages.py",
        param=field or None,
    )
