"""The MLflow catalogue: registered models, versions, aliases and runs, for people and their tools.

What is written here is a mirror (mirror.py says of what). What is read from it is compared with the
truth beside the blobs, and otherwise believed in two things only: which numbers MLflow has given,
and that somebody moved an alias.

A version shows in MLflow's own UI with a description, tags (digest, facts), the address of its
manifest as source, and a run in the experiment `modelyard` that holds its facts as parameters and
its metrics: there they can be searched, sorted and compared.
"""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from modelyard.core.errors import ModelyardError, Unavailable
from modelyard.core.refs import DIGEST_PREFIX
from modelyard.registry.catalogue_database import SQLITE, create_database, runs_folder
from modelyard.registry.versions import VersionRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "modelyard"
DIGEST_TAG = "modelyard.digest"
VERSION_TAG = "modelyard.version"
_NAME_TAG = "modelyard.name"
_REF_TAG = "modelyard.ref"
_PAGE = 200
_RUNS_PAGE = 1000
_MAX_TEXT = 500
_PASSWORD = re.compile(r"//[^/\s@]*@")
_NO_METRIC_NAME = re.compile(r"[^\w.\- /]")

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Its own handler would print migrations to the terminal.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is away must be told within seconds; the defaults wait for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class CatalogueModel(msgspec.Struct, frozen=True):
    """A registered model as MLflow has it."""

    created: int
    """Milliseconds since 1970: one that was removed and made again has another."""
    aliases: dict[str, int]
    """Alias → MLflow's version number."""


class CatalogueVersion(msgspec.Struct, frozen=True):
    """A model version as MLflow has it."""

    number: int
    source: str
    tags: dict[str, str]


class Catalogue:
    """MLflow behind a tracking URI; imported and connected at the first use.

    Every method raises Unavailable when MLflow can't be asked or refuses: one line that says why.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._connected: MlflowClient | None = None
        self._experiment: str | None = None

    @property
    def address(self) -> str:
        """Where it is, for people: without a password."""
        return shown_uri(self._tracking_uri)

    def newest(self, name: str) -> int:
        """The highest version number of `name` that MLflow shows; 0 when there is none."""
        with self._asking() as client:
            found = client.search_model_versions(
                f"name='{name}'", max_results=1, order_by=["version_number DESC"]
            )
            return max((int(version.version) for version in found), default=0)

    def model(self, name: str) -> CatalogueModel:
        """The registered model, made now if it is not there."""
        with self._asking() as client:
            from mlflow.exceptions import MlflowException

            try:
                found = client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                found = _create_model(client, name)
            return _model(found)

    def models(self) -> dict[str, CatalogueModel]:
        """All registered models by name: one question for many names."""
        models: dict[str, CatalogueModel] = {}
        token = None
        with self._asking() as client:
            while True:
                page = client.search_registered_models(max_results=_PAGE, page_token=token)
                models |= {found.name: _model(found) for found in page}
                token = page.token
                if not token:
                    return models

    def versions(self, name: str, above: int = 0) -> Iterator[CatalogueVersion]:
        """Versions of `name` with a number over `above`, the newest first."""
        token = None
        while True:
            with self._asking() as client:
                page = client.search_model_versions(
                    f"name='{name}'",
                    max_results=_PAGE,
                    order_by=["version_number DESC"],
                    page_token=token,
                )
            for version in page:
                if int(version.version) <= above:
                    return
                yield _version(version)
            token = page.token
            if not token:
                return

    def version(self, name: str, number: int) -> CatalogueVersion | None:
        """One version; None when it is not there."""
        with self._asking() as client:
            from mlflow.exceptions import MlflowException

            try:
                return _version(client.get_model_version(name, str(number)))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def runs(self, name: str) -> dict[str, str]:
        """Ref and digest of a version (`name:3@sha256:…`) → id of its run."""
        found: dict[str, str] = {}
        with self._asking() as client:
            token = None
            while True:
                page = client.search_runs(
                    [self._experiment_id(client)],
                    f"tags.`{_NAME_TAG}` = '{name}'",
                    max_results=_RUNS_PAGE,
                    page_token=token,
                )
                for run in page:
                    tags = run.data.tags
                    found[f"{tags.get(_REF_TAG)}@{tags.get(DIGEST_TAG)}"] = run.info.run_id
                token = page.token
                if not token:
                    return found

    def add(self, record: VersionRecord, runs: dict[str, str]) -> int:
        """Add a version with its run (that of `runs`, or a new one); return its number.

        MLflow gives the number after the last one it ever gave, those of deleted versions included.
        """
        with self._asking() as client:
            ref = f"{record.name}:{record.version}@{record.digest}"
            if ref not in runs:
                runs[ref] = self._create_run(client, record)
            version = client.create_model_version(
                record.name,
                source_of(record.digest),
                runs[ref],
                tags=tags_of(record),
                description=_description(record),
            )
            return int(version.version)

    def remove(self, name: str, number: int) -> None:
        """Take a version away; its number is not given again."""
        with self._asking() as client:
            client.delete_model_version(name, str(number))

    def set_tags(self, name: str, number: int, tags: dict[str, str]) -> None:
        """Write tags of a version."""
        with self._asking() as client:
            for key, value in tags.items():
                client.set_model_version_tag(name, str(number), key, value)

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Let an alias mean MLflow's version `number`; None takes it away."""
        with self._asking() as client:
            if number is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(number))

    def _create_run(self, client: "MlflowClient", record: VersionRecord) -> str:
        from mlflow.entities import Metric, Param

        at_ms = int(record.created_at * 1000)
        ref = f"{record.name}:{record.version}"
        tags = {_REF_TAG: ref, _NAME_TAG: record.name, DIGEST_TAG: record.digest}
        user = {"mlflow.user": record.actor.removeprefix("user:")}
        run = client.create_run(
            self._experiment_id(client), start_time=at_ms, tags={**tags, **user}, run_name=ref
        )
        facts = {**_facts(record), "source": record.source[:_MAX_TEXT]}
        client.log_batch(
            run.info.run_id,
            metrics=[
                Metric(_NO_METRIC_NAME.sub("_", key), value, at_ms, 0)
                for key, value in record.metrics.items()
            ],
            params=[Param(key, value) for key, value in facts.items()],
        )
        client.set_terminated(run.info.run_id, end_time=at_ms)
        return str(run.info.run_id)

    def _experiment_id(self, client: "MlflowClient") -> str:
        if self._experiment is None:
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                self._experiment = _create_experiment(client, self._database())
            else:
                if found.lifecycle_stage == "deleted":  # in MLflow's bin: no run can be added
                    client.restore_experiment(found.experiment_id)
                self._experiment = found.experiment_id
        return str(self._experiment)

    def _database(self) -> Path | None:
        """The SQLite file, where the catalogue is one."""
        if not self._tracking_uri.startswith(SQLITE):
            return None
        return Path(self._tracking_uri.removeprefix(SQLITE))

    @contextmanager
    def _asking(self) -> Iterator["MlflowClient"]:
        """MLflow's client; whatever goes wrong in it becomes Unavailable."""
        with quiet_mlflow():
            try:
                yield self._client()
            except ModelyardError:
                raise
            except Exception as error:  # MLflow, its database and HTTP client raise anything
                raise away(self.address, error) from error

    def _client(self) -> "MlflowClient":
        database = self._database()
        if database is not None and not database.exists():
            self._connected = None  # it was removed: what is open would write into nothing
        if self._connected is None:
            from mlflow.tracking import MlflowClient

            self._experiment = None
            if database is not None and not database.exists():
                create_database(database)
            self._connected = MlflowClient(self._tracking_uri, self._tracking_uri)
        return self._connected


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow as it has to be here: no telemetry, short waits, nothing printed or warned of."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # Their progress and retries are nobody's concern; failures come as exceptions.
    for chatty in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def away(address: str, error: Exception) -> Unavailable:
    """Say in one line why the MLflow at `address` could not be asked."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    kinds = {type(each).__name__ for each in chain}
    text = one_line(error)
    status = re.search(r"(?:error code|too many) (\d{3})", str(error))
    next_step = (
        "start that server or correct registry.tracking_uri, then repeat the command; "
        "versions that are registered and services that are deployed do without it"
    )
    if kinds & {"NewConnectionError", "ConnectionRefusedError", "NameResolutionError"}:
        text = "nobody answers there"
    elif kinds & {"ReadTimeout", "ReadTimeoutError", "ConnectTimeout", "TimeoutError"}:
        text = "no answer in time"
    elif status and status[1] in {"401", "403"}:
        text = f"it refuses us ({status[1]})"
        next_step = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    elif status:
        text = f"it answers {status[1]}"
    return Unavailable(f"the MLflow at {address}: {text}", next_step=next_step)


def one_line(error: Exception) -> str:
    """The first line of what MLflow says, without passwords in addresses."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return _PASSWORD.sub("//", text)[:200]


def shown_uri(uri: str) -> str:
    """A tracking URI without the user and password in it."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri


def source_of(digest: str) -> str:
    """What MLflow shows as the version's source: the manifest's address."""
    return f"modelyard://manifests/{digest.removeprefix(DIGEST_PREFIX)}"


def tags_of(record: VersionRecord) -> dict[str, str]:
    """The tags of a version in MLflow."""
    tags = {"digest": record.digest, "version": str(record.version), **_facts(record)}
    return {f"modelyard.{key}": value for key, value in tags.items()}


def _facts(record: VersionRecord) -> dict[str, str]:
    facts = {**msgspec.to_builtins(record.facts), "parent": record.parent}
    if record.recipe is not None:
        made = {"recipe": record.recipe.kind, "tool": record.recipe.tool or None}
        facts |= {**made, "seed": record.recipe.seed, "data_digest": record.recipe.data_digest}
    return {key: str(value)[:_MAX_TEXT] for key, value in facts.items() if value is not None}


def _description(record: VersionRecord) -> str:
    facts = record.facts
    return (
        f"{facts.architecture}, {facts.parameters:,} parameters, {facts.dtype}, "
        f"{facts.size_bytes:,} bytes, {facts.format}; registered with Modelyard by "
        f"{record.actor.removeprefix('user:')} from {record.source[:_MAX_TEXT]}"
    )


def _model(found: Any) -> CatalogueModel:
    aliases = {alias: int(number) for alias, number in dict(found.aliases).items()}
    return CatalogueModel(int(found.creation_timestamp), aliases)


def _version(found: Any) -> CatalogueVersion:
    return CatalogueVersion(int(found.version), found.source or "", dict(found.tags))


def _create_model(client: "MlflowClient", name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.create_registered_model(
            name, description="Versions are registered with Modelyard: `modelyard register`."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_registered_model(name)  # another home's process was faster


def _create_experiment(client: "MlflowClient", database: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    artifacts = None if database is None else runs_folder(database)
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        found: Any = client.get_experiment_by_name(EXPERIMENT)
        return str(found.experiment_id)
