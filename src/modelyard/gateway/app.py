"""What each path does, and the one end of every request."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec

from modelyard.core.errors import (
    CallerError,
    ClientLeft,
    InvalidRequest,
    LimitExceeded,
    MethodNotAllowed,
    ModelyardError,
    NotFound,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamError,
)
from modelyard.core.records import Outcome
from modelyard.core.routes import ModelRoute
from modelyard.gateway.accounting import Accounting
from modelyard.gateway.admin import PREFIX, Admin
from modelyard.gateway.admission import (
    Admission,
    GenerateRequest,
    read_batch,
    read_generate,
)
from modelyard.gateway.calls import PATHS, Answer, Call
from modelyard.gateway.connection import Connection
from modelyard.gateway.meters import Meters
from modelyard.gateway.records import Asked
from modelyard.gateway.relay import brief
from modelyard.gateway.request import Request
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.standing import Standing
from modelyard.observe.prometheus import CONTENT_TYPE
from modelyard.wire.http import Header
from modelyard.wire.openai import error_body, error_event, read_text

log = logging.getLogger(__name__)

MAX_BATCH_CONCURRENCY = 16
_JSON: Header = (b"content-type", b"application/json")
_TEXT: Header = (b"content-type", CONTENT_TYPE.encode())


class Gateway:
    """Serves requests; the connections' handler."""

    def __init__(
        self,
        routes: RouteTable,
        admission: Admission,
        dispatcher: Asked,
        accounting: Accounting,
        meters: Meters,
        standing: Standing,
        admin: Admin,
    ) -> None:
        self._routes = routes
        self._admission = admission
        self._dispatcher = dispatcher
        self._accounting = accounting
        self._meters = meters
        self._standing = standing
        self._admin = admin
        self._pages: dict[str, Callable[[Request], tuple[int, Header, bytes]]] = {
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": lambda _request: (200, _TEXT, meters.exposition()),
            "/v1/models": self._models,
        }
        self._calls: dict[str, Callable[[Request, Connection], Awaitable[None]]] = {
            **dict.fromkeys(PATHS, self._openai),
            "/generate": self._generate,
            "/batch_generate": self._batch_generate,
        }
        self.connections: set[Connection] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        self.connections.add(connection)
        self._quiet.clear()
        self._meters.connections = len(self.connections)
        if self._standing.draining:
            connection.closing_after = True

    def closed(self, connection: Connection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        self._meters.connections = len(self.connections)
        if not self.connections:
            self._quiet.set()

    async def until_quiet(self, timeout_s: float) -> None:
        """Wait until no connection is open, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()

    async def handle(self, request: Request, connection: Connection) -> None:
        """Serve one request, to whatever end."""
        page = self._pages.get(request.path)
        serve = self._calls.get(request.path)
        if page is None and serve is None:
            self._other(request, connection)
        elif page is not None and request.method in ("GET", "HEAD"):
            self._page(page, request, connection)
        elif serve is not None and request.method == "POST":
            try:
                await serve(request, connection)
            except asyncio.CancelledError:
                _tell(connection, Unavailable("the gateway is shutting down", retry_after_s=1.0))
        else:
            error, allow = _wrong_method(request, b"GET, HEAD" if page else b"POST")
            connection.send(error.status, (_JSON, allow), error_body(error))

    def _page(
        self,
        page: Callable[[Request], tuple[int, Header, bytes]],
        request: Request,
        connection: Connection,
    ) -> None:
        try:
            if request.path == "/metrics":
                self._admin.check_metrics(request, connection.peer)
            status, content_type, body = page(request)
        except ModelyardError as error:
            _tell(connection, error)
        else:
            connection.send(status, (content_type,), body)

    def _other(self, request: Request, connection: Connection) -> None:
        """The admin routes, the page of one model, and what is not there."""
        try:
            if request.path.startswith(PREFIX):
                body = self._admin.answer(request, connection.peer)
            elif request.path.startswith("/v1/models/") and request.method in ("GET", "HEAD"):
                name = unquote(request.path.removeprefix("/v1/models/"))
                key = self._admission.who(request)
                body = msgspec.json.encode(_model_page(self._admission.route(name, key)))
            else:
                raise self._unknown(request.path)
        except ModelyardError as error:
            _tell(connection, error)
        else:
            connection.send(200, (_JSON,), body)

    def _unknown(self, path: str) -> NotFound:
        return NotFound(
            f"there is nothing at {path[:200]!r}",
            next_step=f"known paths: {', '.join(sorted([*self._pages, *self._calls]))}",
        )

    # --- pages that cost nothing -----------------------------------------------------------------

    def _health(self, _request: Request) -> tuple[int, Header, bytes]:
        standing = self._standing
        body = {
            "status": "ok",
            "draining": standing.draining,
            standing.source: "connected" if standing.connected else "away",
            "routes_version": self._routes.applied.version,
            "models": len(self._routes.names),
        }
        if standing.source == "file":
            body["file"] = "refused" if standing.problem else "applied"
        return 200, _JSON, msgspec.json.encode(body)

    def _ready(self, _request: Request) -> tuple[int, Header, bytes]:
        if self._standing.draining:
            return 503, _JSON, b'{"status":"draining"}'
        if not self._standing.has_routes:
            return 503, _JSON, b'{"status":"waiting for routes from the controller"}'
        return 200, _JSON, b'{"status":"ready"}'

    def _models(self, request: Request) -> tuple[int, Header, bytes]:
        key = self._admission.who(request)
        models = [_model_page(model) for model in self._admission.allowed(key)]
        return 200, _JSON, msgspec.json.encode({"object": "list", "data": models})

    # --- requests that are counted ---------------------------------------------------------------

    async def _openai(self, request: Request, connection: Connection) -> None:
        async def work(call: Call) -> Answer | None:
            self._admission.admit(call, request)
            return await self._dispatcher.run(call, connection)

        call = self._accounting.begin()
        answer = await self._settle(call, connection, work)
        if isinstance(answer, ModelyardError):
            _tell(connection, answer, call)
        elif answer is not None:
            content_type = (b"content-type", answer.content_type)
            connection.send(answer.status, (content_type, *call.headers()), answer.body)

    async def _generate(self, request: Request, connection: Connection) -> None:
        call = self._accounting.begin()
        call.request_bytes = len(request.body)
        answer = await self._generate_one(
            call, connection, request, lambda: read_generate(request.body)
        )
        if isinstance(answer, ModelyardError):
            _tell(connection, answer, call)
        else:
            connection.send(200, (_JSON, *call.headers()), answer)

    async def _batch_generate(self, request: Request, connection: Connection) -> None:
        """Answer a list of simple requests, in the order asked; one that fails holds its error."""
        try:
            self._admission.who(request)
            items = read_batch(request.body)
        except (InvalidRequest, Unauthenticated) as error:
            call = self._accounting.begin()
            call.request_bytes = len(request.body)
            self._accounting.finish(call, "rejected", error.status, error.code)
            _tell(connection, error, call)
            return
        gate = asyncio.Semaphore(MAX_BATCH_CONCURRENCY)

        async def one(item: GenerateRequest) -> msgspec.Raw:
            async with gate:
                call = self._accounting.begin()
                answer = await self._generate_one(call, connection, request, lambda: item)
            if isinstance(answer, ModelyardError):
                return msgspec.Raw(error_body(answer))
            return msgspec.Raw(answer)

        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(one(item)) for item in items]
        body = msgspec.json.encode([answer.result() for answer in answers])
        connection.send(200, (_JSON,), body)

    async def _generate_one(
        self,
        call: Call,
        connection: Connection,
        request: Request,
        read: Callable[[], GenerateRequest],
    ) -> "bytes | ModelyardError":
        async def work(call: Call) -> Answer | None:
            self._admission.admit_generate(call, request, read)
            return _simple(call, await self._dispatcher.run(call, connection))

        answer = await self._settle(call, connection, work)
        return answer if isinstance(answer, ModelyardError) else answer.body if answer else b""

    async def _settle(
        self, call: Call, connection: Connection, work: Callable[[Call], Awaitable[Answer | None]]
    ) -> Answer | ModelyardError | None:
        """Do the work of a call and end it with its one outcome, whatever happens."""
        try:
            answer = await work(call)
        except asyncio.CancelledError:
            if connection.gone:
                self._accounting.finish(call, "cancelled", ClientLeft.status, ClientLeft.code)
            else:
                self._accounting.finish(call, "failed", Unavailable.status, "shut_down")
            raise
        except ModelyardError as error:
            caused_by_caller = isinstance(error, CallerError | Unsupported)
            outcome: Outcome = "rejected" if caused_by_caller else "failed"
            self._accounting.finish(call, outcome, error.status, error.code)
            return error
        except Exception as error:  # the edge of a request: a defect of ours must not leave it open
            log.exception("request %s failed", call.request_id)
            self._accounting.finish(call, "failed", ModelyardError.status, ModelyardError.code)
            return ModelyardError(
                f"the gateway failed on this request ({type(error).__name__})",
                next_step="its log has the details, under the request's id",
            )
        if answer is not None and answer.status >= 400:
            self._accounting.finish(call, "rejected", answer.status, f"upstream_{answer.status}")
        else:
            if answer is not None:
                call.sent(len(answer.body), time.monotonic())
            self._accounting.finish(call, "completed", 200, None)
        return answer


def _model_page(model: ModelRoute) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at,
        "owned_by": "modelyard",
        "versions": [
            {"version": slot.version, "digest": slot.digest, "weight": slot.weight}
            for slot in model.slots
        ],
    }


class GenerateAnswer(msgspec.Struct, frozen=True):
    """The simple API's answer. `generation_time` in seconds."""

    response: str
    generation_time: float
    tokens_generated: int | None
    model_name: str
    model_version: int | None


def _simple(call: Call, answer: Answer | None) -> Answer:
    """An engine's answer in the simple API's form. Raises what the client is told instead."""
    if answer is None or call.slot is None or call.model is None:
        raise UpstreamError("the replica streamed an answer that was not asked for")
    if answer.status >= 400:
        raise InvalidRequest(f"the engine refused the request: {brief(answer.body)}")
    simple = GenerateAnswer(
        response=read_text(answer.body),
        generation_time=time.monotonic() - call.received,
        tokens_generated=call.usage.completion_tokens if call.usage else None,
        model_name=call.model,
        model_version=call.slot.version,
    )
    return Answer(200, msgspec.json.encode(simple))


def _tell(connection: Connection, error: ModelyardError, call: Call | None = None) -> None:
    """Tell the client of an error; in mid-stream as an event, with no end that looks whole (G4)."""
    if connection.gone:
        return
    if connection.head_sent:
        operation = call.operation if call is not None else None
        connection.write(error_event(error, operation))
        connection.cut()
        return
    headers: list[Header] = [_JSON]
    if call is not None:
        headers.extend(call.headers())
    if isinstance(error, LimitExceeded) and error.limit:
        headers.append((b"x-modelyard-limit", error.limit.encode()))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    elif isinstance(error, LimitExceeded):  # it would never fit: OpenAI's own clients obey this
        headers.append((b"x-should-retry", b"false"))
    connection.send(error.status, headers, error_body(error))


def _wrong_method(request: Request, allowed: bytes) -> tuple[ModelyardError, Header]:
    error = MethodNotAllowed(f"{request.method} is not allowed at {request.path}")
    error.next_step = f"use {allowed.decode()}"
    return error, (b"allow", allowed)
