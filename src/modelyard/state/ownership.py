"""Who alone decides in a database that several machines reach: one controller.

For a file in the home, the home's own lock says it. On a server it is a lock of a session, which
ends with the session: when the server was away, or the network, another controller may have taken
it meanwhile. So each one also writes down a mark of its own, and every transaction of a controller
looks for it: what it does not find there, it must not write (a fence).
"""

import logging
import secrets
import threading
import time

import sqlalchemy as sa

from modelyard.core.errors import Conflict
from modelyard.state.database import Database
from modelyard.state.postgresql import holder, try_hold

log = logging.getLogger(__name__)
_LOOKS = 30
_PAUSE_S = 0.1


class Ownership:
    """Held from its making to `release`. Every call may wait for the server."""

    def __init__(self, database: Database) -> None:
        """Take it; Conflict when another controller has it, StorageError when the server is away.

        Nothing to take where the database is a file.
        """
        self._database = database
        self._session: sa.Connection | None = None
        self._lock = threading.Lock()
        if database.shared:
            self._session = self._take()

    def mark(self) -> None:
        """Write down that this one decides from here on; the schema must be there."""
        if self._database.shared:
            self._database.fence(secrets.token_hex(8))

    def confirm(self) -> None:
        """Look whether it is still held, and take it again after the server was away.

        Raises Conflict when another controller has taken it, StorageError while the server is away.
        """
        if not self._database.shared:
            return
        with self._lock:
            if not self._holds():
                self._end_session()
                self._session = self._take()
                log.warning("the database %s is there again", self._database.place)
        self._database.look_for_mark()

    def release(self) -> None:
        """Let another one have it."""
        with self._lock:
            self._end_session()

    def _take(self) -> sa.Connection:
        session = self._database.session()
        try:
            with self._database.explained():
                # A controller that was killed a moment ago may still be on its way out.
                for look in range(_LOOKS):
                    if try_hold(session):
                        return session
                    if look + 1 < _LOOKS:
                        time.sleep(_PAUSE_S)
                raise Conflict(
                    f"a controller uses the database {self._database.place} already: "
                    f"{holder(session)}",
                    next_step="stop that one first, or choose another database or schema",
                )
        except BaseException:
            session.invalidate()
            session.close()
            raise

    def _holds(self) -> bool:
        if self._session is None:
            return False
        try:
            self._session.execute(sa.text("SELECT 1"))
        except sa.exc.DBAPIError:
            return False
        return True

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.invalidate()  # closed, not kept for others: the lock goes with it
            self._session.close()
            self._session = None
