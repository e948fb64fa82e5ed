"""The manifest: what a version consists of, and its digest, which names the version everywhere.

Only content is in it: paths, sizes and SHA-256 of the files. No name, time, source or user, and
no facts or lineage (they stand in the version record): the same files give the same digest,
whoever registers them, under any name, at any time and with any release of Modelyard.
docs/manifest.md specifies the canonical form.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelyard.core.errors import IntegrityError, InvalidRequest
from modelyard.core.refs import DIGEST_PREFIX
from modelyard.registry.staging import Staging, publish_bytes

MANIFEST_FORMAT = 1
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_MAX_PATH_BYTES = 1024
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""What most paths are, and what `check_path` never refuses."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One file: its path below the model's folder, with `/` between the parts."""

    path: str
    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files of one version, ordered by path."""

    files: tuple[FileEntry, ...]
    format: int = MANIFEST_FORMAT

    @property
    def size_bytes(self) -> int:
        """Sum of the files' sizes."""
        return sum(file.size_bytes for file in self.files)


def build_manifest(entries: Iterable[FileEntry]) -> Manifest:
    """Order the entries; raise InvalidRequest when two would be one file elsewhere."""
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    check_paths([entry.path for entry in ordered])
    return Manifest(files=ordered)


def canonical(manifest: Manifest) -> bytes:
    """Return the bytes that are hashed and stored: JSON, sorted keys, no whitespace, UTF-8."""
    return msgspec.json.encode(manifest, order="sorted")


def digest_of(data: bytes) -> str:
    """Return the digest of canonical bytes."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def check_paths(paths: Iterable[str]) -> None:
    """Raise InvalidRequest when a path is not allowed, or two collide on a file system that
    ignores case or normalises Unicode (then one of the two files would be lost there)."""
    seen: dict[str, str] = {}
    folders = {""}
    for path in paths:
        if not (_PLAIN.fullmatch(path) and len(path) <= _MAX_PATH_BYTES):
            check_path(path)
        prefix = path
        while True:
            other = seen.setdefault(_folded(prefix), prefix)
            if other != prefix:
                raise InvalidRequest(
                    f"{other!r} and {prefix!r} differ only in case or Unicode form",
                    next_step="rename one of them",
                )
            # Folders collide as files do: `A/x` and `a/y` share one folder there.
            prefix = prefix.rpartition("/")[0]
            if prefix in folders:
                break
            folders.add(prefix)


def check_path(path: str) -> str:
    """Return `path`; raise InvalidRequest unless it is relative, clean and printable."""
    parts = path.split("/")
    clean = not any(part in ("", ".", "..") for part in parts)
    printable = not _FORBIDDEN.search(path)
    try:
        short = len(path.encode()) <= _MAX_PATH_BYTES
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the file name {path!r} is not UTF-8", next_step="rename the file"
        ) from None
    if not (clean and printable and short):
        raise InvalidRequest(
            f"the file name {path!r} is not allowed",
            next_step="rename it: no '..', control characters or backslashes, "
            f"at most {_MAX_PATH_BYTES} bytes",
        )
    return path


class ManifestStore:
    """Canonical manifests by digest, each in its own read-only file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def path(self, digest: str) -> Path:
        """Where the manifest lies."""
        return self._folder / f"{digest.removeprefix(DIGEST_PREFIX)}.json"

    def put(self, manifest: Manifest) -> str:
        """Store it, replacing a damaged one; return its digest. Raises OSError."""
        data = canonical(manifest)
        digest = digest_of(data)
        target = self.path(digest)
        if not target.is_file() or target.read_bytes() != data:
            self._staging.sweep()
            publish_bytes(self._staging, target, data)
        return digest

    def get(self, digest: str) -> Manifest:
        """Read a manifest; raises IntegrityError when its bytes don't have its digest."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
            if digest_of(data) != digest:
                raise msgspec.ValidationError("its bytes don't have its digest")
            manifest = msgspec.json.decode(data, type=Manifest)
            check_paths(file.path for file in manifest.files)
        except (OSError, msgspec.DecodeError, InvalidRequest) as error:
            raise IntegrityError(
                f"the manifest {path} is damaged: {error}",
                next_step="register the same folder again; that restores it",
            ) from error
        return manifest


def _folded(path: str) -> str:
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
