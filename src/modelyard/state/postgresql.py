"""A PostgreSQL database, or one schema of it, as the controller's database.

The code relies on what SQLite gives: one writer at a time, who sees all that was written before.
Here every writing transaction takes an advisory lock first and reads as READ COMMITTED, so that
each of its statements sees what earlier holders of the lock committed. SERIALIZABLE would let
writers collide and ask for the transaction again; but a transaction holds callbacks of others
(`Deployments.change`), which are called once. Numbers are also given in the order in which they
become visible, so that whoever reads the journal or the key log "after N" misses nothing.

Locks are numbered by what they are for and by the schema: two yards may share a database.
"""

import os
import socket
import zlib
from typing import Any

import sqlalchemy as sa

from modelyard.core.errors import InvalidConfig, StorageError

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_WRITERS = 0x4D59_0001
_CONTROLLER = 0x4D59_0002
"""First numbers of the two locks."""
_LOCK_TIMEOUT_MS = 10_000
_CONNECT: dict[str, int | str] = {
    "connect_timeout": 5,
    # A server that is gone without a word is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_READ_ONLY = ("25006", "0A000")
"""What a standby answers to a writer."""
_SCHEMA = "modelyard_schema"


class PostgresDatabase:
    """Engines for it. An error of the driver never holds the password; nor does `place`."""

    shared = True

    def __init__(self, url: sa.URL) -> None:
        url = url.set(drivername="postgresql+psycopg")
        self._host = _text(url.host or url.query.get("host") or os.environ.get("PGHOST"))
        self._port = _text(url.port or url.query.get("port") or os.environ.get("PGPORT")) or "5432"
        name = url.database or _text(url.query.get("dbname")) or os.environ.get("PGDATABASE")
        where = f"{self._host}:{self._port}" if self._host else "this machine's socket"
        self.place = f"{name or 'of the user'} on {where}"
        own: dict[str, int | str] = {
            key: value for key, value in _CONNECT.items() if key not in url.query
        }
        if "application_name" not in url.query:
            own["application_name"] = f"modelyard {socket.gethostname()[:30]} {os.getpid()}"
        try:
            self.engine: sa.Engine = sa.create_engine(
                url, connect_args=own, isolation_level="READ COMMITTED", pool_pre_ping=True
            )
        except ImportError as error:
            raise StorageError(
                "PostgreSQL's driver is not installed",
                next_step="pip install 'modelyard[postgresql]'",
            ) from error
        self.reading: sa.Engine = self.engine.execution_options(
            reading=True, isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        sa.event.listen(self.engine, "connect", _prepare)
        sa.event.listen(self.engine, "begin", _begin)

    def passes(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the same may be taken later: it is away, locked, full, or a standby for now."""
        return (
            isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
            or getattr(error.orig, "sqlstate", None) in _READ_ONLY
        )

    def next_step(self, error: BaseException) -> str:
        """What helps against an error of the driver."""
        reason, state = str(error).lower(), getattr(error, "sqlstate", None)
        if state == "55P03":
            return "another transaction holds the lock: see pg_stat_activity, and end it"
        if state == "53100":
            return "free some space on the server's disk"
        if state in _READ_ONLY:
            return "name the primary in state.url, or all with &target_session_attrs=read-write"
        if "password" in reason or "authentication" in reason or "pg_hba" in reason:
            return "see user and password in state.url, in PGPASSWORD or in ~/.pgpass"
        if "does not exist" in reason and "database" in reason:
            return "make it, with: createdb"
        if "permission denied" in reason:
            return "make the user in state.url the owner of the database or schema"
        if state is None or state.startswith(("08", "57")):
            return f"see that PostgreSQL runs there, with: {self._pg_isready()}"
        return "see the server's log"

    def _pg_isready(self) -> str:
        return f"pg_isready -h {self._host} -p {self._port}" if self._host else "pg_isready"


def parse_url(text: str) -> sa.URL:
    """The URL; raises InvalidConfig, which does not repeat it: it may hold a password."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in SCHEMES:
        raise InvalidConfig(
            "state.url is not a URL such as postgresql://USER@HOST:5432/DATABASE",
            next_step="write special characters of a password as %XX",
            param="state.url",
        )
    return url


def try_hold(connection: sa.Connection, *, until_commit: bool = False) -> bool:
    """Take the controllers' lock, for the session or the transaction, unless another has it."""
    function = "pg_try_advisory_xact_lock" if until_commit else "pg_try_advisory_lock"
    sql = sa.text(f"SELECT {function}(:first, :second)")
    numbers = {"first": _CONTROLLER, "second": _second(connection)}
    return bool(connection.execute(sql, numbers).scalar())


def holder(connection: sa.Connection) -> str:
    """Who holds the controllers' lock, as far as the server tells."""
    sql = sa.text(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE"
        " l.locktype = 'advisory' AND l.granted AND l.classid = :first AND l.objid = :second"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    numbers = {"first": _CONTROLLER, "second": _second(connection)}
    return str(connection.execute(sql, numbers).scalar() or "another session")


def _prepare(connection: Any, record: Any) -> None:
    # Outside of a transaction: what is set within one would go with its rollback.
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
        # A controller that is gone without a word loses its locks within half a minute.
        cursor.execute("SET tcp_keepalives_idle = 10")
        cursor.execute("SET tcp_keepalives_interval = 5")
        cursor.execute("SET tcp_keepalives_count = 3")
        cursor.execute("SELECT current_schema()")
        record.info[_SCHEMA] = cursor.fetchone()[0] or ""
    connection.autocommit = False


def _begin(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get("reading", False):
        connection.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(%s, %s)", (_WRITERS, _second(connection))
        )


def _second(connection: sa.Connection) -> int:
    """Second number of a lock: the connection's schema."""
    return zlib.crc32(connection.info[_SCHEMA].encode()) & 0x7FFF_FFFF


def _text(value: object) -> str:
    """One value of a URL's query, which may be given several times, as text."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
