"""A real PostgreSQL server on a loopback port, with a data folder of its own."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from tests.services import postgresql_programs

START_S = 60.0
PASSWORD = "p%40ss:wörd"
"""As a URL holds it; the server knows it as p@ss:wörd."""
_PLAIN = "p@ss:wörd"
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60")


class PostgresServer:
    """Started by `start`, which may be called again after `stop`; `close` ends and removes it."""

    def __init__(self) -> None:
        self._programs = postgresql_programs()
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root: then the user of its package has to, in a folder that
        # it can reach.
        self._as: dict[str, Any] = {}
        root = os.geteuid() == 0
        place = tempfile.mkdtemp(
            prefix="modelyard-postgresql-",
            dir="/tmp" if root else None,  # noqa: S108 - the name is drawn by mkdtemp
        )
        self._folder = Path(place)
        if root:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        secret = self._folder / "password"
        secret.write_text(_PLAIN)
        secret.chmod(0o644)
        command = [
            *(str(self._programs / "initdb"), "--pgdata", str(self._data), "--username=postgres"),
            *("--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"),
            "--no-locale",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *(str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *(part for setting in _QUICK for part in ("-c", setting)),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError((self._folder / "server.log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as a fast shutdown does: every session is cut."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            self._process.wait(START_S)
            self._process = None

    def close(self) -> None:
        """End it, and remove its folder."""
        try:
            self.stop()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "PostgresServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def url(self, database: str) -> str:
        """With the password in it."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """A plain connection, which commits each statement."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=_PLAIN,
            dbname=database,
            autocommit=True,
        )

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of a fresh database, which sorts as English does; dropped afterwards."""
        name = f"yard_{secrets.token_hex(6)}"
        sorting = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {sorting}".encode())
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True
