"""Asks a candidate its smoke tests, through a gateway where one runs (promises D1, D5)."""

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema

from modelyard.core.errors import InvalidConfig
from modelyard.core.pinning import SLOT_HEADER
from modelyard.core.routes import Slot
from modelyard.core.smoke import SmokeAnswer, SmokeResult, SmokeTest, judge
from modelyard.wire import sse

_MAX_TOKENS = 64
_JUDGED_WITHIN_S = 1.0
_PAUSE_S = 0.05
_NOT_YET = frozenset({404, 503})
"""A gateway that has not applied the candidate's route yet."""
_NOT_YET_S = 15.0
"""For so long a gateway may lag, or be away while it is started again."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Whom to ask."""

    gateway: Callable[[], str]
    """URL of a gateway that runs now; empty: none does, the replica is asked itself."""
    replica: str
    """URL of one of its replicas."""
    model: str
    """Public name."""
    slot: Slot
    version: int
    chat: bool
    """Prompts go as a user message."""


class SmokeTester:
    """Asks over HTTP; the client is shared and closed by its owner."""

    def __init__(self, http: httpx.AsyncClient, gateway_token: str) -> None:
        """`http`: one that asks nobody for their certificate. A gateway's is for its clients: from
        here it may go by another name, and only what has the token told us its address."""
        self._http = http
        self._token = gateway_token

    async def run(self, candidate: Candidate, tests: Sequence[SmokeTest]) -> list[SmokeResult]:
        """All tests, one after another; each has an end of its own."""
        return [await self._judged(candidate, test) for test in tests]

    async def _judged(self, candidate: Candidate, test: SmokeTest) -> SmokeResult:
        """Ask until an answer of the candidate comes, or none can be expected any more."""
        begun = time.monotonic()
        while True:
            gateway = candidate.gateway()
            try:
                answer = await self._once(candidate, gateway, test)
                break
            except _NotYet as not_yet:
                if time.monotonic() - begun > _NOT_YET_S:
                    answer = _none(str(not_yet))
                    break
            await asyncio.sleep(_PAUSE_S)
        return _held(test, answer, candidate.version if gateway else None)

    async def _once(self, candidate: Candidate, gateway: str, test: SmokeTest) -> SmokeAnswer:
        try:
            return await self._asked(candidate, gateway, test)
        except httpx.HTTPError as error:
            told = f"{type(error).__name__}: {error}"
            # What broke is the way to the gateway: it tells of a candidate that broke.
            if gateway and not isinstance(error, httpx.ReadTimeout):
                raise _NotYet(told) from None
            return _none(told)

    async def _asked(self, candidate: Candidate, gateway: str, test: SmokeTest) -> SmokeAnswer:
        path, body = _request(candidate, test)
        headers = {}
        if gateway:
            headers = {"authorization": f"Bearer {self._token}", SLOT_HEADER: candidate.slot}
        begun = time.monotonic()
        reading = _Reading()
        async with self._http.stream(
            "POST", (gateway or candidate.replica) + path, json=body, headers=headers,
            timeout=httpx.Timeout(5.0, read=120.0),
        ) as reply:  # fmt: skip
            if reply.status_code != 200:
                told = f"status {reply.status_code}: {(await reply.aread())[:300]!r}"
                if gateway and reply.status_code in _NOT_YET:
                    raise _NotYet(told)
                return _none(told)
            async for chunk in reply.aiter_bytes():
                reading.feed(chunk, time.monotonic() - begun)
            named = reply.headers.get("x-modelyard-version", "").rpartition(":")[2]
        return SmokeAnswer(
            text=reading.text,
            finish_reason=reading.finish_reason,
            ttft_s=reading.ttft_s or time.monotonic() - begun,
            version=int(named) if named.isdigit() else None,
            error=reading.error if reading.done else reading.error or "the stream broke off",
        )


class _NotYet(Exception):
    """The gateway does not know the candidate yet, or is not there at the moment."""


class _Reading:
    """The text of a stream, and when its first token came."""

    def __init__(self) -> None:
        self._splitter = sse.EventSplitter()
        self.text = ""
        self.finish_reason: str | None = None
        self.ttft_s: float | None = None
        self.error = ""
        self.done = False

    def feed(self, chunk: bytes, at_s: float) -> None:
        for event in self._splitter.feed(chunk):
            data = sse.data_of(event)
            if data is None:
                continue
            if data.strip() == sse.DONE:
                self.done = True
                continue
            self._take(json.loads(data), at_s)

    def _take(self, body: dict[str, Any], at_s: float) -> None:
        if body.get("error"):
            self.error = str(body["error"].get("message", body["error"]))
        for choice in body.get("choices") or ():
            said = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
            if said and self.ttft_s is None:
                self.ttft_s = at_s
            self.text += said
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


class _TooLong(Exception):
    """What is expected can't be looked for in this answer within reason."""


def _held(test: SmokeTest, answer: SmokeAnswer, version: int | None) -> SmokeResult:
    try:
        with _at_most_s(_JUDGED_WITHIN_S):
            return judge(test, answer, misfit, version=version)
    except _TooLong:
        return SmokeResult(
            test=test.title,
            passed=False,
            told=f"{_JUDGED_WITHIN_S:g} s were not enough to look for what is expected: simplify "
            "its regex",
            answer=answer.text[:200],
            ttft_s=answer.ttft_s,
        )


@contextlib.contextmanager
def _at_most_s(cpu_s: float) -> Iterator[None]:
    """Raise _TooLong within the block when it has had so much CPU time.

    Some regular expressions take for ever on some answers, and nothing else would run meanwhile,
    not even what could give the candidate up. Python's matcher looks for signals as it goes, and
    they are the main thread's, which the event loop is in.
    """

    def over(_number: int, _frame: object) -> None:
        raise _TooLong

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check_schema(test: SmokeTest) -> None:
    """Raise InvalidConfig when its JSON schema is none."""
    if test.json_schema is None:
        return
    try:
        jsonschema.Draft202012Validator.check_schema(test.json_schema)
    except jsonschema.SchemaError as error:
        raise InvalidConfig(
            f"smoke test {test.title}: its JSON schema is none: {error.message}",
            next_step="see https://json-schema.org for the form",
        ) from None


def misfit(value: Any, schema: dict[str, Any]) -> str | None:
    """What of a value the schema does not allow."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    first = next(iter(sorted(found, key=lambda error: list(map(str, error.path)))), None)
    return None if first is None else f"{first.message} (at {first.json_path})"


def _request(candidate: Candidate, test: SmokeTest) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": candidate.model, "max_tokens": _MAX_TOKENS}
    body |= {**test.parameters, "stream": True}
    if candidate.chat:
        return "/v1/chat/completions", {
            **body, "messages": [{"role": "user", "content": test.prompt}],
        }  # fmt: skip
    return "/v1/completions", {**body, "prompt": test.prompt}


def _none(error: str) -> SmokeAnswer:
    return SmokeAnswer(text="", finish_reason=None, ttft_s=0.0, error=error)
