"""What the fake engine did: counts, and a log of its last requests."""

from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

PROMPT_HEAD = 80
"""Characters of a prompt that the log keeps."""
ARRIVALS = 32
"""Requests of which head and body are kept as well."""
BODY_HEAD = 64 * 1024
"""Bytes of a body that are kept."""

Outcome = Literal["open", "completed", "cancelled", "rejected", "broken"]
"""cancelled: the client left. rejected: answered with an error status, scripted or not.
broken: a script or the end of draining cut it."""


class Entry(msgspec.Struct, kw_only=True):
    """One request in the log; it changes while the request runs."""

    id: str
    """Its `x-request-id` header, or "" when it had none."""
    path: str
    prompt: str = ""
    """The beginning of the last user message or of the prompt."""
    stream: bool = False
    tokens: int = 0
    """Made so far, of all choices."""
    outcome: Outcome = "open"
    status: int | None = None
    """Status of the answer, where one was begun."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came."""

    path: str
    headers: tuple[tuple[str, str], ...]
    """Names as they were written, repeated ones too."""
    body: str
    """Its first 64 KiB."""


class Ledger:
    """Counts since the start or the last reset."""

    def __init__(self, log_size: int) -> None:
        self._log: deque[Entry] = deque(maxlen=log_size)
        self._arrivals: deque[tuple[str, Sequence[tuple[bytes, bytes]], bytes]] = deque(
            maxlen=ARRIVALS
        )
        self.reset()

    def reset(self) -> None:
        """Begin again at zero; open requests are counted when they end."""
        self._log.clear()
        self._arrivals.clear()
        self.seen = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.ended: dict[Outcome, int] = dict.fromkeys(
            ("completed", "cancelled", "rejected", "broken"), 0
        )

    def open(self, request_id: str, path: str) -> Entry:
        """A generation or embeddings request came."""
        entry = Entry(id=request_id, path=path)
        self.seen += 1
        self._log.append(entry)
        return entry

    def arrived(self, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Keep a request's head and the beginning of its body, read when somebody asks."""
        self._arrivals.append((path, headers, body[:BODY_HEAD]))

    def arrivals(self) -> list[Arrival]:
        """The last requests as they came, oldest first."""
        return [
            Arrival(
                path=path,
                headers=tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in headers),
                body=body.decode("utf-8", "replace"),
            )
            for path, headers, body in self._arrivals
        ]

    def generated(self, entry: Entry, tokens: int) -> None:
        """So many more tokens were made."""
        entry.tokens += tokens
        self.generation_tokens += tokens

    def close(self, entry: Entry, outcome: Outcome, status: int | None = None) -> None:
        """The request ended; a second close is a fault of the program."""
        if entry.outcome != "open":
            raise RuntimeError(f"request ended twice: {entry.outcome}, then {outcome}")
        entry.outcome = outcome
        entry.status = status if status is not None else entry.status
        self.ended[outcome] += 1

    def log(self) -> list[Entry]:
        """The last requests, oldest first."""
        return list(self._log)


def metrics_text(ledger: Ledger, *, model: str, running: int, waiting: int) -> bytes:
    """Prometheus text, in vLLM's names."""
    label = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    rows = (
        ("vllm:num_requests_running", "gauge", running),
        ("vllm:num_requests_waiting", "gauge", waiting),
        ("vllm:prompt_tokens_total", "counter", ledger.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", ledger.generation_tokens),
        ("vllm:request_success_total", "counter", ledger.ended["completed"]),
        ("fake:requests_cancelled_total", "counter", ledger.ended["cancelled"]),
    )
    lines = []
    for name, kind, value in rows:
        lines += [f"# TYPE {name} {kind}", f'{name}{{model_name="{label}"}} {value}']
    return ("\n".join(lines) + "\n").encode()
