"""Whether a request is let in: read, checked, matched with a route; no replica is asked."""

from typing import TypeVar

import msgspec

from modelyard.core.errors import InvalidRequest, NotFound, PayloadTooLarge, Unavailable
from modelyard.core.routes import ModelRoute, Operation
from modelyard.gateway.calls import Call
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.spool import RecordSpool
from modelyard.wire.openai import MAX_TOKENS, RequestView, ask_for_usage, not_valid, read_request

STREAMED_USAGE: frozenset[Operation] = frozenset({"chat", "completions"})
"""Operations whose streams state usage when asked to by `stream_options`."""


class GenerateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The simple API's request: `POST /generate`."""

    prompt: str
    max_length: int = 256
    """Bounds the new tokens."""
    temperature: float | None = None
    top_p: float | None = None
    model_name: str | None = None
    """Left out or `default`: the default deployment, or the only one."""
    raw: bool = False
    """Send the prompt as it is, not as a user message."""


_GENERATE: msgspec.json.Decoder[GenerateRequest] = msgspec.json.Decoder(GenerateRequest)
_BATCH: msgspec.json.Decoder[list[GenerateRequest]] = msgspec.json.Decoder(list[GenerateRequest])
MAX_BATCH = 256
T = TypeVar("T")


class Admission:
    """Checks that cost nothing to a replica. The errors raised are the caller's fault."""

    def __init__(self, routes: RouteTable, spool: RecordSpool) -> None:
        self._routes = routes
        self._spool = spool

    def admit(self, call: Call, operation: Operation, body: bytes) -> None:
        """Fill `call` from an OpenAI-form request, or raise."""
        call.operation = operation
        call.request_bytes = len(body)
        self._keep_books()
        view = read_request(operation, body)
        route = self.route(view.model)
        self._accept(call, route, body)
        call.stream = bool(view.stream)
        if call.stream and operation in STREAMED_USAGE and not _wants_usage(view):
            call.hides_usage = True
            call.body = ask_for_usage(view, body)

    def admit_generate(self, call: Call, request: GenerateRequest) -> None:
        """Fill `call` from a simple request, turned into the OpenAI form that its model takes."""
        self._keep_books()
        route = self.route(request.model_name)
        _check_ranges(request)
        chat = not request.raw and all(slot.chat_template for slot in route.slots)
        fields: dict[str, object] = {"model": route.name, "max_tokens": request.max_length}
        if request.temperature is not None:
            fields["temperature"] = request.temperature
        if request.top_p is not None:
            fields["top_p"] = request.top_p
        if chat:
            fields["messages"] = [{"role": "user", "content": request.prompt}]
        else:
            fields["prompt"] = request.prompt
        call.operation = "chat" if chat else "completions"
        body = msgspec.json.encode(fields)
        call.request_bytes = call.request_bytes or len(body)
        self._accept(call, route, body)

    def route(self, name: str | None) -> ModelRoute:
        """The route of a public name; of the default where none is named. Raises NotFound."""
        known = ", ".join(self._routes.names) or "none is deployed"
        if name is None or name == "default":
            named = self._routes.model("default") if name else None
            route = named or self._routes.default
            if route is None:
                raise NotFound(
                    f"no model is named, and none is the default (models: {known})",
                    next_step="name one, or mark one with: modelyard deploy NAME --default",
                    param="model",
                )
            return route
        found = self._routes.model(name)
        if found is None:
            raise NotFound(
                f"the model {name[:200]!r} does not exist (models: {known})",
                next_step="name one of these, or deploy it with: modelyard deploy NAME:VERSION",
                param="model",
            )
        return found

    def _accept(self, call: Call, route: ModelRoute, body: bytes) -> None:
        if len(body) > route.policy.max_body_bytes:
            raise PayloadTooLarge(
                f"the request's body is over {route.policy.max_body_bytes} bytes, "
                f"the bound of model {route.name!r}"
            )
        call.route = route
        call.model = route.name
        call.body = body

    def _keep_books(self) -> None:
        if self._spool.refuses:
            raise Unavailable(
                "the gateway can't record requests: its spool is full",
                next_step="bring the controller back, or set the records policy to 'drop'",
                retry_after_s=5.0,
            )


def read_generate(body: bytes) -> GenerateRequest:
    """Read the body of `POST /generate`; raise InvalidRequest."""
    return _decode(_GENERATE, body)


def read_batch(body: bytes) -> list[GenerateRequest]:
    """Read the body of `POST /batch_generate`; raise InvalidRequest. Every item is checked."""
    items = _decode(_BATCH, body)
    if not items:
        raise InvalidRequest("the list of requests is empty")
    if len(items) > MAX_BATCH:
        raise InvalidRequest(
            f"{len(items)} requests are over the bound of {MAX_BATCH} in one batch",
            next_step="send several batches",
        )
    for index, item in enumerate(items):
        _check_ranges(item, where=f" of request {index}")
    return items


def _check_ranges(request: GenerateRequest, where: str = "") -> None:
    checks = (
        ("prompt", bool(request.prompt), "must not be empty"),
        ("max_length", 1 <= request.max_length <= MAX_TOKENS, "must be 1 or more, within reason"),
        ("temperature", 0 <= (request.temperature or 0) <= 2, "must be from 0 to 2"),
        ("top_p", request.top_p is None or 0 < request.top_p <= 1, "must be over 0, at most 1"),
    )
    for field, holds, rule in checks:
        if not holds:
            raise InvalidRequest(f"`{field}`{where} {rule}", param=field)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise not_valid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the request's body is not JSON: {error}") from None


def _wants_usage(view: RequestView) -> bool:
    return view.stream_options is not None and bool(view.stream_options.include_usage)
