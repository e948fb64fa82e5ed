"""The log of finished requests: lines of JSON, bounded by rotation.

A line is a request's record. Prompts and answers stand in it only where the settings say `content`,
and then nowhere else: not in what goes to the controller, not in spans, not in metrics, not in the
process's own log (promise O7).
"""

import asyncio
import logging
import os
from collections import deque
from pathlib import Path
from typing import Protocol

import msgspec

from modelyard.core.records import RequestRecord
from modelyard.core.telemetry import RequestLogOptions
from modelyard.gateway.calls import Answer, Call
from modelyard.gateway.outlet import Outlet, Overheard
from modelyard.wire.transcripts import Transcript

log = logging.getLogger(__name__)

TICK_S = 0.25
MAX_REQUEST_BYTES = 64 * 1024
"""Kept of a request's body, where content is; how much of an answer is, `Transcript` says."""
_MAX_IN_MEMORY = 100_000
_MAX_CONTENT_BYTES = 64 * 1024 * 1024
"""Of content between two ticks."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and what was answered."""

    request: str
    """The body as it was sent on; empty of a request that was not let in."""
    request_cut: bool = False
    """It was longer."""
    answer: str | None
    """Its text, parts after one another with NUL between; None where there is none, or too much."""


class RecordLog:
    """Appends records to a file once a tick; the fullest file is set aside, the oldest removed.

    Listens to the end of requests. A full disk stops none, but is counted and said.
    """

    def __init__(self, folder: Path, options: RequestLogOptions) -> None:
        """The file is below `folder`, unless it is named absolutely."""
        self._file = None if options.file is None else folder / options.file
        self._max_bytes = options.max_bytes
        self._keep = options.keep
        self.content = options.content and self._file is not None
        """Whether prompts and answers stand in it."""
        self._fresh: deque[tuple[RequestRecord, Content | None]] = deque()
        self._content_bytes = 0
        self._failing = False
        self.dropped = 0

    @property
    def kept(self) -> bool:
        """Whether there is a log."""
        return self._file is not None

    @property
    def waiting(self) -> int:
        """Records not yet written."""
        return len(self._fresh)

    def ended(self, record: RequestRecord, call: Call) -> None:
        """Take the record of a request that ended."""
        if self._file is None:
            return
        if len(self._fresh) >= _MAX_IN_MEMORY or self._content_bytes > _MAX_CONTENT_BYTES:
            self.dropped += 1
            return
        content = _content(call) if self.content else None
        if content is not None:
            self._content_bytes += len(content.request) + len(content.answer or "")
        self._fresh.append((record, content))

    async def run(self) -> None:
        """Write until cancelled; the disk holds up no request."""
        while True:
            await asyncio.sleep(TICK_S)
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what has come."""
        if self._file is None or not self._fresh:
            return
        records, self._fresh = self._fresh, deque()
        self._content_bytes = 0
        lines = b"".join(_line(record, content) for record, content in records)
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rotate(len(lines))
            with open(self._file, "ab", opener=_for_its_owner) as out:
                out.write(lines)
            self._failing = False
        except OSError as error:
            self.dropped += len(records)
            if not self._failing:
                log.error("requests can't be recorded in %s: %s", self._file, error.strerror)
            self._failing = True

    def _rotate(self, more_bytes: int) -> None:
        file = self._file
        if file is None or not file.exists():
            return
        if file.stat().st_size + more_bytes <= self._max_bytes:
            return
        if self._keep == 0:
            file.unlink()
            return
        _older(file, self._keep).unlink(missing_ok=True)
        for number in range(self._keep - 1, 0, -1):
            older = _older(file, number)
            if older.exists():
                older.rename(_older(file, number + 1))
        file.rename(_older(file, 1))


class LogBooks:
    """The books of a gateway without a controller: its log, which hears of records by itself."""

    refuses = False

    def __init__(self, kept: RecordLog) -> None:
        self._kept = kept

    @property
    def dropped(self) -> int:
        """Records lost because the disk refused, or there was no room."""
        return self._kept.dropped

    @property
    def waiting(self) -> int:
        """Records not yet written."""
        return self._kept.waiting

    def put(self, record: RequestRecord) -> None:
        """Nobody else is there to be told."""


class Asked(Protocol):
    """Brings a call to an answer."""

    async def run(self, call: Call, client: Outlet) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client."""


class Heard:
    """Keeps what is answered with the call, for a log that holds content."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def run(self, call: Call, client: Outlet) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client."""
        call.said = said = Transcript(call.operation)
        answer = await self._asked.run(call, Overheard(client, said.feed))
        if answer is not None:
            said.read(answer.body)
        return answer


def _content(call: Call) -> Content:
    body = call.body
    return Content(
        request=body[:MAX_REQUEST_BYTES].decode(errors="replace"),
        request_cut=len(body) > MAX_REQUEST_BYTES,
        answer=(call.said.text or None) if call.said is not None else None,
    )


def _line(record: RequestRecord, content: Content | None) -> bytes:
    told = msgspec.json.encode(record)
    if content is not None:
        told = told[:-1] + b',"content":' + msgspec.json.encode(content) + b"}"
    return told + b"\n"


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _older(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")
