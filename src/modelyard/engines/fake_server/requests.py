"""OpenAI requests → what the fake engine has to do. Unknown parameters are ignored, as engines do.

A prompt's token count is its UTF-8 bytes divided by four, rounded up: of a chat the bytes of all
contents, of a list of token ids its length.
"""

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from modelyard.core.errors import InvalidRequest, NotFound

Kind = Literal["chat", "completions"]
FinishReason = Literal["stop", "length"]


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the engine's context."""

    code = "context_length_exceeded"


class ModelNotFound(NotFound):
    """This engine serves another model."""

    code = "model_not_found"


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Common(msgspec.Struct):
    model: str = ""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None


_Prompt = str | list[str | int | list[int]]


class _Completion(_Common, kw_only=True):
    prompt: _Prompt


class _Embeddings(msgspec.Struct, kw_only=True):
    input: _Prompt
    model: str = ""
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class _Tokenize(msgspec.Struct, kw_only=True):
    prompt: str | None = None
    content: str | None = None
    messages: list[_Message] | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A generation request, read."""

    kind: Kind
    model: str
    prompts: tuple[str, ...]
    """Texts that the answers' seeds are drawn from: of a chat the last user message."""
    prompt_tokens: int
    limit: int | None
    """max_completion_tokens or max_tokens."""
    n: int
    seed: int
    stops: tuple[bytes, ...]
    stream: bool
    include_usage: bool


class EmbeddingAsk(msgspec.Struct, frozen=True, kw_only=True):
    """An embeddings request, read."""

    model: str
    prompts: tuple[str, ...]
    prompt_tokens: int
    dimensions: int | None
    base64: bool


T = TypeVar("T")
_chat_decoder = msgspec.json.Decoder(_Chat)
_completion_decoder = msgspec.json.Decoder(_Completion)
_embeddings_decoder = msgspec.json.Decoder(_Embeddings)
_tokenize_decoder = msgspec.json.Decoder(_Tokenize)


def count_tokens(text: str) -> int:
    """UTF-8 bytes / 4, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def text_tokens(text: str) -> list[int]:
    """The ids that `/tokenize` answers with: each four bytes as a little-endian number."""
    raw = text.encode("utf-8", "surrogatepass")
    return [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]


def read_chat(body: bytes) -> Ask:
    """Read `/v1/chat/completions`; raises InvalidRequest."""
    request = _decode(_chat_decoder, body)
    texts = [(message.role, _content(message)) for message in request.messages]
    asked = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
    tokens = (sum(len(text.encode("utf-8", "surrogatepass")) for _, text in texts) + 3) // 4
    limit = request.max_completion_tokens or request.max_tokens
    return _ask(request, kind="chat", prompts=(asked,), prompt_tokens=tokens, limit=limit)


def read_completion(body: bytes) -> Ask:
    """Read `/v1/completions`; raises InvalidRequest."""
    request = _decode(_completion_decoder, body)
    prompts, tokens = _prompts(request.prompt, "prompt")
    return _ask(
        request,
        kind="completions",
        prompts=prompts,
        prompt_tokens=tokens,
        limit=request.max_tokens,
    )


def read_embeddings(body: bytes) -> EmbeddingAsk:
    """Read `/v1/embeddings`; raises InvalidRequest."""
    request = _decode(_embeddings_decoder, body)
    prompts, tokens = _prompts(request.input, "input")
    return EmbeddingAsk(
        model=request.model,
        prompts=prompts,
        prompt_tokens=tokens,
        dimensions=request.dimensions,
        base64=request.encoding_format == "base64",
    )


def read_tokenize(body: bytes) -> str:
    """Read `/tokenize`: `prompt` or `messages` as vLLM calls them, `content` as llama.cpp does.

    Raises InvalidRequest. The template of messages is their texts, one behind the other.
    """
    request = _decode(_tokenize_decoder, body)
    if request.messages is not None:
        return "".join(_content(message) for message in request.messages)
    text = request.prompt if request.prompt is not None else request.content
    if text is None:
        raise InvalidRequest("'prompt', 'content' or 'messages' is missing", param="prompt")
    return text


def plan_length(
    *, wanted: int | None, limit: int | None, default: int, room: int | None
) -> tuple[int, FinishReason]:
    """Length of an answer and why it ends.

    `wanted`: the directive's `tokens`; without it an answer goes on to its limit, or is `default`
    long when it has none. `room`: what the context leaves, None without a bound.
    """
    natural = wanted or (None if limit else default)
    bounds = [bound for bound in (natural, limit, room) if bound is not None]
    count = min(bounds)
    return count, "stop" if count == natural else "length"


def _ask(
    request: _Common, *, kind: Kind, prompts: tuple[str, ...], prompt_tokens: int, limit: int | None
) -> Ask:
    stop = request.stop
    stops = () if not stop else (stop,) if isinstance(stop, str) else tuple(filter(None, stop))
    options = request.stream_options
    return Ask(
        kind=kind,
        model=request.model,
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        limit=limit,
        n=request.n or 1,
        seed=request.seed or 0,
        stops=tuple(stop.encode("utf-8", "surrogatepass") for stop in stops),
        stream=bool(request.stream),
        include_usage=options is not None and bool(options.include_usage),
    )


def _content(message: _Message) -> str:
    content = message.content
    if isinstance(content, list):
        return "\n".join(part.text for part in content)
    return content or ""


def _prompts(prompt: _Prompt, param: str) -> tuple[tuple[str, ...], int]:
    """Texts and token count of a string, a list of strings, of token ids or of lists of ids."""
    if isinstance(prompt, str):
        return (prompt,), count_tokens(prompt)
    ids = [item for item in prompt if isinstance(item, int)]
    if ids and len(ids) == len(prompt):
        return (_ids_text(ids),), len(ids)
    if not prompt or ids:
        raise InvalidRequest(
            f"'{param}' is an empty list or mixes token ids with texts", param=param
        )
    texts, tokens = [], 0
    for item in prompt:
        if isinstance(item, str):
            texts.append(item)
            tokens += count_tokens(item)
        elif isinstance(item, list):
            texts.append(_ids_text(item))
            tokens += len(item)
    return tuple(texts), tokens


def _ids_text(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the request does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
