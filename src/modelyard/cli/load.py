"""A running load on a gateway: users who ask one question after the other, each answer checked."""

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from modelyard.wire import sse

_TIMEOUT_S = 60.0


@dataclass
class Tally:
    """What became of the requests so far."""

    sent: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    """Whole answers by the version that they name."""
    lost: list[str] = field(default_factory=list)
    """Why each of the others is no whole answer: failed, cut, given twice."""
    first_answer: dict[str, int] = field(default_factory=dict)
    """Version → how many requests had been answered when its first one was."""

    @property
    def answered(self) -> int:
        """Whole answers."""
        return sum(self.by_version.values())


class Load:
    """Users that ask until the load ends. Nobody asks anything twice."""

    def __init__(
        self, gateway_url: str, model: str, questions: Sequence[str], *, users: int = 2
    ) -> None:
        self._url = gateway_url
        self._model = model
        self._questions = questions
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._ids: set[str] = set()
        self.tally = Tally()
        self._threads = [
            threading.Thread(target=self._use, args=(number,), daemon=True)
            for number in range(users)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let every user have the answer that it waits for."""
        self._ending.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    def _use(self, number: int) -> None:
        # Each in its own process' trust: the gateway of this machine, named by its address.
        with httpx.Client(
            base_url=self._url, trust_env=False, timeout=_TIMEOUT_S, verify=False  # noqa: S501
        ) as http:  # fmt: skip
            turn = number
            while not self._ending.is_set():
                question = self._questions[turn % len(self._questions)]
                turn += 1
                version, request_id, problem = self._ask(http, question)
                self._note(version, request_id, problem)

    def _note(self, version: str, request_id: str, problem: str) -> None:
        with self._lock:
            tally = self.tally
            tally.sent += 1
            if not problem and request_id in self._ids:
                problem = f"{request_id} was answered twice"
            if problem:
                tally.lost.append(problem)
                return
            self._ids.add(request_id)
            tally.first_answer.setdefault(version, tally.answered)
            tally.by_version[version] += 1

    def _ask(self, http: httpx.Client, question: str) -> tuple[str, str, str]:
        """Version, request id, and what was wrong with the answer."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "max_tokens": 48,
        }
        whole = _Whole()
        try:
            with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                if reply.status_code != 200:
                    return "", "", f"status {reply.status_code}: {reply.read()[:200]!r}"
                for chunk in reply.iter_bytes():
                    whole.feed(chunk)
        except httpx.HTTPError as error:
            return "", "", f"{type(error).__name__}: {error}"
        named = reply.headers.get("x-modelyard-version", "")
        return named, reply.headers.get("x-request-id", ""), whole.problem


class _Whole:
    """Whether a stream has text, an end, and nothing behind it."""

    def __init__(self) -> None:
        self._splitter = sse.EventSplitter()
        self._said = False
        self._finished = False
        self._ended = False
        self._wrong = ""

    def feed(self, chunk: bytes) -> None:
        for event in self._splitter.feed(chunk):
            data = sse.data_of(event)
            if data is None:
                continue
            if self._ended:
                self._wrong = "something came behind its end"
            elif data.strip() == sse.DONE:
                self._ended = True
            else:
                self._read(data)

    def _read(self, data: bytes) -> None:
        part = json.loads(data)
        if part.get("error"):
            self._wrong = str(part["error"])[:200]
        for choice in part.get("choices") or ():
            self._said = self._said or bool((choice.get("delta") or {}).get("content"))
            self._finished = self._finished or choice.get("finish_reason") is not None

    @property
    def problem(self) -> str:
        if self._wrong:
            return self._wrong
        if not (self._ended and self._finished):
            return "the stream was cut"
        return "" if self._said else "the answer is empty"
