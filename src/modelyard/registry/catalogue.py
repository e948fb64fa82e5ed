"""The MLflow mirror: registered models, versions, aliases and facts, for people and their tools.

Truth is the manifests, version records and alias journal; this can be rebuilt from them.

Version numbers. MLflow gives a new version the number after the last it ever gave, deleted ones
included; nobody can choose it. So that both sides agree:
- before a number is taken here, MLflow is asked for its newest, and the number is above both;
- versions are mirrored in ascending order, one process at a time (a lock file), and a number that
  MLflow gives below the one wanted (a gap) is used up by a version that is deleted at once;
- a number above the one wanted means that somebody else took it in MLflow while it was away. The
  version then lives there under the other number; its tag `modelyard.version` and a warning tell.

What a crash or an absent server leaves out is marked in the versions' folder before the record is
written (`VersionStore.mark_unmirrored`); the next registration catches up.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.refs import DIGEST_PREFIX
from modelyard.registry.staging import make_folder, sync_folder
from modelyard.registry.versions import VersionRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGEST_TAG = "modelyard.digest"
VERSION_TAG = "modelyard.version"
_SQLITE = "sqlite:///"
_UNFINISHED = ".catalogue-"
_MAX_GAP = 10_000
_PAGE = 200

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its own handler would print migrations to the terminal.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # A server that is away must be told within seconds; the defaults wait for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def source_of(digest: str) -> str:
    """What MLflow shows as the version's source: the manifest's address."""
    return f"modelyard://manifests/{digest.removeprefix(DIGEST_PREFIX)}"


class Catalogue:
    """MLflow's model registry behind a tracking URI; imported and connected at the first use.

    Every method raises whatever MLflow and its database or HTTP client raise: the one caller
    treats any failure as "not mirrored yet". It also holds a lock, so that the processes of one
    home come here one at a time.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._connected: MlflowClient | None = None

    def newest(self, name: str) -> int:
        """The highest version number of `name` that MLflow shows; 0 when there is none."""
        with _quiet():
            return max((int(v.version) for v in self._versions(name)), default=0)

    def mirror(
        self, name: str, records: Sequence[VersionRecord], aliases: dict[str, int]
    ) -> list[str]:
        """Add what MLflow lacks of `name`; return warnings about what can't agree."""
        with _quiet():
            self._ensure_model(name)
            mirrored = {
                int(v.tags[VERSION_TAG]): v
                for v in self._versions(name)
                if v.tags.get(VERSION_TAG, "").isdecimal()
            }
            found: list[str] = []
            for record in records:
                if record.version not in mirrored:
                    mirrored[record.version] = self._create(record)
                version = mirrored[record.version]
                if int(version.version) != record.version:
                    found.append(
                        f"{name}:{record.version} is version {version.version} in MLflow, where "
                        "its number was taken"
                    )
            self._set_aliases(name, {a: mirrored[v].version for a, v in aliases.items()})
            return found

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client().create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _create(self, record: VersionRecord) -> Any:
        client = self._client()
        for _ in range(_MAX_GAP):
            version = client.create_model_version(
                record.name, source_of(record.digest), tags=_tags(record)
            )
            if int(version.version) >= record.version:
                break
            client.delete_model_version(record.name, version.version)
        return version

    def _set_aliases(self, name: str, wanted: dict[str, Any]) -> None:
        there = dict(self._client().get_registered_model(name).aliases)
        for alias, version in wanted.items():
            if str(there.get(alias)) != str(version):
                self._client().set_registered_model_alias(name, alias, str(version))

    def _versions(self, name: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client().search_model_versions(
                f"name='{name}'", max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _client(self) -> "MlflowClient":
        if self._connected is None:
            for variable, value in _ENVIRONMENT.items():
                os.environ.setdefault(variable, value)
            from mlflow.tracking import MlflowClient

            # Its progress and alembic's is nobody's concern; failures come as exceptions.
            logging.getLogger("mlflow").setLevel(logging.ERROR)
            logging.getLogger("alembic").setLevel(logging.ERROR)
            database = Path(self._tracking_uri.removeprefix(_SQLITE))
            if self._tracking_uri.startswith(_SQLITE) and not database.exists():
                _create_database(database)
            self._connected = MlflowClient(self._tracking_uri, self._tracking_uri)
        return self._connected


def _create_database(database: Path) -> None:
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
            MlflowClient(f"{_SQLITE}{made}", f"{_SQLITE}{made}").search_registered_models()
        finally:
            event.remove(Engine, "connect", without_waiting)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        # An `mlflow` command may have been faster: its database stays.
        with suppress(FileExistsError):
            os.link(made, database)
        sync_folder(database.parent)


def _tags(record: VersionRecord) -> dict[str, str]:
    facts = record.facts
    values = {
        "digest": record.digest,
        "version": record.version,
        "format": facts.format,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "dtype": facts.dtype,
        "size_bytes": facts.size_bytes,
        "context_length": facts.context_length,
        "vocabulary_size": facts.vocabulary_size,
        "chat_template": facts.chat_template,
        "licence": facts.licence,
        "parent": record.parent,
    }
    return {f"modelyard.{key}": str(value) for key, value in values.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's and its libraries' deprecation warnings are not for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
