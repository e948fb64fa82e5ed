"""Writes in their order, some of which the database does not take at once."""

import logging
from collections import deque
from collections.abc import Callable

from modelyard.core.errors import ModelyardError, StorageAway

log = logging.getLogger(__name__)
MAX_WAITING = 20_000


class Backlog:
    """Used in one thread. What can't be written while the database is away waits for its turn."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._waiting: deque[Callable[[], object]] = deque()
        self._dropped = 0

    def write(self, call: Callable[[], object]) -> None:
        """Make the call now, or keep it for the next `flush` while the database is away.

        Where something waits already, nothing is tried: each try may wait for a server.
        """
        if len(self._waiting) >= self._max_waiting:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(call)
        if len(self._waiting) > 1:
            return
        try:
            self.flush()
        except StorageAway as error:
            log.warning("changes wait until they can be stored: %s", error)

    def flush(self) -> None:
        """Make the calls that wait, in order; StorageAway when the database is still away."""
        if not self._waiting:
            return
        waited = len(self._waiting)
        while self._waiting:
            try:
                self._waiting[0]()
            except StorageAway:
                raise
            except ModelyardError as error:  # it never will be: those behind it need not wait
                log.error("a change could not be stored: %s", error)
            except Exception:
                log.exception("a change could not be stored")
            self._waiting.popleft()
        if waited > 1 or self._dropped:
            log.warning("%d changes that waited are stored, %d were lost", waited, self._dropped)
            self._dropped = 0

    def close(self) -> None:
        """One last try; what can't be stored even now is lost, and that is said."""
        try:
            self.flush()
        except StorageAway as error:
            log.error("%d changes could not be stored: %s", len(self._waiting), error)
