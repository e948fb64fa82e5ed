"""What workers wrote: a file each, bounded in size and number."""

import os
from pathlib import Path

from modelyard.core.errors import LaunchFailed

LOG_CAP_BYTES = 8 * 1024 * 1024
LOGS_KEPT = 100
_TAIL_BYTES = 64 * 1024


class ReplicaLogs:
    """The log files of one home's workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, replica: str) -> int:
        """A descriptor that appends to the worker's log; raises LaunchFailed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(replica)
            if path.exists() and path.stat().st_size > LOG_CAP_BYTES:
                path.replace(path.with_suffix(".log.1"))
            logs = self._folder.iterdir()
            newest = sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)
            for old in newest[LOGS_KEPT:]:
                old.unlink()
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise LaunchFailed(f"can't write {self._folder}: {error.strerror}") from error

    def append(self, replica: str, text: bytes) -> None:
        """Keep what an ended worker wrote elsewhere; raises LaunchFailed."""
        with os.fdopen(self.open(replica), "ab") as log:
            log.write(text)

    def tail(self, replica: str, lines: int) -> list[str]:
        """Its last lines; none when nothing is known of it."""
        try:
            with self._path(replica).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                return last_lines(file.read(), lines)
        except FileNotFoundError:
            return []

    def _path(self, replica: str) -> Path:
        return self._folder / f"{replica}.log"


def last_lines(text: bytes, lines: int) -> list[str]:
    """The last `lines` of what was written, whatever bytes it holds."""
    return text.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []
