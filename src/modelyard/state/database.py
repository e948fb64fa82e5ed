"""The connection to the controller's database: opened, brought to the newest schema, guarded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from modelyard.core.errors import Conflict, StorageAway, StorageError
from modelyard.state.postgresql import PostgresDatabase, parse_url, try_hold
from modelyard.state.sqlite import SqliteFile
from modelyard.state.tables import SCHEMA_HEAD, meta

_MIGRATIONS = Path(__file__).parent / "migrations"
_OWNER = "owner"


class Backend(Protocol):
    """One kind of database. A write transaction of `engine` waits until no other is under way."""

    shared: bool
    """Whether others than this machine's processes may reach it."""
    place: str
    """Where it is, for messages; without a password."""
    engine: sa.Engine
    reading: sa.Engine
    """Transactions that read, in one consistent view, and wait for nobody."""

    def passes(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the same may be taken later: it is gone, locked or full."""

    def next_step(self, error: BaseException) -> str:
        """What helps against an error of the driver."""


class Database:
    """One database; every failure of it is a StorageError that names it."""

    def __init__(self, url: str) -> None:
        self._backend = _backend(url)
        self._mark: str | None = None

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""
        return self._backend.place

    @property
    def shared(self) -> bool:
        """Whether controllers of other homes may reach it."""
        return self._backend.shared

    def migrate(self, *, owned: bool = False) -> None:
        """Bring the schema to this code's; raise StorageError when it is newer than that.

        `owned`: the caller is the controller that holds the database. Anybody else changes no
        schema under a controller that runs: Conflict.
        """
        with self.transaction() as connection:
            present = _revision(connection)
            if present == SCHEMA_HEAD:
                return
            if self.shared and not owned and not try_hold(connection, until_commit=True):
                raise Conflict(
                    f"a controller of another Modelyard uses the database {self.place}, whose "
                    f"schema is {present}; this one has {SCHEMA_HEAD}",
                    next_step="stop that controller first",
                )
            self._upgrade(connection, present)

    def _upgrade(self, connection: sa.Connection, present: str | None) -> None:
        # Imported here: 0.3 s that only the first start and an upgrade need.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and not sa.inspect(connection).has_table(meta.name):
            raise StorageError(
                f"{self.place} holds the tables of another program",
                next_step="give the state a database or a schema of its own",
            )
        if present is not None and present not in known:
            raise StorageError(
                f"the state in {self.place} has schema {present}, newer than this Modelyard knows "
                f"({SCHEMA_HEAD})",
                next_step="upgrade Modelyard, or use another --home",
            )
        command.upgrade(config, "head")

    def fence(self, mark: str) -> None:
        """From now on `transaction` raises Conflict when another has written a later mark."""
        with self.transaction() as connection:
            connection.execute(sa.delete(meta).where(meta.c.key == _OWNER))
            connection.execute(sa.insert(meta).values(key=_OWNER, value=mark))
        self._mark = mark

    def look_for_mark(self) -> None:
        """Raise Conflict when another has written a later mark."""
        with self.transaction():
            pass

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction, committed at the end; raise StorageError when the database refuses.

        Transactions come one after the other: each sees what those before it have written, and
        nobody writes until it is over.
        """
        with self.explained(), self._backend.engine.begin() as connection:
            if self._mark is not None:
                self._refuse_if_taken(connection, self._mark)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view, for reads only: it doesn't wait for a writer, nor hold one up."""
        with self.explained(), self._backend.reading.begin() as connection:
            yield connection

    def session(self) -> sa.Connection:
        """A connection outside of transactions, for a lock that is held as long as it lives."""
        with self.explained():
            options = {"reading": True, "isolation_level": "AUTOCOMMIT"}
            return self._backend.engine.connect().execution_options(**options)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within it, errors of the database are StorageErrors that name it."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            reason = error.orig or error
            kind = StorageAway if self._backend.passes(error) else StorageError
            raise kind(
                f"the state database {self.place} refused: {' '.join(str(reason).split())}",
                next_step=self._backend.next_step(reason),
            ) from error
        except sa.exc.TimeoutError as error:
            raise StorageAway(
                f"the state database {self.place} is slow: all connections are in use",
                next_step="see what it is busy with",
            ) from error

    def _refuse_if_taken(self, connection: sa.Connection, mark: str) -> None:
        found = connection.execute(sa.select(meta.c.value).where(meta.c.key == _OWNER)).scalar()
        if found != mark:
            raise Conflict(
                f"another controller has taken over the database {self.place}",
                next_step="end this one; see which homes name that database in state.url",
            )

    def close(self) -> None:
        """Close all connections."""
        self._backend.engine.dispose()


def _backend(url: str) -> Backend:
    if url.startswith("sqlite:"):
        return SqliteFile(sa.make_url(url))
    return PostgresDatabase(parse_url(url))


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
