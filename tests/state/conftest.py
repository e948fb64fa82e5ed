"""Both kinds of database under the state store, each test on a fresh one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import PostgresServer

from modelyard.state.store import Store

ON_POSTGRESQL = pytest.mark.service("postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A running server, shared by the tests; each has a database of its own."""
    with PostgresServer() as running:
        yield running


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """Name of a fresh database on the server."""
    with server.database() as name:
        yield name


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=ON_POSTGRESQL)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    server: PostgresServer = request.getfixturevalue("server")
    return server.url(request.getfixturevalue("database"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Opened on it."""
    opened = Store(url)
    yield opened
    opened.close()
