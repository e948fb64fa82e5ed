"""OpenAI's requests and errors, as far as a gateway has to know them.

A request is not modelled in full: what the gateway decides on is read, the rest goes through as it
came. Sources: OpenAI API reference, chat completions, completions, errors.
"""

from typing import Any

import msgspec

from modelyard.core.errors import InvalidRequest, ModelyardError
from modelyard.core.routes import Operation


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = None


class RequestView(msgspec.Struct):
    """What the gateway reads of any request."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    user: str | None = None


class ChatView(RequestView):
    messages: list[msgspec.Raw] = []


class CompletionView(RequestView):
    prompt: msgspec.Raw = msgspec.Raw(b"")


class Usage(msgspec.Struct):
    """`usage` of an answer."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: dict[str, Any] | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the engine had in its cache."""
        found = (self.prompt_tokens_details or {}).get("cached_tokens")
        return found if isinstance(found, int) else None


class Choice(msgspec.Struct):
    finish_reason: str | None = None


class AnswerView(msgspec.Struct):
    """What the gateway reads of an answer, or of one event of a streamed answer."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw | None = None


class ChatAnswer(msgspec.Struct):
    """An answer's text, for the simple API."""

    class Choice(msgspec.Struct):
        class Message(msgspec.Struct):
            content: str | None = None

        message: Message | None = None
        text: str | None = None

    choices: list[Choice]
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first choice's text."""
        first = self.choices[0]
        if first.message is not None:
            return first.message.content or ""
        return first.text or ""


_VIEWS: dict[Operation, msgspec.json.Decoder[Any]] = {
    "chat": msgspec.json.Decoder(ChatView),
    "completions": msgspec.json.Decoder(CompletionView),
}
_ANY_VIEW: msgspec.json.Decoder[RequestView] = msgspec.json.Decoder(RequestView)
_ANSWER: msgspec.json.Decoder[AnswerView] = msgspec.json.Decoder(AnswerView)


def read_request(operation: Operation, body: bytes) -> RequestView:
    """Read a request's body.

    Raises InvalidRequest when it is not JSON, not an object, or a field that matters is missing or
    of another type.
    """
    try:
        view: RequestView = _VIEWS.get(operation, _ANY_VIEW).decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request's body is not valid: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the request's body is not JSON: {error}") from None
    if isinstance(view, ChatView) and not view.messages:
        raise InvalidRequest("`messages` is missing or empty", param="messages")
    if isinstance(view, CompletionView) and not bytes(view.prompt):
        raise InvalidRequest("`prompt` is missing", param="prompt")
    return view


def read_answer(body: bytes) -> AnswerView | None:
    """Read what matters of an answer; None when it is not one."""
    try:
        return _ANSWER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def ask_for_usage(view: RequestView, body: bytes) -> bytes:
    """The body of a streaming request, changed so that the engine states usage in a last chunk."""
    if view.stream_options is None and b'"stream_options"' not in body:
        return b'{"stream_options":{"include_usage":true},' + body[body.index(b"{") + 1 :]
    return with_fields(body, {"stream_options": {"include_usage": True}})


def with_fields(body: bytes, fields: dict[str, Any]) -> bytes:
    """The body with some of its fields replaced."""
    return msgspec.json.encode(msgspec.json.decode(body) | fields)


def error_body(error: ModelyardError) -> bytes:
    """An error in OpenAI's form; the next step is part of the message."""
    message = error.message
    if error.next_step:
        message = f"{message}; {error.next_step}"
    return msgspec.json.encode(
        {
            "error": {
                "message": message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )
