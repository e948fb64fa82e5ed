"""Single values: the state's identity, the default model."""

import secrets

import sqlalchemy as sa

from modelyard.state.database import Database
from modelyard.state.tables import meta as table

_EPOCH = "epoch"
_DEFAULT_MODEL = "default_model"


class Meta:
    """Named values."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def epoch(self) -> str:
        """Identity of this state store; made at the first call and the same ever after."""
        with self._database.transaction() as connection:
            present = _get(connection, _EPOCH)
            if present is None:
                present = secrets.token_hex(8)
                _set(connection, _EPOCH, present)
            return present

    def default_model(self) -> str | None:
        """Public name that serves the simple API's `default`, as somebody chose it."""
        with self._database.reading() as connection:
            return _get(connection, _DEFAULT_MODEL)

    def set_default_model(self, name: str | None) -> None:
        """Choose it; None: nothing is chosen."""
        with self._database.transaction() as connection:
            _set(connection, _DEFAULT_MODEL, name)


def _get(connection: sa.Connection, key: str) -> str | None:
    return connection.execute(sa.select(table.c.value).where(table.c.key == key)).scalar()


def _set(connection: sa.Connection, key: str, value: str | None) -> None:
    connection.execute(sa.delete(table).where(table.c.key == key))
    if value is not None:
        connection.execute(sa.insert(table).values(key=key, value=value))
