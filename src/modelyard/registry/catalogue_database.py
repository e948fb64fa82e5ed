"""Making the catalogue's SQLite file."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelyard.registry.staging import make_folder, sync_folder

SQLITE = "sqlite:///"
_UNFINISHED = ".catalogue-"


def create_database(database: Path) -> None:
    """Let MLflow make its tables in a file that nobody sees yet, without waiting for the disk.

    Its some 60 migrations flush several times each: seconds on a slow disk. Done aside, one flush
    at the end does, and a crash leaves no half-migrated database.
    """
    from mlflow.tracking import MlflowClient
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def without_waiting(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    make_folder(database.parent)
    for leftover in database.parent.glob(f"{_UNFINISHED}*"):  # of a process that was killed
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=database.parent) as folder:
        made = Path(folder) / database.name
        event.listen(Engine, "connect", without_waiting)
        try:
            MlflowClient(f"{SQLITE}{made}", f"{SQLITE}{made}").search_registered_models()
        finally:
            event.remove(Engine, "connect", without_waiting)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        # An `mlflow` command may have been faster: its database stays.
        with suppress(FileExistsError):
            os.link(made, database)
        sync_folder(database.parent)
    _forget_connections(database)


def _forget_connections(database: Path) -> None:
    """MLflow keeps connections by URI as long as the process lives: those to a file that was there
    before would go on writing into nothing."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

    uri = f"{SQLITE}{database}"
    untyped: Any = ModelStore
    untyped(uri).engine.dispose()
    untyped = RunStore
    untyped(uri, runs_folder(database)).engine.dispose()


def runs_folder(database: Path) -> str:
    """Where files of runs would lie, had they any; MLflow's default hangs on the current folder."""
    return (database.parent / "catalogue-runs").as_uri()
