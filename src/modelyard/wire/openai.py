"""OpenAI's requests and errors, as far as a gateway has to know them.

A request is not modelled in full: what the gateway decides on is read, the rest goes through as it
came. Sources: OpenAI API reference, chat completions, completions, errors.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from modelyard.core.errors import InvalidRequest, ModelyardError, UpstreamError
from modelyard.core.routes import Operation
from modelyard.wire import sse

MAX_TOKENS = 2**53
"""Over any count of tokens, and exact in every JSON reader."""


_NULL = msgspec.Raw(b"null")
_BOUND_NAMES = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = None


class RequestView(msgspec.Struct):
    """What the gateway reads of any request.

    `n_predict` and `n_cmpl` are llama.cpp's own, which it heeds before max_tokens and n.
    """

    heeded: ClassVar[frozenset[str]] = frozenset({"max_tokens"})
    """Bounds of an answer's length that no engine of this operation passes over."""
    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n_predict: int | None = None
    n: int | None = None
    n_cmpl: int | None = None
    user: str | None = None

    @property
    def token_bounds(self) -> dict[str, int]:
        """The most that one answer may have, by the names that the request says it with."""
        told = {name: getattr(self, name) for name in _BOUND_NAMES}
        return {name: bound for name, bound in told.items() if bound is not None}

    @property
    def is_bounded(self) -> bool:
        """Whether one of the names is heeded by every engine."""
        return not self.heeded.isdisjoint(self.token_bounds)

    @property
    def wanted_tokens(self) -> int | None:
        """The most that one answer may have, as the request says; None: it does not say.

        Of several bounds the largest: engines differ in which they heed. A negative one is none, as
        llama.cpp reads it.
        """
        told = self.token_bounds.values()
        return max(told) if self.is_bounded and min(told) >= 0 else None

    @property
    def answers(self) -> int:
        """How many answers are asked for."""
        return min(max(1, self.n or 1, self.n_cmpl or 1), MAX_TOKENS)

    @property
    def prompt_parts(self) -> list[msgspec.Raw]:
        """The prompt as it came, in parts."""
        return []

    @property
    def prompt_bytes(self) -> int:
        """Its size."""
        return sum(len(bytes(part)) for part in self.prompt_parts)


class ChatView(RequestView):
    heeded: ClassVar[frozenset[str]] = frozenset({"max_tokens", "max_completion_tokens"})
    messages: list[msgspec.Raw] = []
    tools: msgspec.Raw = msgspec.Raw(b"")

    @property
    def prompt_parts(self) -> list[msgspec.Raw]:
        return [self.tools, *self.messages] if bytes(self.tools) else self.messages


class MessagesView(ChatView):
    heeded: ClassVar[frozenset[str]] = frozenset({"max_tokens"})


class CompletionView(RequestView):
    prompt: msgspec.Raw = msgspec.Raw(b"")

    @property
    def prompt_parts(self) -> list[msgspec.Raw]:
        return [self.prompt]

    @property
    def answers(self) -> int:
        """Of a list of prompts each is answered; a list of token ids is one prompt."""
        prompt = bytes(self.prompt)
        if not prompt.startswith(b"["):
            return super().answers
        kinds = [bytes(item)[:1] for item in _LIST.decode(prompt)]
        return min(max(1, kinds.count(b'"') + kinds.count(b"[")) * super().answers, MAX_TOKENS)


class InputView(RequestView):
    """Embeddings, and the responses API."""

    heeded: ClassVar[frozenset[str]] = frozenset({"max_output_tokens"})
    input: msgspec.Raw = msgspec.Raw(b"")

    @property
    def prompt_parts(self) -> list[msgspec.Raw]:
        return [self.input]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of an answer, as this project counts them."""

    prompt_tokens: int | None = None
    """All of them, those that the engine had in its cache included."""
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def possible(self) -> bool:
        """Whether these are counts: what is billed must not be what a broken engine made up."""
        counts = (self.prompt_tokens, self.completion_tokens, self.cached_tokens)
        return all(count is None or 0 <= count <= MAX_TOKENS for count in counts)

    def followed_by(self, later: "Usage") -> "Usage":
        """What both say together; of what both say, the later one counts."""
        return Usage(
            *(new if new is not None else old for old, new in zip(self, later, strict=True))
        )

    def __iter__(self) -> Iterator[int | None]:
        return iter((self.prompt_tokens, self.completion_tokens, self.cached_tokens))


class ToldUsage(msgspec.Struct):
    """`usage` as engines tell it: chat and completions; responses; messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: dict[str, Any] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: dict[str, Any] | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def counted(self) -> Usage:
        """The same in our own words."""
        prompt = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        beside = (self.cache_read_input_tokens, self.cache_creation_input_tokens)
        if prompt is not None:  # only the messages API counts these apart
            prompt += sum(count or 0 for count in beside)
        details = self.prompt_tokens_details or self.input_tokens_details or {}
        cached = details.get("cached_tokens", self.cache_read_input_tokens)
        made = self.completion_tokens
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=made if made is not None else self.output_tokens,
            cached_tokens=cached if type(cached) is int else None,
        )


class Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Inner(msgspec.Struct):
    """What an event of the responses API (`response`) or the messages API (`message`) is about."""

    usage: ToldUsage | None = None


class AnswerView(msgspec.Struct):
    """What the gateway reads of an answer, or of one event of a streamed answer."""

    choices: list[Choice] = []
    usage: ToldUsage | None = None
    type: msgspec.Raw = _NULL
    """Of an event of the responses and messages APIs."""
    response: msgspec.Raw = _NULL
    message: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL
    """As it came. Not `Raw | None`: msgspec reads that as None alone, and refuses an error."""

    @property
    def failed(self) -> bool:
        """Whether the engine says that it failed, with whatever status."""
        return self.error != _NULL

    def counted(self) -> Usage | None:
        """Tokens, as far as they are told; None when they are not."""
        if self.usage is not None:
            return self.usage.counted()
        inner = self.response if self.response != _NULL else self.message
        if inner == _NULL:
            return None
        try:
            usage = _INNER.decode(inner).usage
        except msgspec.MsgspecError:  # something else by the same name
            return None
        return None if usage is None else usage.counted()


class ChatAnswer(msgspec.Struct):
    """An answer's text, for the simple API."""

    class Choice(msgspec.Struct):
        class Message(msgspec.Struct):
            content: str | None = None

        message: Message | None = None
        text: str | None = None

    choices: list[Choice]


_VIEWS: dict[Operation, msgspec.json.Decoder[Any]] = {
    "chat": msgspec.json.Decoder(ChatView),
    "completions": msgspec.json.Decoder(CompletionView),
    "embeddings": msgspec.json.Decoder(InputView),
    "responses": msgspec.json.Decoder(InputView),
    "messages": msgspec.json.Decoder(MessagesView),
}
_BOUNDS: dict[Operation, str] = {
    "chat": "max_tokens",
    "completions": "max_tokens",
    "messages": "max_tokens",
    "responses": "max_output_tokens",
}
_ANY_VIEW: msgspec.json.Decoder[RequestView] = msgspec.json.Decoder(RequestView)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_INNER: msgspec.json.Decoder[_Inner] = msgspec.json.Decoder(_Inner)
_TEXT_ANSWER = msgspec.json.Decoder(ChatAnswer)
_ANSWER: msgspec.json.Decoder[AnswerView] = msgspec.json.Decoder(AnswerView)


def read_request(operation: Operation, body: bytes) -> RequestView:
    """Read a request's body.

    Raises InvalidRequest when it is not JSON, not an object, or a field that matters is missing or
    of another type.
    """
    try:
        view: RequestView = _VIEWS.get(operation, _ANY_VIEW).decode(body)
        body.decode()  # what the view passes over is not looked at, and engines choke on it
    except msgspec.ValidationError as error:
        raise not_valid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the request's body is not JSON: {error}") from None
    if isinstance(view, ChatView) and not view.messages:
        raise InvalidRequest("`messages` is missing or empty", param="messages")
    if isinstance(view, CompletionView) and not bytes(view.prompt):
        raise InvalidRequest("`prompt` is missing", param="prompt")
    return view


def not_valid(error: msgspec.ValidationError) -> InvalidRequest:
    """The caller's error for a body of another form; msgspec names fields that it does not know."""
    return InvalidRequest(f"the request's body is not valid: {str(error)[:300]}")


def read_answer(body: bytes) -> AnswerView | None:
    """Read what matters of an answer; None when it is not one."""
    try:
        return _ANSWER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_text(body: bytes) -> str:
    """The text of an answer's first choice; raise UpstreamError when there is none."""
    try:
        first = _TEXT_ANSWER.decode(body).choices[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError) as error:
        raise UpstreamError(f"the replica's answer has no text: {error}") from None
    return (first.message.content if first.message is not None else first.text) or ""


def ask_for_usage(view: RequestView, body: bytes) -> bytes:
    """The body of a streaming request, changed so that the engine states usage in a last chunk."""
    if view.stream_options is None and b'"stream_options"' not in body:
        return b'{"stream_options":{"include_usage":true},' + body[body.index(b"{") + 1 :]
    asked = _FIELDS.decode(body).get("stream_options", b"null")
    options = (_OPTIONS.decode(asked) or {}) | {"include_usage": msgspec.Raw(b"true")}
    return with_fields(body, {"stream_options": options})


def with_bound(view: RequestView, operation: Operation, body: bytes, tokens: int) -> bytes:
    """The body with so many tokens as the most that an answer may have."""
    name = _BOUNDS.get(operation)
    if name is None:
        return body
    told = view.token_bounds if view.is_bounded else {**view.token_bounds, name: tokens}
    return with_fields(
        body, {name: tokens if bound < 0 else min(bound, tokens) for name, bound in told.items()}
    )


def with_fields(body: bytes, fields: dict[str, Any]) -> bytes:
    """The body with some of its fields replaced, and the bytes of all others as they came."""
    return msgspec.json.encode(_FIELDS.decode(body) | fields)


def error_body(error: ModelyardError) -> bytes:
    """An error in OpenAI's form; the next step is part of the message."""
    return msgspec.json.encode({"error": _told(error)})


def error_event(error: ModelyardError, operation: Operation | None) -> bytes:
    """An error in mid-stream, as each API's clients look for it.

    Of the chat and completions APIs it is data like any other; of the responses and messages APIs
    an event named `error`, whose data names its type.
    """
    told = _told(error)
    if operation == "messages":
        data = msgspec.json.encode({"type": "error", "error": told})
    elif operation == "responses":
        facts = {name: told[name] for name in ("code", "message", "param")}
        data = msgspec.json.encode({"type": "error", **facts, "error": told})
    else:
        return sse.event(error_body(error))
    return b"event: error\n" + sse.event(data)


def _told(error: ModelyardError) -> dict[str, str | None]:
    message = f"{error.message}; {error.next_step}" if error.next_step else error.message
    return {"message": message, "type": error.type, "param": error.param, "code": error.code}
