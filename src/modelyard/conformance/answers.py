"""Answers as a client sees them: whole ones, streams, errors; and whether they hold together."""

from collections.abc import Callable

import msgspec

from modelyard.conformance.check import Broken, expect
from modelyard.conformance.client import Connection, Cut, Reply
from modelyard.engines.fake_server.answers import AnswerCheck, check_answer
from modelyard.wire import sse


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class Text(msgspec.Struct, frozen=True):
    """A chat's message or the change of one."""

    content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    index: int = 0
    text: str | None = None
    message: Text | None = None
    delta: Text | None = None
    finish_reason: str | None = None

    @property
    def words(self) -> str:
        """Its text, or its part of it."""
        held = self.message or self.delta
        return (held.content if held is not None else self.text) or ""


class ErrorDetail(msgspec.Struct, frozen=True):
    """What OpenAI's errors hold; `param` and `code` may be null."""

    message: str
    type: str


class Body(msgspec.Struct, frozen=True):
    """An answer, or one event of a stream."""

    model: str | None = None
    system_fingerprint: str | None = None
    choices: list[Choice] = []
    usage: Usage | None = None
    error: ErrorDetail | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


_BODY = msgspec.json.Decoder(Body)
_ERROR = msgspec.json.Decoder(ErrorBody)


class Answer:
    """A whole answer."""

    def __init__(self, reply: Reply, body: bytes) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.body = body

    @property
    def brief(self) -> str:
        """Status and the beginning of the body, for a sentence."""
        return f"{self.status} {_short(self.body)}".strip()

    def read(self) -> Body:
        """The answer in OpenAI's form; raises Broken."""
        try:
            return _BODY.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Broken(f"no answer in OpenAI's form: {error}; {self.brief}") from None

    def text(self, choice: int = 0) -> str:
        """The text of one choice; raises Broken."""
        found = [each.words for each in self.read().choices if each.index == choice]
        expect(bool(found), f"choice {choice} was expected, came: {self.brief}")
        return found[0]

    def error(self) -> ErrorDetail:
        """The error in OpenAI's form; raises Broken where it is in another."""
        try:
            return _ERROR.decode(self.body).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Broken(
                'an error of the form {"error": {"message", "type", …}} was expected, '
                f"came: {self.brief}"
            ) from None


class Stream:
    """A streamed answer, taken event by event; what came so far is kept."""

    def __init__(self, reply: Reply, connection: Connection) -> None:
        self._reply = reply
        self._connection = connection
        self._splitter = sse.EventSplitter()
        self._waiting: list[bytes] = []
        self._texts: dict[int, list[str]] = {}
        self.status = reply.status
        self.headers = reply.headers
        self.raw = bytearray()
        """The body so far, where it is no stream."""
        self.tokens = 0
        """Events that held text."""
        self.finish: dict[int, str] = {}
        self.usages: list[Usage] = []
        self.models: set[str] = set()
        self.fingerprints: set[str] = set()
        self.size_bytes = 0
        """What came of the body."""
        self.done = 0
        """End marks seen."""
        self.after_done = 0
        """Events that came behind the first of them."""
        self.error: str | None = None
        """What an error event said."""
        self.cut: str | None = None
        """Where the connection ended before the body did."""
        self.ended = False

    @property
    def is_stream(self) -> bool:
        """Whether the answer is an event stream at all."""
        return self._reply.content_type == "text/event-stream"

    def text(self, choice: int = 0) -> str:
        """What came of one choice."""
        return "".join(self._texts.get(choice, ()))

    def leave(self) -> None:
        """Go away, whatever is still to come."""
        self._connection.leave()

    async def until(self, holds: Callable[["Stream"], bool]) -> "Stream":
        """Take events until it holds; raises Broken when the answer ends before."""
        while not holds(self):
            if not await self.event():
                raise Broken(f"the stream ended too early: {self.summary}")
        return self

    async def until_tokens(self, count: int) -> "Stream":
        """Take events until so many held text."""
        return await self.until(lambda stream: stream.tokens >= count)

    async def rest(self) -> "Stream":
        """Take all that is still to come."""
        while await self.event():
            pass
        return self

    async def event(self) -> bool:
        """Take the next event; False when there is none any more."""
        while not self._waiting and not self.ended:
            try:
                part = await self._reply.part()
            except Cut as cut:
                self.cut = str(cut)
                part = None
            self.size_bytes += len(part or b"")
            if part is None:
                self.ended = True
                rest = self._splitter.rest if self.is_stream else b""
                self._waiting = [rest] if rest.strip() else []
            elif self.is_stream:
                self._waiting = self._splitter.feed(part)
            else:
                self.raw += part
        if not self._waiting:
            return False
        self._note(self._waiting.pop(0))
        return True

    def _note(self, event: bytes) -> None:
        data = sse.data_of(event)
        if data is None:
            return
        self.after_done += self.done > 0
        if data.strip() == sse.DONE:
            self.done += 1
            return
        try:
            body = _BODY.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if b'"error"' in data:
                self.error = _short(data)
            elif self.cut is None:  # a cut may leave half an event behind
                self.error = f"not an event: {_short(data)}"
            return
        if body.error is not None:
            self.error = body.error.message
        self._take(body)

    def _take(self, body: Body) -> None:
        if body.model is not None:
            self.models.add(body.model)
        if body.system_fingerprint is not None:
            self.fingerprints.add(body.system_fingerprint)
        if body.usage is not None:
            self.usages.append(body.usage)
        for choice in body.choices:
            if choice.words:
                self._texts.setdefault(choice.index, []).append(choice.words)
                self.tokens += 1
            if choice.finish_reason is not None:
                self.finish[choice.index] = choice.finish_reason

    @property
    def summary(self) -> str:
        """What came, for a sentence."""
        if not self.is_stream:
            return f"{self.status} {_short(bytes(self.raw))}".strip()
        parts = [f"{self.status}", f"{self.tokens} tokens"]
        parts += [f"finish_reason {reason}" for reason in self.finish.values()]
        parts += [f"{self.done} [DONE]"] if self.done else ["no [DONE]"]
        if self.error is not None:
            parts.append(f"error {self.error[:80]!r}")
        if self.cut is not None:
            parts.append(self.cut)
        elif not self.ended:
            parts.append("still open")
        return ", ".join(parts)


def checked(text: str, prompt: str, *, seed: int = 0) -> AnswerCheck:
    """Verify an answer's text; raises Broken unless it is whole and this prompt's."""
    found = check_answer(text, prompt=prompt, seed=seed)
    if not found.complete:
        why = found.errors[0] if found.errors else "the end is missing"
        raise Broken(f"a whole answer was expected, {found.tokens} tokens came: {why}")
    return found


def whole_stream(stream: Stream, prompt: str, *, choice: int = 0) -> AnswerCheck:
    """Verify a stream that has ended; raises Broken unless it is whole in every way."""
    expect(stream.status == 200, f"200 was expected, came: {stream.summary}")
    expect(stream.is_stream, f"an event stream was expected, came: {stream.summary}")
    expect(stream.error is None and stream.cut is None, f"the stream broke: {stream.summary}")
    found = checked(stream.text(choice), prompt)
    expect(stream.done == 1, f"one [DONE] was expected: {stream.summary}")
    expect(stream.after_done == 0, f"{stream.after_done} events came after [DONE]")
    return found


def broken_stream(stream: Stream) -> str:
    """Say how the client of a stream that has ended sees that it is not whole; raises Broken."""
    looks = f"a stream that was broken off must not look whole: {stream.summary}"
    expect(not stream.done and not stream.finish, looks)
    if stream.status >= 400:
        return f"status {stream.status}"
    expect(stream.error is not None or stream.cut is not None, looks)
    return "an error event came" if stream.error is not None else "the connection was cut"


def _short(text: bytes) -> str:
    words = " ".join(text.decode("utf-8", "replace").split())
    return words if len(words) <= 100 else words[:97] + "…"
