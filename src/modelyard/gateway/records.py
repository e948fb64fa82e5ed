"""The stand-alone gateway's log of finished requests: lines of JSON, bounded by rotation."""

import logging
from collections import deque
from pathlib import Path

import msgspec

from modelyard.core.records import RequestRecord

log = logging.getLogger(__name__)

_MAX_IN_MEMORY = 100_000


class RecordLog:
    """Appends records to a file once a tick; the fullest file is set aside, the oldest removed."""

    refuses = False
    """The log is for looking at: a full disk stops no request, but is counted and said."""

    def __init__(self, file: Path | None, max_bytes: int, keep: int) -> None:
        """`file`: None keeps none."""
        self._file = file
        self._max_bytes = max_bytes
        self._keep = keep
        self._fresh: deque[RequestRecord] = deque()
        self._failing = False
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Records not yet written."""
        return len(self._fresh)

    def put(self, record: RequestRecord) -> None:
        """Take a record."""
        if self._file is None:
            return
        if len(self._fresh) >= _MAX_IN_MEMORY:
            self.dropped += 1
            return
        self._fresh.append(record)

    def flush(self) -> None:
        """Write what has come."""
        if self._file is None or not self._fresh:
            return
        records, self._fresh = self._fresh, deque()
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rotate(len(lines))
            with self._file.open("ab") as out:
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


def _older(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")
