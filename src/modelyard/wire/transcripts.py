"""What an answer says, read from its stream or its whole, as far as it can be kept.

Text and calls of tools of all choices, in the forms of the four APIs; not what a model thought
before it. Sources: OpenAI API reference, chat, completions, responses; Anthropic API reference,
messages.
"""

import msgspec

from modelyard.core.routes import Operation
from modelyard.wire import sse

MAX_CHARS = 64 * 1024
"""What is kept of one answer; of a longer one nothing is."""
MAX_WHOLE_BYTES = 1024 * 1024
"""A whole answer that is larger, with its numbers, is not read."""

_PIECES = 256
_NONE = msgspec.Raw(b"null")
Place = tuple[int, int]
"""Where in an answer a text belongs: choice or item, and the part of it."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Tool(msgspec.Struct):
    index: int | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Tool] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None


class _Choices(msgspec.Struct):
    """A chat or text completion, or an event of one."""

    choices: list[_Choice] = []


class _Block(msgspec.Struct):
    """A part of a message; of a response's output, an item, whose parts are `content`."""

    text: str | None = None
    partial_json: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: msgspec.Raw = _NONE
    content: list["_Block"] | None = None


class _Event(msgspec.Struct):
    """An event of the responses or the messages API."""

    type: str = ""
    index: int = 0
    output_index: int = 0
    delta: msgspec.Raw = _NONE
    content_block: _Block | None = None


class _Whole(msgspec.Struct):
    """A whole message, or a whole response."""

    content: list[_Block] = []
    output: list[_Block] = []


_choices = msgspec.json.Decoder(_Choices).decode
_event = msgspec.json.Decoder(_Event).decode
_whole = msgspec.json.Decoder(_Whole).decode
_block = msgspec.json.Decoder(_Block).decode
_string = msgspec.json.Decoder(str).decode
_RESPONSE_TEXT = frozenset(
    {"response.output_text.delta", "response.refusal.delta",
     "response.function_call_arguments.delta"}
)  # fmt: skip
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class Transcript:
    """The text of one answer. Nothing that it is fed makes it raise."""

    def __init__(self, operation: Operation | None, max_chars: int = MAX_CHARS) -> None:
        self._operation = operation
        self._texts: dict[Place, list[str]] = {}
        self._left = max_chars
        self._events = sse.EventSplitter(limit_bytes=MAX_WHOLE_BYTES)
        self._lost = operation in (None, "embeddings")

    @property
    def text(self) -> str | None:
        """All that was said; None where it could not be read or kept."""
        if self._lost:
            return None
        return "\0".join("".join(self._texts[place]) for place in sorted(self._texts))

    def feed(self, part: bytes) -> None:
        """Take the next bytes of a stream."""
        if self._lost:
            return
        try:
            for event in self._events.feed(part):
                payload = sse.data_of(event)
                if payload is not None and payload.strip() != sse.DONE:
                    self._take(payload)
        except UNREADABLE:
            self.stop()

    def read(self, body: bytes) -> None:
        """Take a whole answer."""
        if len(body) > MAX_WHOLE_BYTES:
            self.stop()
        if self._lost:
            return
        try:
            if self._operation in ("chat", "completions"):
                self._take_choices(body)
            else:
                whole = _whole(body)
                for number, block in enumerate(whole.content or whole.output):
                    self._take_block((number, 0), block)
        except UNREADABLE:
            self.stop()

    def stop(self) -> None:
        """Keep nothing any more: there is no text to be had, or nobody wants it."""
        self._lost = True
        self._texts.clear()
        self._events = sse.EventSplitter()

    def _take(self, payload: bytes) -> None:
        if self._operation in ("chat", "completions"):
            self._take_choices(payload)
            return
        event = _event(payload)
        if event.content_block is not None:
            block = msgspec.structs.replace(event.content_block, input=_NONE)  # it comes in pieces
            self._take_block((event.index, 0), block)
        elif event.type == "content_block_delta":
            self._take_block((event.index, 0), _block(event.delta))
        elif event.type in _RESPONSE_TEXT:
            self._add((event.output_index, 0), _string(event.delta))

    def _take_choices(self, payload: bytes) -> None:
        for choice in _choices(payload).choices:
            self._add((choice.index, 0), choice.text)
            said = choice.delta or choice.message
            if said is None:
                continue
            self._add((choice.index, 0), said.content)
            self._add((choice.index, 0), said.refusal)
            for number, tool in enumerate(said.tool_calls or ()):
                place = (choice.index, 1 + (number if tool.index is None else tool.index))
                if tool.function is not None:
                    self._add(place, tool.function.name)
                    self._add(place, tool.function.arguments)

    def _take_block(self, place: Place, block: _Block) -> None:
        for text in (block.name, block.text, block.partial_json, block.arguments):
            self._add(place, text)
        if block.input != _NONE:
            self._add(place, bytes(block.input).decode())
        for part in block.content or ():
            self._take_block(place, part)

    def _add(self, place: Place, text: str | None) -> None:
        if not text or self._lost:
            return
        self._left -= len(text)
        if self._left < 0:
            self.stop()
        else:
            said = self._texts.setdefault(place, [])
            said.append(text)
            if len(said) > _PIECES:  # many short strings take far more than one long one
                said[:] = ("".join(said),)
