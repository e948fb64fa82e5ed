"""Models from a Hugging Face hub: `hf://org/model[@revision][/FILE]`.

    DOWNLOADS/ORG--MODEL/COMMIT/parts/…     what is being fetched
    DOWNLOADS/ORG--MODEL/COMMIT/files/…     what is whole

Revision, listing, tokens, endpoint and sessions are `huggingface_hub`'s; the bytes are fetched
here, because that library begins an interrupted file anew. What was fetched is removed when it is
registered; what an interruption leaves stays for the next attempt.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from modelyard.core.errors import Forbidden, InvalidRequest, NotFound, StorageError, Unavailable
from modelyard.registry.fetching import HubFile, Opener, fetch
from modelyard.registry.manifest import check_paths
from modelyard.registry.parallel import each
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import storage_error
from modelyard.registry.source import IGNORED, PICKLE_SUFFIXES, WEIGHT_SUFFIXES
from modelyard.registry.staging import locked, make_folder

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+?)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/\s]+))?(?:/(?P<file>\S.*))?",
    re.ASCII,
)
_OTHER_FRAMEWORKS = frozenset({".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".mlmodel"})
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_READ_ONLY = 0o444
_LOCK = ".lock"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What `hf://…` names."""

    repository: str
    revision: str = "main"
    """Branch, tag or commit."""
    file: str = ""
    """One file of it; empty: all that belong to the model."""

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{SCHEME}{self.repository}@{self.revision}{file}"


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A model that lies here now."""

    path: Path
    """A folder, or one file; read-only."""
    source: str
    """The address, with its revision."""
    commit: str
    """What the revision meant."""
    left_out: tuple[str, ...]
    """Files of the repository that no engine of ours reads."""


def parse_address(text: str) -> Address:
    """Raises InvalidRequest; a `/` within a branch's name is written %2F."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"{text!r} is no address of a model on a hub",
            next_step="write hf://ORG/MODEL, hf://ORG/MODEL@REVISION or "
            "hf://ORG/MODEL@REVISION/FILE.gguf",
        )
    return Address(
        repository=found["repository"],
        revision=(found["revision"] or "main").replace("%2F", "/"),
        file=found["file"] or "",
    )


class Hub:
    """Fetches models through `huggingface_hub`, which is imported at the first use."""

    def __init__(self, downloads: Path, *, pause_s: float = 1.0) -> None:
        """`pause_s`: after a failed attempt; it doubles with each that follows without a byte."""
        self._downloads = downloads
        self._pause_s = pause_s

    @contextmanager
    def fetched(self, address: str, progress: Progress | None) -> Iterator[Fetched]:
        """Fetch a model; what lies here is removed when the block ends without an exception.

        Raises InvalidRequest, NotFound, Forbidden (a gated model), Unavailable (the hub, or
        `huggingface_hub`), IntegrityError (bytes are not the hub's), StorageError.
        """
        where = parse_address(address)
        session = _Session(where, self._pause_s)
        commit, listed = session.list()
        files = select(where, listed)
        folder = self._downloads / where.repository.replace("/", "--") / commit
        try:
            with locked(folder.parent / _LOCK):
                self._fetch_all(session, folder, files, progress)
                others = {file.path for file in listed} - {file.path for file in files}
                yield Fetched(
                    path=folder / "files" / where.file,
                    source=str(where),
                    commit=commit,
                    left_out=() if where.file else tuple(sorted(others)),
                )
                shutil.rmtree(folder)
        except OSError as error:
            raise storage_error(error, f"fetching {where}", self._downloads) from error

    def _fetch_all(
        self, session: "_Session", folder: Path, files: Sequence[HubFile], progress: Progress | None
    ) -> None:
        make_folder(folder)
        tally = Tally(progress, sum(file.size_bytes for file in files))
        missing = [file for file in files if not _is_here(folder, file)]
        for file in files:
            if file not in missing:
                tally.part(file.path)(file.path, file.size_bytes, file.size_bytes)
        self._check_space(folder, missing)

        def bring(file: HubFile) -> None:
            part = _part(folder, file)
            make_folder(part.parent)
            fetch(file, part, session.opener(file), tally.part(file.path))
            part.chmod(_READ_ONLY)
            target = folder / "files" / file.path
            make_folder(target.parent)
            part.replace(target)

        each(bring, missing, tally)

    def _check_space(self, folder: Path, missing: Sequence[HubFile]) -> None:
        parts = [_part(folder, file) for file in missing]
        here = sum(part.stat().st_size for part in parts if part.exists())
        needed = sum(file.size_bytes for file in missing) - here
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise StorageError(
                f"fetching needs {needed / 1e9:.1f} GB and the disk of {self._downloads} has "
                f"{free / 1e9:.1f} GB free",
                next_step="free some space there or choose another --home",
            )


def select(address: Address, listed: Sequence[HubFile]) -> list[HubFile]:
    """The files that belong to the model: no pickles, no other frameworks' weights.

    Raises NotFound (no such file), InvalidRequest (nothing to serve, or more than one model).
    """
    check_paths(file.path for file in listed)
    if address.file:
        if not address.file.endswith(".gguf"):
            raise InvalidRequest(
                f"{address.file!r} is one file of a model",
                next_step=f"leave it out: {SCHEME}{address.repository}@{address.revision}; only a "
                ".gguf file is a model by itself",
            )
        named = [file for file in listed if file.path == address.file]
        if not named:
            ggufs = [file.path for file in listed if file.path.endswith(".gguf")]
            raise NotFound(
                f"there is no file {address.file!r} in {address.repository}",
                next_step=f"it has {', '.join(ggufs[:8])}" if ggufs else "see its page on the hub",
            )
        return named
    files = [file for file in listed if _belongs(file.path)]
    top = [file.path for file in files if "/" not in file.path]
    if not any(path.endswith(WEIGHT_SUFFIXES) for path in top):
        pickles = [file.path for file in listed if Path(file.path).suffix in PICKLE_SUFFIXES]
        holds = f"only {pickles[0]} and the like, which can hold pickles" if pickles else "none"
        raise InvalidRequest(
            f"{address} has no weights in safetensors or GGUF ({holds})",
            next_step="choose a revision or a model that has them",
        )
    ggufs = [path for path in top if path.endswith(".gguf")]
    if len(ggufs) > 1 and not any(path.endswith(".safetensors") for path in top):
        raise InvalidRequest(
            f"{address} holds {len(ggufs)} models: {', '.join(ggufs[:8])}",
            next_step=f"name one: {address}/{ggufs[0]}",
        )
    return files


def abandoned(downloads: Path) -> list[Path]:
    """What interrupted fetches left and nobody goes on with at this moment."""
    return [
        folder
        for lock in sorted(downloads.glob(f"*--*/{_LOCK}"))
        if _is_free(lock)
        for folder in sorted(lock.parent.iterdir())
        if folder.is_dir()
    ]


def remove_abandoned(folder: Path) -> None:
    """Remove one of them, unless somebody goes on with it by now; raises OSError."""
    with (folder.parent / _LOCK).open("rb") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


def _is_free(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class _Session:
    """One model on the hub, as `huggingface_hub` shows it."""

    def __init__(self, address: Address, pause_s: float) -> None:
        self._address = address
        self._pause_s = pause_s
        self._library = _library()
        self._endpoint = self._library.constants.ENDPOINT
        self._commit = ""

    def list(self) -> tuple[str, list[HubFile]]:
        """The commit and its files, without those that no registration takes."""
        where = self._address
        api = self._library.HfApi(endpoint=self._endpoint, library_name="modelyard")
        with self._told():
            info = api.model_info(where.repository, revision=where.revision)
            self._commit = _commit(info.sha)
            entries = api.list_repo_tree(where.repository, recursive=True, revision=self._commit)
            files = [_hub_file(entry) for entry in entries if hasattr(entry, "blob_id")]
        return self._commit, [
            file for file in files if not IGNORED.intersection(file.path.split("/"))
        ]

    def opener(self, file: HubFile) -> Opener:
        """How to read `file` from a byte on."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = self._library.hf_hub_url(
            self._address.repository, file.path, revision=self._commit, endpoint=self._endpoint
        )

        @contextmanager
        def open_at(first: int, last: int) -> Iterator[Any]:
            headers = build_hf_headers(library_name="modelyard")
            headers |= {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
            timeout = self._library.constants.HF_HUB_DOWNLOAD_TIMEOUT
            with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
                hf_raise_for_status(answer)
                yield answer

        return Opener(open=open_at, told=self._told, pause_s=self._pause_s)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in our words what the hub or the network refused; never what was sent there."""
        import httpx2
        from huggingface_hub import errors

        name, hub = self._address.repository, self._endpoint
        try:
            yield
        except errors.GatedRepoError as error:
            raise Forbidden(
                f"{name} is gated: its owner lets in only those who asked",
                next_step=f"ask at {hub}/{name}, then log in with: hf auth login",
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise NotFound(
                f"there is no model {name} on {hub}, or it is private",
                next_step="check the name; for a private one log in with: hf auth login",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise NotFound(
                f"{name} has no revision {self._address.revision!r}",
                next_step=f"see {hub}/{name}/commits/main, or leave the revision out",
            ) from error
        except errors.HFValidationError as error:
            raise InvalidRequest(
                f"{name!r} can't name a model on a hub", next_step="write hf://ORG/MODEL@REVISION"
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise Forbidden(
                    f"{hub} answered {status} for {name}", next_step="log in with: hf auth login"
                ) from error
            raise Unavailable(
                f"{hub} answered {status} for {name}",
                next_step="run the same command again later: it goes on where it stopped",
            ) from error
        except (httpx2.HTTPError, errors.OfflineModeIsEnabled) as error:
            what = " ".join(str(error).split())[:160] or type(error).__name__
            raise Unavailable(
                f"can't reach the hub {hub}: {what}",
                next_step="check the network and HF_ENDPOINT, HF_HUB_OFFLINE; then run the same "
                "command again: it goes on where it stopped",
            ) from error


def _library() -> ModuleType:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise Unavailable(
            "models from a hub need the package huggingface_hub, which is not installed",
            next_step="pip install 'modelyard[hub]'",
        ) from error
    return huggingface_hub


def _commit(sha: object) -> str:
    if not isinstance(sha, str) or not _HASH.fullmatch(sha):
        raise Unavailable(
            "the hub did not say which commit the revision means", next_step="try again later"
        )
    return sha


def _hub_file(entry: Any) -> HubFile:
    sha256 = entry.lfs.sha256 if entry.lfs is not None else ""
    file = HubFile(path=entry.path, size_bytes=entry.size, sha256=sha256, git_id=entry.blob_id)
    if not _HASH.fullmatch(file.content_id) or file.size_bytes < 0:
        raise Unavailable(
            f"the hub lists {file.path!r} without its size or hash", next_step="try again later"
        )
    return file


def _belongs(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    return suffix not in PICKLE_SUFFIXES and suffix not in _OTHER_FRAMEWORKS


def _is_here(folder: Path, file: HubFile) -> bool:
    target = folder / "files" / file.path
    return target.is_file() and target.stat().st_size == file.size_bytes


def _part(folder: Path, file: HubFile) -> Path:
    name = hashlib.sha256(f"{file.content_id} {file.path}".encode()).hexdigest()
    return folder / "parts" / name
