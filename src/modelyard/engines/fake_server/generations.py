"""One request in its slot: each decode step becomes bytes on its connection, or its scripted end.

`Job.step` is called after each step's token; True says that the job is over and its slot free.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from modelyard.engines.fake_server.answers import answer_seed, answer_tokens, cut_at_stop
from modelyard.engines.fake_server.ledger import Entry, Ledger
from modelyard.engines.fake_server.replies import (
    STREAM_END,
    Envelope,
    StreamForm,
    Usage,
    json_reply,
    stream_head,
    whole_body,
)
from modelyard.engines.fake_server.requests import Ask, FinishReason
from modelyard.engines.fake_server.scheduler import Sequence
from modelyard.engines.fake_server.scripts import Script


class Break(msgspec.Struct, frozen=True):
    """Where a script ends an answer before its end, and how."""

    after: int
    """Decode steps."""
    action: Literal["hang", "stall", "truncate", "crash"]


class Wire(Protocol):
    """What a job needs of its connection."""

    def headers(self) -> bytes:
        """Header lines that every answer on it carries."""

    def send(self, data: bytes) -> None:
        """Send a part of the answer."""

    def answered(self) -> None:
        """The answer is whole; the next request may come."""

    def cut(self) -> None:
        """Send what is written, then close."""

    def crash(self, code: int) -> None:
        """Send what is written, then end the process."""


class Choice:
    """One of the answers of a request; its tokens are made as they are needed."""

    __slots__ = ("count", "finish", "tokens")

    def __init__(
        self, seed: int, count: int, finish: FinishReason, stops: tuple[bytes, ...]
    ) -> None:
        self.tokens: Iterator[bytes] = answer_tokens(seed, count)
        self.count = count
        self.finish = finish
        if stops:
            kept, stopped = cut_at_stop(self.tokens, stops)
            self.tokens = iter(kept)
            self.count = len(kept)
            self.finish = "stop" if stopped else finish


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is decided of a generation before it begins."""

    ask: Ask
    script: Script
    envelope: Envelope
    seed: int
    """The engine's own."""
    count: int
    """Tokens of each choice, unless a stop string comes before."""
    finish: FinishReason

    def choices(self) -> list[Choice]:
        """`n` choices for each prompt, in OpenAI's order."""
        ask = self.ask
        return [
            Choice(answer_seed(text, ask.seed + self.seed, at), self.count, self.finish, ask.stops)
            for text in ask.prompts
            for at in range(ask.n)
        ]


def earliest_break(script: Script, steps: int) -> Break | None:
    """The first break of a script within an answer of so many steps, if any."""
    if script.hang:
        return Break(0, "hang")
    after = {
        "stall": script.stall_after,
        "truncate": script.truncate_after,
        "crash": script.crash_after,
    }
    breaks = [
        Break(steps_before, action)  # type: ignore[arg-type]  # mypy widens the keys to str
        for action, steps_before in after.items()
        if steps_before is not None and steps_before <= steps
    ]
    return min(breaks, key=lambda one: one.after, default=None)


class Job(Sequence):
    """Work of one request."""

    __slots__ = ("connection", "entry", "ledger")

    def __init__(self, connection: Wire, entry: Entry, ledger: Ledger) -> None:
        super().__init__()
        self.connection = connection
        self.entry = entry
        self.ledger = ledger

    def step(self) -> bool:
        """Called after each decode step; True: the job is over."""
        raise NotImplementedError


class EmbeddingJob(Job):
    """An embeddings request: its prompt is read, then the answer is there."""

    __slots__ = ("body",)

    def __init__(self, connection: Wire, entry: Entry, ledger: Ledger, body: bytes) -> None:
        super().__init__(connection, entry, ledger)
        self.body = body

    def step(self) -> bool:
        self.connection.send(json_reply(self.body, self.connection.headers()))
        self.ledger.close(self.entry, "completed", 200)
        self.connection.answered()
        return True


class Generation(Job):
    """A chat or text completion."""

    __slots__ = ("choices", "plan", "scripted")

    def __init__(self, plan: Plan, connection: Wire, entry: Entry, ledger: Ledger) -> None:
        super().__init__(connection, entry, ledger)
        self.plan = plan
        self.choices = plan.choices()
        steps = max(choice.count for choice in self.choices)
        self.scripted = earliest_break(plan.script, steps)
        self.prompt_tokens = plan.ask.prompt_tokens
        self.stops_at = self.scripted.after if self.scripted else steps
        self.delay_s = plan.script.first_token_s or 0.0

    def begin(self) -> bool:
        """Called before the job is queued: plays a break after 0 tokens; True: it is over."""
        if self.scripted is None or self.scripted.after or self.scripted.action == "hang":
            return False
        return self._play(self.scripted)

    def step(self) -> bool:
        self._emit()
        if self.made != self.stops_at:
            return False
        if self.scripted is not None:
            return self._play(self.scripted)
        self._finish()
        self._completed()
        return True

    def _play(self, scripted: Break) -> bool:
        """Do what the script says after the tokens made; True: the job is over."""
        if scripted.action == "truncate":
            self._truncate()
            self.ledger.close(self.entry, "broken", 200)
            self.connection.cut()
            return True
        if scripted.action == "crash":
            code = self.plan.script.crash_code
            self.connection.crash(1 if code is None else code)
        return False

    def _completed(self) -> None:
        self.ledger.close(self.entry, "completed", 200)
        self.connection.answered()

    def _usage(self) -> Usage:
        made = sum(choice.count for choice in self.choices)
        return Usage(self.plan.ask.prompt_tokens, made)

    def _emit(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _truncate(self) -> None:
        raise NotImplementedError


class WholeGeneration(Generation):
    """An answer sent in one piece when it is made."""

    __slots__ = ()

    def finish_at_once(self) -> None:
        """All steps in one, where nothing takes time and nobody watches."""
        self.ledger.generated(self.entry, sum(choice.count for choice in self.choices))
        self._finish()
        self._completed()

    def _emit(self) -> None:
        """Only counts: the text is made at the end."""
        self.ledger.generated(self.entry, sum(self.made <= one.count for one in self.choices))

    def _finish(self) -> None:
        texts = [(b"".join(choice.tokens), choice.finish) for choice in self.choices]
        body = whole_body(self.plan.envelope, texts, self._usage())
        self.connection.send(json_reply(body, self.connection.headers()))

    def _truncate(self) -> None:
        """Promise the whole body; send it as far as the first choice's tokens made."""
        tokens = [list(choice.tokens) for choice in self.choices]
        texts = [
            (b"".join(made), choice.finish)
            for made, choice in zip(tokens, self.choices, strict=True)
        ]
        body = whole_body(self.plan.envelope, texts, self._usage())
        begin = body.index(texts[0][0], len(self.plan.envelope.opening()))
        unsent = len(body) - begin - sum(map(len, tokens[0][: self.made]))
        self.connection.send(json_reply(body, self.connection.headers())[:-unsent])


class StreamGeneration(Generation):
    """An answer sent token by token, each in its own chunk and write."""

    __slots__ = ("form", "opened")

    def __init__(self, plan: Plan, connection: Wire, entry: Entry, ledger: Ledger) -> None:
        super().__init__(plan, connection, entry, ledger)
        self.form = StreamForm(plan.envelope, len(self.choices))
        self.opened = False

    def _open(self) -> bytes:
        """The head, with the first event, as engines send it: or before a scripted break."""
        if self.opened:
            return b""
        self.opened = True
        self.entry.status = 200
        return stream_head(self.connection.headers())

    def _emit(self) -> None:
        parts = [self._open()]
        made, alive = self.made, 0
        for index, choice in enumerate(self.choices):
            if made > choice.count:
                continue
            alive += 1
            if made == 1:
                parts.append(self.form.role(index))
            parts.append(self.form.token(index, next(choice.tokens)))
            if made == choice.count and self.scripted is None:
                parts.append(self.form.finish(index, choice.finish))
        self.ledger.generated(self.entry, alive)
        self.connection.send(b"".join(parts))

    def _play(self, scripted: Break) -> bool:
        if not self.opened:
            self.connection.send(self._open())
        return super()._play(scripted)

    def _finish(self) -> None:
        usage = self.form.usage(self._usage()) if self.plan.ask.include_usage else b""
        self.connection.send(usage + STREAM_END)

    def _truncate(self) -> None:
        token = next(self.choices[0].tokens, None)
        if token is not None:
            self.connection.send(self.form.half_token(0, token))
