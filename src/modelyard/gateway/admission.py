"""Whether a request is let in: who asks, for what, within which limits; no replica is asked."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from modelyard.core.cost import HOUR_S, Price, cost_of_tokens, nanos
from modelyard.core.errors import (
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    PayloadTooLarge,
    Unavailable,
)
from modelyard.core.keys import KeyPut
from modelyard.core.limits import OF_MONEY, OF_TOKENS, Bound
from modelyard.core.pinning import SLOT_HEADER
from modelyard.core.routes import ModelRoute, Operation, Slot, prices_of
from modelyard.gateway.calls import PATHS, Call
from modelyard.gateway.estimates import Estimates
from modelyard.gateway.keys import KeyTable
from modelyard.gateway.limits import LimitBook
from modelyard.gateway.request import Request
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.tracing import Tracing
from modelyard.wire.openai import (
    MAX_TOKENS,
    RequestView,
    ask_for_usage,
    not_valid,
    read_request,
    with_bound,
    with_fields,
)

STREAMED_USAGE: frozenset[Operation] = frozenset({"chat", "completions"})
"""Operations whose streams state usage when asked to by `stream_options`."""
BOUNDED: frozenset[Operation] = frozenset({"chat", "completions", "responses", "messages"})
"""Operations whose answers have a length that can be bounded."""
DEFAULT_ANSWER_TOKENS = 4096
"""Under a limit of tokens, the most that an answer may have when neither the request nor the
policy (`max_completion_tokens`) says: what is not bounded can't be reserved."""


class Books(Protocol):
    """What keeps the records."""

    @property
    def refuses(self) -> bool:
        """Whether a new request must be refused because its record could not be kept."""


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

    def __init__(
        self,
        routes: RouteTable,
        keys: KeyTable,
        book: LimitBook,
        estimates: Estimates,
        books: Books,
        tracing: Tracing,
    ) -> None:
        self._routes = routes
        self._keys = keys
        self._book = book
        self._estimates = estimates
        self._books = books
        self._tracing = tracing

    def admit(self, call: Call, request: Request) -> None:
        """Fill `call` from an OpenAI-form request, or raise."""
        call.operation = operation = PATHS[request.path]
        call.request_bytes = len(request.body)
        self._greet(call, request)
        view = read_request(operation, request.body)
        route = self.route(view.model, call.key)
        call.stream = bool(view.stream)
        self._accept(call, route, view, request.body)
        if call.stream and operation in STREAMED_USAGE and not _wants_usage(view):
            call.hides_usage = True
            call.body = ask_for_usage(view, call.body)

    def admit_generate(
        self, call: Call, request: Request, read: Callable[[], GenerateRequest]
    ) -> None:
        """Fill `call` from a simple request, turned into the OpenAI form that its model takes.

        Who asks is looked at before what is asked, which `read` tells.
        """
        self._greet(call, request)
        asked = read()
        route = self.route(asked.model_name, call.key)
        _check_ranges(asked)
        chat = not asked.raw and all(slot.chat_template for slot in route.slots)
        fields: dict[str, object] = {"model": route.name, "max_tokens": asked.max_length}
        if asked.temperature is not None:
            fields["temperature"] = asked.temperature
        if asked.top_p is not None:
            fields["top_p"] = asked.top_p
        if chat:
            fields["messages"] = [{"role": "user", "content": asked.prompt}]
        else:
            fields["prompt"] = asked.prompt
        call.operation = "chat" if chat else "completions"
        body = msgspec.json.encode(fields)
        call.request_bytes = call.request_bytes or len(body)
        self._accept(call, route, read_request(call.operation, body), body)

    def who(self, request: Request) -> KeyPut | None:
        """The key that a request shows; None where none is needed. Raises Unauthenticated."""
        return self._keys.who(request)

    def allowed(self, key: KeyPut | None) -> list[ModelRoute]:
        """The models that a key may ask."""
        return [route for route in self._routes.models if _may_ask(key, route.name)]

    def route(self, name: str | None, key: KeyPut | None) -> ModelRoute:
        """The route of a public name; of the default where none is named.

        Raises NotFound, which names those that the key may ask, Forbidden, and Unavailable while
        this gateway has had no routes from anywhere: then nobody knows what there is.
        """
        if not self._routes.applied.epoch:
            raise Unavailable(
                "the gateway has no routes yet",
                next_step="try again; `modelyard status` shows whether the controller is there",
                retry_after_s=1.0,
            )
        if name is None or name == "default":
            named = self._routes.model("default") if name else None
            found = named or self._routes.default
            if found is None:
                raise NotFound(
                    f"no model is named, and none is the default ({self._known(key)})",
                    next_step="name one, or mark one with: modelyard deploy NAME --default",
                    param="model",
                )
        else:
            found = self._routes.model(name)
            if found is None:
                raise NotFound(
                    f"the model {name[:200]!r} does not exist ({self._known(key)})",
                    next_step="name one of these, or deploy it with: modelyard deploy NAME:VERSION",
                    param="model",
                )
        if not _may_ask(key, found.name):
            raise Forbidden(
                f"this key may not ask the model {found.name!r} ({self._known(key)})",
                next_step="ask one of these, or have the key changed",
                param="model",
            )
        return found

    def enter_fallback(self, call: Call, name: str) -> bool:
        """Let the call go on with another model; False when its key may not ask that one."""
        route = self._routes.model(name)
        if route is None or not _may_ask(call.key, name):
            return False
        if _count_money(self._keys.ring.bounds(call.key, name)) and not _prices(route):
            return False
        if call.reservation is not None:
            call.reservation.cancel()
            call.reservation = None
        call.route = route
        self._name(call, route)
        return True

    def reserve(self, call: Call) -> None:
        """Hold what the call will use of every limit it falls under; raises LimitExceeded."""
        route, view = call.route, call.view
        if route is None or view is None or call.operation is None:
            raise ValueError("the call was not admitted")
        bounds = () if call.pinned else self._keys.ring.bounds(call.key, route.name)
        call.limits = tuple(dict.fromkeys(bound.shown for bound in bounds))
        counts_money = _count_money(bounds)
        counts = counts_money or any(bound.kind in OF_TOKENS for bound in bounds)
        cap = route.policy.max_completion_tokens
        if counts and cap is None and view.wanted_tokens is None:
            cap = DEFAULT_ANSWER_TOKENS
        wanted = view.wanted_tokens
        if cap is not None and call.operation in BOUNDED and (wanted is None or wanted > cap):
            call.body = with_bound(view, call.operation, call.body, cap)
            wanted = cap
        if not bounds:
            return
        answer = max(1, wanted or 1) * view.answers if call.operation in BOUNDED else 0
        prompt = self._estimates.of(route.name).prompt_tokens(view.prompt_bytes)
        cost = self._expected_nanos(route, prompt, answer) if counts_money else 0
        try:
            call.reservation = self._book.reserve(bounds, prompt + answer if counts else 0, cost)
        except LimitExceeded as error:
            call.trail.append(("limit", (error.limit, error.message)))
            raise
        call.trail.append(("reserved", (call.limits, prompt, answer)))

    def _expected_nanos(self, route: ModelRoute, prompt: int, answer: int) -> int:
        """What so many tokens will cost where they cost most; Forbidden when nobody knows."""
        prices = _prices(route)
        if not prices:
            raise Forbidden(
                f"there is a limit of money, and the model {route.name!r} has no price: what it "
                "costs could not be counted",
                next_step="ask a model that has one, or give this one a price",
                param="model",
            )
        seconds = self._estimates.of(route.name).replica_s(prompt, answer)
        seconds = min(seconds, route.policy.timeouts.total_s)
        return max(
            nanos(price.replica_hour * seconds / HOUR_S + cost_of_tokens(price, prompt, answer))
            for price in prices
        )

    def _greet(self, call: Call, request: Request) -> None:
        """Who it is, and what else its head says."""
        headers = request.headers
        self._tracing.begin(call, headers)
        call.key = self._keys.who(request)
        call.pinned = _pinned(headers.get(SLOT_HEADER.encode(), b""))
        call.cache_control = headers.get(b"cache-control", b"").lower()
        call.opted_in = headers.get(b"x-modelyard-cache", b"") == b"allow"
        session = headers.get(b"x-session-id")
        if session is not None:
            call.session = session[:200].decode("latin-1")
        if self._books.refuses:
            raise Unavailable(
                "the gateway can't record requests: its spool is full",
                next_step="bring the controller back, or set the records policy to 'drop'",
                retry_after_s=5.0,
            )

    def _accept(self, call: Call, route: ModelRoute, view: RequestView, body: bytes) -> None:
        if len(body) > route.policy.max_body_bytes:
            raise PayloadTooLarge(
                f"the request's body is over {route.policy.max_body_bytes} bytes, "
                f"the bound of model {route.name!r}"
            )
        call.route = route
        call.view = view
        call.body = body
        self._name(call, route)

    def _name(self, call: Call, route: ModelRoute) -> None:
        """Ask for the route's model by its own name: an engine may know no other."""
        call.model = route.name
        if call.view is not None and call.view.model != route.name:
            call.view = msgspec.structs.replace(call.view, model=route.name)
            call.body = with_fields(call.body, {"model": route.name})

    def _known(self, key: KeyPut | None) -> str:
        names = ", ".join(route.name for route in self.allowed(key))
        return f"models: {names or 'none'}"


def _pinned(named: bytes) -> Slot | None:
    """The slot in the controller's header; raises InvalidRequest when there is none such."""
    match named:
        case b"":
            return None
        case b"blue":
            return "blue"
        case b"green":
            return "green"
        case _:
            raise InvalidRequest(f"there is no slot {named[:20]!r}", next_step="blue or green")


def _count_money(bounds: Iterable[Bound]) -> bool:
    return any(bound.kind in OF_MONEY for bound in bounds)


def _prices(route: ModelRoute) -> list[Price]:
    """What a request of the model may have to pay by; empty when some of it has no price."""
    asked = [slot for slot in route.slots if slot.weight > 0] or route.slots
    found = [price for slot in asked for price in prices_of(slot)]
    known = [price for price in found if price is not None]
    return known if len(known) == len(found) else []


def _may_ask(key: KeyPut | None, model: str) -> bool:
    return key is None or key.models is None or model in key.models


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
