"""Forms: derived once, kept as blobs with their provenance, verified at every launch.

HOME/forms/DIGEST.gguf.json says what a form was made from and by what, and which blob it is.
HOME/forms/DIGEST.gguf.lock is held while one is made, so that two processes make it once.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidRequest, Unsupported
from modelyard.core.facts import Format
from modelyard.forms.architectures import CONVERTER_OF_LLAMA_CPP
from modelyard.forms.conversion import CONVERTER, CONVERTER_VERSION, convert
from modelyard.registry.progress import Progress
from modelyard.registry.reading import storage_error
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a form comes from."""

    source_digest: str
    form: Format
    converter: str
    converter_version: int
    options: dict[str, str] = {}
    blob_sha256: str
    size_bytes: int
    created_at: float
    """Unix seconds."""


class Forms:
    """The forms of the versions in one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._folder = registry.home.forms

    def prepare(
        self, version: ModelVersion, form: Format, *, progress: Progress | None = None
    ) -> Path:
        """A folder (safetensors) or file (GGUF) in that form, every byte of it hashed just now.

        The version's own bytes are hashed too, also where its form is there already: a version
        that is damaged is not started (promise R6). Safe across processes.
        Raises IntegrityError (a damaged file), Unsupported, InvalidRequest, StorageError.
        """
        with self._registry.in_use():
            return self._prepare(version, form, progress)

    def _prepare(self, version: ModelVersion, form: Format, progress: Progress | None) -> Path:
        source = self._registry.load(f"{version.name}:{version.version}", progress=progress)
        if version.facts.format == form:
            return _first_gguf(source) if form == "gguf" else source
        if form != "gguf":
            raise Unsupported(
                f"{version.name}:{version.version} is {version.facts.format}, "
                f"which can't be converted to {form}",
                next_step="register the model in that format, or choose another engine",
            )
        with self._lock(version.digest, form):
            kept = self._kept(version.digest, form)
            if kept is None or not self._registry.blobs.verify(kept.blob_sha256, progress=progress):
                kept = self._make(version.digest, source, progress)
            return self._registry.blobs.path(kept.blob_sha256)

    def _kept(self, digest: str, form: Format) -> Provenance | None:
        """What is known of the form; None when it was never made, or by another converter."""
        try:
            kept = msgspec.json.decode(
                self._path(digest, form, "json").read_bytes(), type=Provenance
            )
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        made_by = (kept.source_digest, kept.converter, kept.converter_version)
        return kept if made_by == (digest, CONVERTER, CONVERTER_VERSION) else None

    def _make(self, digest: str, source: Path, progress: Progress | None) -> Provenance:
        half = self._path(digest, "gguf", "half")
        try:
            convert(source, half, name=digest, progress=progress)
            blob = self._registry.blobs.put(half, progress=progress)
            made = Provenance(
                source_digest=digest,
                form="gguf",
                converter=CONVERTER,
                converter_version=CONVERTER_VERSION,
                blob_sha256=blob.sha256,
                size_bytes=blob.size_bytes,
                created_at=time.time(),
            )
            half.write_bytes(msgspec.json.format(msgspec.json.encode(made)) + b"\n")
            half.replace(self._path(digest, "gguf", "json"))
        except OSError as error:
            # numpy gives no number when a write comes back short, which is what a full disk does.
            full = OSError(errno.ENOSPC, "short write") if error.errno is None else error
            raise storage_error(full, "converting to GGUF", self._folder) from error
        finally:
            half.unlink(missing_ok=True)
        return made

    @contextmanager
    def _lock(self, digest: str, form: Format) -> Iterator[None]:
        """Held by one thread of one process; the kernel lets go of it when that dies."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path(digest, form, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, "keeping forms", self._folder) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _path(self, digest: str, form: Format, ending: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.{form}.{ending}"


def _first_gguf(folder: Path) -> Path:
    """The file an engine is given: the only one, or the first part of several."""
    files = sorted(folder.rglob("*.gguf"))
    if not files:
        raise InvalidRequest("the version holds no GGUF file", next_step=CONVERTER_OF_LLAMA_CPP)
    return files[0]
