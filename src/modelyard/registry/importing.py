"""Taking over what MLflow holds: `runs:/ID/PATH` or `models:/NAME/3` → a version.

Only the model is fetched: the one folder with safetensors or the one GGUF file, a tokenizer that
MLflow's transformers flavour keeps beside it, and the run's metrics. Files that came whole before
an interruption are not fetched again.
"""

import errno
import fcntl
import hashlib
import math
import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import InvalidRequest, ModelyardError, NotFound
from modelyard.core.refs import check_name
from modelyard.registry.catalogue import away, one_line, quiet_mlflow, shown_uri
from modelyard.registry.catalogue_database import SQLITE
from modelyard.registry.manifest import check_path
from modelyard.registry.origin import Origin
from modelyard.registry.progress import Progress
from modelyard.registry.reading import storage_error
from modelyard.registry.registration import Registrar, Registration
from modelyard.registry.staging import locked, make_folder
from modelyard.registry.stores import Stores

IMPORTS = "mlflow-"
"""How the folders of imports under way begin."""
_WEIGHTS = (".safetensors", ".gguf")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_TOKENIZER = "components/tokenizer"
# MLflow's own files about a model say when and where it was logged: not what the model is.
_ABOUT = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"}
_MAX_FILES = 100_000
_MAX_DEPTH = 32


class _Found(msgspec.Struct, frozen=True):
    """What an address stands for."""

    root: str
    """Where MLflow stores its files."""
    run_id: str | None
    pinned: str
    """The address with a version instead of an alias."""


class _Artifact(msgspec.Struct, frozen=True):
    """One stored file."""

    path: str
    size_bytes: int | None


class Importer:
    """Fetches models out of MLflow and registers them."""

    def __init__(self, stores: Stores, registrar: Registrar, tracking_uri: str) -> None:
        self._stores = stores
        self._registrar = registrar
        self._tracking_uri = tracking_uri

    def run(
        self, address: str, name: str | None, tracking_uri: str | None, progress: Progress | None
    ) -> Registration:
        """See `Registry.import_mlflow`."""
        uri = tracking_uri or self._tracking_uri
        named = _name_in(address)
        if not (name or named):
            raise InvalidRequest(
                f"{address} names no model", next_step="say what to call it here: --name NAME"
            )
        name = check_name(name or named)
        _check_there(uri)
        downloads = self._stores.home.downloads
        key = hashlib.sha256(f"{uri} {address}".encode()).hexdigest()[:32]
        folder, lock = downloads / f"{IMPORTS}{key}", downloads / f"{IMPORTS}{key}.lock"
        try:
            with locked(lock):
                make_folder(folder)
                with quiet_mlflow():
                    origin = _Source(uri).fetch(address, folder, progress)
                model = _single_file(folder) or folder
                link = folder.stat().st_dev == _disk_of(self._stores.home.blobs)
                done = self._registrar.register(name, model, progress, link=link, origin=origin)
                shutil.rmtree(folder)
                lock.unlink()
                return done
        except OSError as error:
            raise storage_error(error, f"importing {address}", self._stores.home.root) from error


class _Source:
    """One MLflow, by its tracking URI."""

    def __init__(self, uri: str) -> None:
        if "://" not in uri or uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        self._uri = uri
        self._client: Any = MlflowClient(uri, uri)

    def fetch(self, address: str, folder: Path, progress: Progress | None) -> Origin:
        """Bring the model's files into `folder`; return what is known of it otherwise."""
        try:
            found = self._resolve(address)
            repository = self._repository(found.root)
            files = _choose(address, list(_walk(repository)))
            self._download(repository, files, folder, progress)
            metrics = {}
            if found.run_id is not None:
                metrics = dict(self._client.get_run(found.run_id).data.metrics)
        except ModelyardError:
            raise
        except Exception as error:  # MLflow and its stores raise anything
            raise _failed(error, address, self._uri) from error
        return Origin(
            metrics={key: value for key, value in metrics.items() if math.isfinite(value)},
            source=f"{found.pinned} at {shown_uri(self._uri)}",
        )

    def _resolve(self, address: str) -> _Found:
        scheme, _, rest = address.partition(":/")
        first, _, path = rest.lstrip("/").partition("/")
        if scheme == "runs":
            run = self._client.get_run(first)
            return _Found(self._run_root(run, path), first, address)
        if first.startswith("m-") and not path:
            model = self._client.get_logged_model(first)
            return _Found(model.artifact_location, model.source_run_id, address)
        name, at, alias = first.partition("@")
        if at:
            number = self._client.get_model_version_by_alias(name, alias).version
        else:
            number, _, path = path.partition("/")
        version = self._client.get_model_version(name, str(number))
        root = self._client.get_model_version_download_uri(name, str(number))
        if root.startswith("modelyard:"):
            raise InvalidRequest(
                f"{address} is Modelyard's own: MLflow holds no files of it",
                next_step="use it under the same name; from another home, "
                "modelyard models export there and import here",
            )
        run_id = version.run_id or None
        if root.startswith(("runs:/", "models:/")):
            inner = self._resolve(root)
            root, run_id = inner.root, run_id or inner.run_id
        root = posixpath.join(root, path) if path else root
        return _Found(root, run_id, "/".join(filter(None, (f"models:/{name}/{number}", path))))

    def _run_root(self, run: Any, path: str) -> str:
        """Where the files of a run lie; MLflow 3 keeps its logged models elsewhere."""
        root = posixpath.join(run.info.artifact_uri, path) if path else run.info.artifact_uri
        logged, _, below = path.partition("/")
        if not logged or self._repository(root).list_artifacts():
            return str(root)
        models = self._client.search_logged_models(
            [run.info.experiment_id], filter_string=f"name = '{logged}'"
        )
        for model in models:
            if model.source_run_id == run.info.run_id:
                return posixpath.join(model.artifact_location, below).rstrip("/")
        return str(root)

    def _repository(self, root: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(root, tracking_uri=self._uri, registry_uri=self._uri)

    def _download(
        self,
        repository: Any,
        files: dict[str, _Artifact],
        folder: Path,
        progress: Progress | None,
    ) -> None:
        total = sum(file.size_bytes or 0 for file in files.values())
        done = 0
        arriving = folder.with_suffix(".part")
        make_folder(arriving)
        try:
            for target, file in files.items():
                whole = folder / target
                if not whole.is_file() or whole.stat().st_size != file.size_bytes:
                    make_folder(whole.parent)
                    Path(repository.download_artifacts(file.path, str(arriving))).replace(whole)
                whole.chmod(0o444)  # so that it can be linked into the store
                done += file.size_bytes or 0
                if progress is not None:
                    progress(target, done, total)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        for left in [path for path in folder.rglob("*") if path.is_file()]:
            if left.relative_to(folder).as_posix() not in files:
                left.unlink()  # of another attempt, before the source changed


def _walk(repository: Any) -> Iterator[_Artifact]:
    """Every file below the root; paths are the server's word and checked."""
    folders: list[tuple[str | None, int]] = [(None, 0)]
    count = 0
    while folders:
        folder, depth = folders.pop()
        for entry in repository.list_artifacts(folder):
            check_path(entry.path)
            count += 1
            if count > _MAX_FILES or depth > _MAX_DEPTH:
                raise InvalidRequest(
                    f"over {_MAX_FILES} files or {_MAX_DEPTH} folders deep",
                    next_step="name the model's own folder",
                )
            if entry.is_dir:
                folders.append((entry.path, depth + 1))
            else:
                yield _Artifact(entry.path, entry.file_size)


def _choose(address: str, files: list[_Artifact]) -> dict[str, _Artifact]:
    """The model's files by their path in it."""
    by_path = {file.path: file for file in files}
    folders = sorted({posixpath.dirname(p) for p in by_path if p.endswith(_WEIGHTS)})
    tops = [f for f in folders if not any(f != g and _below(f, g) for g in folders)]
    if len(tops) != 1:
        raise _not_one(address, tops, by_path)
    (top,) = tops
    own = {posixpath.relpath(path, top or "."): path for path in by_path if _below(path, top)}
    if "MLmodel" in own:
        own = {inner: path for inner, path in own.items() if inner not in _ABOUT}
    beside = posixpath.join(posixpath.dirname(top), _TOKENIZER)
    for path in by_path:
        if _below(path, beside):
            own.setdefault(posixpath.relpath(path, beside), path)
    ggufs = [inner for inner in own if inner.endswith(".gguf") and "/" not in inner]
    if len(ggufs) > 1:
        raise _not_one(address, [own[inner] for inner in sorted(ggufs)], by_path)
    return {inner: by_path[path] for inner, path in sorted(own.items())}


def _below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _not_one(address: str, tops: list[str], by_path: dict[str, _Artifact]) -> InvalidRequest:
    if not by_path:
        return InvalidRequest(
            f"{address} holds no files", next_step="look at its artifacts in MLflow's UI"
        )
    if tops:
        return InvalidRequest(
            f"{address} holds several models: {', '.join(tops[:8])}",
            next_step=f"name the one that is meant, as {address.rstrip('/')}/{tops[0]}",
        )
    pickles = sorted(path for path in by_path if path.endswith(_PICKLES))
    reason = f"; {pickles[0]} can hold a pickle, which is refused" if pickles else ""
    return InvalidRequest(
        f"{address} holds no safetensors or GGUF{reason}",
        next_step="log the weights as safetensors (save_pretrained does), or name the folder "
        "that holds them",
    )


def _single_file(folder: Path) -> Path | None:
    """The file itself, where a model is one."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].suffix == ".gguf" else None


def abandoned_imports(downloads: Path) -> list[Path]:
    """What interrupted imports left and nobody goes on with at this moment."""
    found = []
    for folder in sorted(downloads.glob(f"{IMPORTS}*")):
        if folder.is_dir():
            with _nobody_at(folder) as free:
                found += [folder] if free else []
    return found


def remove_import(folder: Path) -> None:
    """Remove one of them, unless somebody goes on with it by now; raises OSError."""
    with _nobody_at(folder) as free:
        if free:
            shutil.rmtree(folder)


@contextmanager
def _nobody_at(folder: Path) -> Iterator[bool]:
    """Whether no import works there; none begins to meanwhile."""
    key = folder.name.partition(".")[0]  # one lock for the folder and its `.part`
    with folder.with_name(f"{key}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _disk_of(path: Path) -> int:
    return path.stat().st_dev if path.exists() else _disk_of(path.parent)


def _name_in(address: str) -> str:
    """The registered name in an address, empty where it has none; InvalidRequest for no address."""
    scheme, _, rest = address.partition(":/")
    first, _, path = rest.lstrip("/").partition("/")
    name, at, alias = first.partition("@")
    logged = name.startswith("m-") and not path and not at
    known = scheme in {"runs", "models"} and bool(first)
    if not known or (scheme == "models" and not logged and not (alias or path)):
        raise InvalidRequest(
            f"{address!r} is no address of a model in MLflow",
            next_step="write runs:/RUN_ID/PATH, models:/NAME/3 or models:/NAME@ALIAS",
        )
    return "" if scheme == "runs" or logged else name


def _check_there(uri: str) -> None:
    """Refuse a local store that is not there: MLflow would make an empty one."""
    local = uri.removeprefix(SQLITE) if uri.startswith(SQLITE) else uri.removeprefix("file://")
    if (uri.startswith((SQLITE, "file:")) or "://" not in uri) and not Path(local).exists():
        raise NotFound(
            f"no MLflow store at {shown_uri(uri)}",
            next_step="name a tracking server or store that is there: --from URI",
        )


def _failed(error: Exception, address: str, uri: str) -> ModelyardError:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for each in chain:
        if isinstance(each, OSError) and each.errno in {errno.ENOSPC, errno.EDQUOT}:
            return storage_error(each, f"importing {address}", Path(uri))
    if getattr(error, "error_code", "") in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
        return NotFound(
            f"{address} is not in the MLflow at {shown_uri(uri)}: {one_line(error)}",
            next_step="look its name, version, alias or run id up in MLflow's UI",
        )
    return away(shown_uri(uri), error)
