"""What a check works with: the gateway to be asked, the engines to be looked at."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from modelyard.conformance.answers import Answer, Stream, checked
from modelyard.conformance.check import Broken, Inapplicable, expect
from modelyard.conformance.client import Connection, Origin, origin, request
from modelyard.conformance.engines import Engine
from modelyard.conformance.target import LimitKind, Target
from modelyard.engines.fake_server.ledger import Entry

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
POLL_S = 0.005
MINUTE_S = 61.0
"""After so long nothing that was asked before counts against a limit per minute."""
T = TypeVar("T")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose way can be followed: its prompt begins with a tag that no other has."""

    tag: str
    prompt: str
    path: str
    fields: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.fields)

    def but(self, **fields: Any) -> "Question":
        """The same with other fields; None takes one out."""
        merged = {**self.fields, **fields}
        kept = {name: value for name, value in merged.items() if value is not None}
        return msgspec.structs.replace(self, fields=kept)


class Seen(msgspec.Struct, frozen=True):
    """A request that arrived at an engine."""

    engine: str
    entry: Entry

    def __str__(self) -> str:
        entry = self.entry
        return f"engine {self.engine}: {entry.outcome} after {entry.tokens} tokens"


class Bench:
    """The gateway and the engines, as checks see them."""

    def __init__(
        self,
        target: Target,
        engines: tuple[Engine, ...],
        *,
        exit_code: Callable[[], int | None] | None = None,
    ) -> None:
        """`exit_code` tells how the gateway's process ended; None where nobody can know."""
        self.target = target
        self.engines = engines
        self.exit_code = exit_code
        self.place: Origin = origin(target.url)
        self._run = secrets.token_hex(3)
        self._count = 0
        self._open: list[Connection] = []
        self._used: dict[str, float] = {}
        """When each limited key was used last."""
        self._in_use: set[str] = set()
        """Those that the check in hand uses."""

    @property
    def a(self) -> Engine:
        """The engine that faults are set on."""
        return self.engines[0]

    @property
    def b(self) -> Engine:
        """The other one behind M."""
        return self.engines[1]

    # --- asking the gateway ----------------------------------------------------------------------

    def ask(
        self,
        script: str = "",
        *,
        model: str | None = None,
        path: str = CHAT,
        text: str = "",
        **fields: Any,
    ) -> Question:
        """Make a request to M, unless another model is named; `script`: what the engine is told."""
        self._count += 1
        tag = f"{self._run}-{self._count}."
        words = [tag, text, f"[[fake: {script}]]" if script else ""]
        prompt = " ".join(filter(None, words))
        said: dict[str, Any] = {"model": model or self.target.model}
        if path == CHAT:
            said["messages"] = [{"role": "user", "content": prompt}]
        else:
            said["prompt"] = prompt
        return Question(tag=tag, prompt=prompt, path=path, fields={**said, **fields})

    def headers(self, key: str | None = None) -> dict[str, str]:
        """What authenticates: the target's key, another one, or with "" nothing."""
        shown = self.target.key if key is None else key
        return {"Authorization": f"Bearer {shown}"} if shown else {}

    def bytes_of(
        self, question: Question, key: str | None = None, more: Mapping[str, str] | None = None
    ) -> bytes:
        """The question as a well-formed request."""
        headers = {**self.headers(key), **(more or {})}
        return request(self.place, question.path, question.body, headers)

    async def connect(self, *, receive_buffer: int | None = None) -> Connection:
        """A connection to the gateway, which the end of the check closes."""
        connection = await Connection.open(self.place, receive_buffer=receive_buffer)
        self._open.append(connection)
        return connection

    async def post(
        self,
        question: Question,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        on: Connection | None = None,
        receive_buffer: int | None = None,
    ) -> Connection:
        """Send a question, on a connection of its own unless one is given."""
        connection = on or await self.connect(receive_buffer=receive_buffer)
        await connection.send(self.bytes_of(question, key, headers))
        return connection

    async def whole(
        self,
        question: Question,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        on: Connection | None = None,
    ) -> Answer:
        """Ask, and take the whole answer. Raises Cut."""
        connection = await self.post(question, key=key, headers=headers, on=on)
        answer = await self.answer(connection)
        if on is None:
            connection.leave()
        return answer

    async def answer(self, connection: Connection) -> Answer:
        """Take the whole answer to what was sent on a connection. Raises Cut."""
        reply = await connection.reply()
        return Answer(reply, await reply.body())

    async def stream(
        self,
        question: Question,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
    ) -> Stream:
        """Ask for a stream, and wait for its head. Raises Cut."""
        streaming = question.but(stream=True)
        connection = await self.post(
            streaming, key=key, headers=headers, receive_buffer=receive_buffer
        )
        return Stream(await connection.reply(), connection)

    async def good(self, question: Question, *, key: str | None = None) -> Answer:
        """Ask, and raise Broken unless the answer is whole and right."""
        answer = await self.whole(question, key=key)
        expect(answer.status == 200, f"200 was expected, came: {answer.brief}")
        checked(answer.text(), question.prompt)
        return answer

    async def get(self, path: str, *, method: str = "GET") -> Answer:
        """Ask for a page."""
        connection = await self.connect()
        await connection.send(request(self.place, path, None, self.headers(), method))
        return await self.answer(connection)

    async def spread(self, count: int = 20, script: str = "tokens=10") -> Counter[str]:
        """Ask M so many things at once; raise Broken unless all are answered; who answered."""
        questions = [self.ask(script) for _ in range(count)]
        await together(self.good(question) for question in questions)
        tags = tuple(question.tag for question in questions)
        asked: Counter[str] = Counter()
        for engine in self.engines:
            log = (await engine.state()).log
            found = sum(entry.prompt.startswith(tags) for entry in log)
            if found:
                asked[engine.name] = found
        return asked

    async def expect_both_asked(self, count: int = 20) -> str:
        """Raise Broken unless so many requests at once are all answered, by both engines."""
        asked = await self.spread(count)
        told = ", ".join(f"{number} by {name}" for name, number in sorted(asked.items()))
        expect(
            bool(asked["A"] and asked["B"]),
            f"answers by both engines were expected, {count} came: {told}",
        )
        return f"{count} requests at once were answered: {told}"

    # --- looking at the engines ------------------------------------------------------------------

    async def seen(self, question: Question) -> list[Seen]:
        """Where a question arrived, and what became of it there."""
        found = []
        for engine in self.engines:
            found += [Seen(engine.name, entry) for entry in await engine.entries(question.tag)]
        return found

    async def until_seen(
        self,
        question: Question,
        holds: Callable[[list[Seen]], bool] = bool,
        *,
        within_s: float = 5.0,
        otherwise: str = "no engine got the request",
    ) -> list[Seen]:
        """Wait until what became of a question is as wanted; raises Broken."""

        async def look() -> list[Seen]:
            return await self.seen(question)

        return await until(
            look,
            holds,
            within_s=within_s,
            otherwise=lambda found: "; ".join([otherwise, *map(str, found)]),
        )

    async def arrived(self) -> int:
        """Requests that reached any engine since the check began."""
        return sum([(await engine.state()).seen for engine in self.engines])

    async def expect_nothing_arrived(self) -> None:
        """Raise Broken when any request reached an engine since the check began."""
        count = await self.arrived()
        expect(count == 0, f"no engine should be asked, {count} requests arrived")

    # --- limited keys ----------------------------------------------------------------------------

    async def limited_key(self, kind: LimitKind) -> tuple[str, int]:
        """A key with a limit of this kind, and that limit.

        The one that was left alone for longest; where that is not yet a minute ago and counts,
        the minute is waited for.
        """
        keys = [each for each in self.target.limited_keys if kind in each.limits]
        if not keys:
            raise Inapplicable(f"no key with {kind} was given")
        narrow = min(len(each.limits) for each in keys)
        chosen = min(
            (each for each in keys if len(each.limits) == narrow),
            key=lambda each: self._used.get(each.key, 0.0),
        )
        counted = set(chosen.limits) - {"concurrent_requests"}
        left = self._used.get(chosen.key, -MINUTE_S) + MINUTE_S - time.monotonic()
        if counted and left > 0:
            await asyncio.sleep(left)
        self._in_use.add(chosen.key)
        return chosen.key, chosen.limits[kind]

    # --- the end ---------------------------------------------------------------------------------

    async def close(self) -> None:
        """The check is over: leave every connection of it."""
        while self._open:
            self._open.pop().leave()
        self._used.update(dict.fromkeys(self._in_use, time.monotonic()))
        self._in_use.clear()
        await asyncio.sleep(0)  # lets the transports that were closed go


async def until(
    look: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool],
    *,
    within_s: float,
    otherwise: Callable[[T], str],
) -> T:
    """Look again and again until it holds; raises Broken with `otherwise` of the last look."""
    deadline = time.monotonic() + within_s
    while True:
        found = await look()
        if holds(found):
            return found
        if time.monotonic() > deadline:
            raise Broken(otherwise(found))
        await asyncio.sleep(POLL_S)


async def together(work: Any) -> list[Any]:
    """Do all at once; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
