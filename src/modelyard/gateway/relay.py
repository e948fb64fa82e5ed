"""A stream on its way through: chunks go on as they come, usage and the end are read in passing."""

import time

from modelyard.core.errors import UpstreamCut, UpstreamError
from modelyard.core.routes import Operation
from modelyard.gateway.calls import Call
from modelyard.gateway.outlet import Outlet
from modelyard.gateway.upstream import AnswerTooLarge, Exchange
from modelyard.wire import sse
from modelyard.wire.assembly import ASSEMBLIES
from modelyard.wire.openai import AnswerView, read_answer

ENDS: dict[Operation, frozenset[bytes]] = {
    "responses": frozenset(
        {b'"response.completed"', b'"response.incomplete"', b'"response.failed"'}
    ),
    "messages": frozenset({b'"message_stop"'}),
}
"""The type of the event that ends a stream; elsewhere that is `[DONE]`. A stream without its end
was cut (promise G4). OpenAI API reference, responses; Anthropic API reference, messages."""
TELLING = (
    b'"usage"', b'"finish_reason"', b'"error"', sse.DONE, b"message_stop", b"response.completed",
    b"response.incomplete", b"response.failed",
)  # fmt: skip
"""What an event holds that has to be read; most hold none of it."""


class StreamReader:
    """Reads a stream in passing, event by event: usage, its end mark, an error."""

    def __init__(self, call: Call, exchange: Exchange) -> None:
        self._call = call
        self._exchange = exchange
        self._events = sse.EventSplitter()
        self._failure: bytes | None = None
        self.first: bytes | None = None
        """Data of the first event that has any."""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk from the replica: the exchange's sink."""
        try:
            events = self._events.feed(chunk)
            self.take([event for event in events if self._watch(event)])
        except ValueError as error:
            self._exchange.fail(UpstreamError(f"the replica's stream is not valid: {error}"))

    def take(self, events: list[bytes]) -> None:
        """Take the events that are the client's. Raises ValueError for what is none."""
        raise NotImplementedError

    def check_first(self) -> None:
        """Raise when the answer began with an error, or ended before it began."""
        if self.first is None:
            raise UpstreamCut("the replica's stream ended before its first event")
        if self._failure is not None:
            raise UpstreamError(f"the replica answered with an error: {brief(self._failure)}")

    def finish(self) -> None:
        """The replica's answer has ended; raise when it was not whole."""
        rest = self._events.rest  # some engines leave out the empty line after the last event
        shown = self._watch(rest)
        if self._failure is not None:
            raise UpstreamError(f"the replica failed in mid-answer: {brief(self._failure)}")
        if self._call.operation != "embeddings" and not self._call.end_seen:
            raise UpstreamCut("the replica's stream ended without its end mark")
        if rest and shown:
            self.take([rest])

    def _watch(self, event: bytes) -> bool:
        """Note what an event tells; False when it is the usage that only the gateway asked for."""
        if b"data:" not in event:
            return True
        telling = any(word in event for word in TELLING)
        payload = sse.data_of(event) if telling or self.first is None else None
        if payload is not None and payload.strip() == sse.DONE:
            self._call.end_seen = True
            return True
        self._call.events += 1
        if payload is None:
            return True
        if self.first is None:
            self.first = payload
        return self._note(payload) if telling else True

    def _note(self, payload: bytes) -> bool:
        view = read_answer(payload)
        if view is None:
            return True
        if view.failed:
            self._failure = bytes(view.error)
        ends = ENDS.get(self._call.operation) if self._call.operation is not None else None
        if ends is not None and bytes(view.type) in ends:
            self._call.end_seen = True
        note_answer(self._call, view)
        if view.usage is None or view.choices or view.failed or ends is not None:
            return True
        self._call.events -= 1
        return not self._call.hides_usage


class StreamRelay(StreamReader):
    """Relays one answer, event by event: a stream that is cut never ends in half of one.

    Holds back until the first event with data has come (promise G5).
    """

    def __init__(self, call: Call, exchange: Exchange, client: Outlet) -> None:
        super().__init__(call, exchange)
        self._client = client
        self._held: list[bytes] | None = []

    def take(self, events: list[bytes]) -> None:
        """Send them on, or hold them back until the first one with data is there."""
        shown = b"".join(events)
        if self._held is None:
            self._write(shown)
            return
        self._held.append(shown)
        if self.first is not None:
            self._exchange.wake()

    def open(self) -> None:
        """Send what was held back; from now on chunks go straight through, at the client's pace."""
        held, self._held = self._held or [], None
        self._client.on_writable = lambda writable: self._exchange.pause(not writable)
        self._write(b"".join(held))
        if not self._client.writable:
            self._exchange.pause(True)

    def finish(self) -> None:
        """The replica's answer has ended; raise when it was not whole."""
        self._client.on_writable = None
        super().finish()

    def _write(self, payload: bytes) -> None:
        if not payload:
            return
        self._client.write(payload)
        self._call.sent(len(payload), time.monotonic())


class AnswerGatherer(StreamReader):
    """Makes a whole answer of a stream, for a client that did not ask for one."""

    def __init__(self, call: Call, exchange: Exchange, limit_bytes: int) -> None:
        super().__init__(call, exchange)
        if call.operation is None:
            raise ValueError("the call was not admitted")
        self._assembly = ASSEMBLIES[call.operation]()
        self._left_bytes = limit_bytes

    def take(self, events: list[bytes]) -> None:
        """Add them to the answer, as long as it does not grow too large."""
        for event in events:
            self._left_bytes -= len(event)
            payload = sse.data_of(event)
            if payload is not None and payload.strip() != sse.DONE:
                self._assembly.feed(payload)
        if self._left_bytes < 0:
            self._exchange.fail(AnswerTooLarge("the replica's answer is too large"))

    def whole(self) -> bytes:
        """The answer; raises UpstreamError when the stream was not whole."""
        self.check_first()
        try:
            self.finish()
            return self._assembly.whole()
        except ValueError as error:
            raise UpstreamError(f"the replica's stream is not valid: {error}") from None


def note_answer(call: Call, view: AnswerView) -> None:
    """Keep what an answer says of tokens and of its end."""
    told = view.counted()
    if told is not None and told.possible:
        call.usage = told if call.usage is None else call.usage.followed_by(told)
    for choice in view.choices:
        call.finish_reason = choice.finish_reason or call.finish_reason


def brief(text: bytes) -> str:
    """The head of what a replica sent, for an error's message."""
    return text[:300].decode("utf-8", "replace")
