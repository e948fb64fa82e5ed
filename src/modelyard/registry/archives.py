"""A version as one file that carries its own proof: a tar file.

    modelyard.json      what it is: name, version, digest, lineage, metrics, signatures
    manifest.json       the canonical manifest; its SHA-256 is the digest
    files/PATH          the files, in the manifest's order

Every byte is hashed on its way out, and again on its way in, against the manifest.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from modelyard.core.errors import Conflict, IntegrityError, InvalidRequest
from modelyard.core.refs import check_name
from modelyard.registry.manifest import FileEntry, Manifest, canonical, check_paths, digest_of
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import storage_error
from modelyard.registry.source import IGNORED
from modelyard.registry.versions import ModelVersion, Recipe

ARCHIVE_FORMAT = 1
_ABOUT, _MANIFEST, _FILES = "modelyard.json", "manifest.json", "files/"
_SMALL_CAP_BYTES = 64 * 1024 * 1024


class ArchiveHead(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive says of itself; unknown fields of a later release are passed over."""

    format: int = ARCHIVE_FORMAT
    name: str
    version: int
    digest: str
    parent: str | None = None
    recipe: Recipe | None = None
    metrics: dict[str, float] = {}
    declared_licence: str | None = None
    source_commit: str | None = None
    signatures: dict[str, msgspec.Raw] = {}
    """Signature bundles by the id of their key; whether they hold is seen when they are needed."""


BlobPath = Callable[[str], Path]
"""From a SHA-256 to where the contents lie."""


class DamagedFile(Exception):
    """A stored file has not the bytes of the manifest; the argument is its entry."""


def write_archive(
    version: ModelVersion,
    signatures: Mapping[str, bytes],
    blob: BlobPath,
    target: Path,
    progress: Progress | None,
) -> None:
    """Write an archive, hashing what goes into it; `signatures` are bundles by key id.

    Raises Conflict (`target` is there), DamagedFile, StorageError; nothing is left then.
    """
    if target.exists():
        raise Conflict(f"{target} is there already", next_step="choose another name or remove it")
    partial = target.with_name(f"{target.name}.partial")
    head = ArchiveHead(
        name=version.name,
        version=version.version,
        digest=version.digest,
        parent=version.parent,
        recipe=version.recipe,
        metrics=version.metrics,
        declared_licence=version.declared_licence,
        source_commit=version.source_commit,
        signatures={key_id: msgspec.Raw(bundle) for key_id, bundle in signatures.items()},
    )
    tally = Tally(progress, version.size_bytes)
    try:
        with partial.open("wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
            _add_small(tar, _ABOUT, msgspec.json.encode(head))
            _add_small(tar, _MANIFEST, canonical(version.manifest))
            for file in version.manifest.files:
                _add_file(tar, f"{_FILES}{file.path}", blob(file.sha256), file, tally)
            tar.close()
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)
    except OSError as error:
        raise storage_error(error, f"writing {target.name}", target.parent) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def unpacked(archive: Path, folder: Path, progress: Progress | None) -> Iterator[ArchiveHead]:
    """Unpack into `folder`, every byte checked against the manifest; yield the head.

    `folder` is gone afterwards. Raises InvalidRequest when it is no archive of ours,
    IntegrityError naming the file when bytes are not those of its manifest, StorageError.
    """
    try:
        yield _unpack(archive, folder, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, folder: Path, progress: Progress | None) -> ArchiveHead:
    try:
        with tarfile.open(archive, mode="r:") as tar:
            members = iter(tar)
            head: ArchiveHead = _decode(_small(tar, members, _ABOUT), ArchiveHead, archive)
            data = _small(tar, members, _MANIFEST)
            manifest: Manifest = _decode(data, Manifest, archive)
            check_name(head.name)
            check_paths(file.path for file in manifest.files)
            if head.format != ARCHIVE_FORMAT or digest_of(data) != head.digest:
                raise IntegrityError(
                    f"the manifest in {archive} has not the digest that the archive names",
                    next_step="fetch the archive again; nothing was registered",
                )
            ignored = [file.path for file in manifest.files if IGNORED & set(file.path.split("/"))]
            if ignored:
                raise _foreign(archive, f"it holds {ignored[0]!r}, which no version has")
            _unpack_files(tar, members, manifest, folder, progress)
            return head
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"{archive} does not exist",
            next_step="give a file that `modelyard models export` wrote",
        ) from error
    except tarfile.TarError as error:
        raise _foreign(archive, str(error)) from error
    except OSError as error:
        raise storage_error(error, f"unpacking {archive.name}", folder) from error


def _unpack_files(
    tar: tarfile.TarFile,
    members: Iterator[tarfile.TarInfo],
    manifest: Manifest,
    folder: Path,
    progress: Progress | None,
) -> None:
    tally = Tally(progress, manifest.size_bytes)
    for file in manifest.files:
        member = next(members, None)
        named = member is not None and member.isreg() and member.name == f"{_FILES}{file.path}"
        source = tar.extractfile(member) if member is not None and named else None
        if source is None or member is None or member.size != file.size_bytes:
            raise _damaged_archive(tar, file.path)
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        sha256, done, report = hashlib.sha256(), 0, tally.part(file.path)
        with target.open("wb") as out:
            while chunk := source.read(CHUNK_BYTES):
                sha256.update(chunk)
                out.write(chunk)
                done += len(chunk)
                report("", done, 0)
        if sha256.hexdigest() != file.sha256:
            raise _damaged_archive(tar, file.path)


def _add_small(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: Path, file: FileEntry, tally: Tally) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = file.size_bytes, 0o644
    try:
        with _Hashed(path, tally.part(file.path)) as source:
            if path.stat().st_size != file.size_bytes:
                raise DamagedFile(file)
            tar.addfile(info, source)
            if source.sha256() != file.sha256:
                raise DamagedFile(file)
    except FileNotFoundError:
        raise DamagedFile(file) from None


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, path: Path, report: Progress) -> None:
        self._file: BinaryIO = path.open("rb")
        self._hash = hashlib.sha256()
        self._report = report
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self._done += len(data)
        self._report("", self._done, 0)
        return data

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()


def _small(tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo], name: str) -> bytes:
    member = next(members, None)
    if member is None or member.name != name or not member.isreg():
        raise _foreign(Path(str(tar.name)), f"it does not hold {name} where it belongs")
    if member.size > _SMALL_CAP_BYTES:
        raise _foreign(Path(str(tar.name)), f"its {name} claims {member.size} bytes")
    source = tar.extractfile(member)
    return source.read() if source is not None else b""


def _decode(data: bytes, kind: Any, archive: Path) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise _foreign(archive, str(error)) from error


def _foreign(archive: Path, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"{archive} is not an archive of a version: {problem}",
        next_step="give a file that `modelyard models export` wrote",
    )


def _damaged_archive(tar: tarfile.TarFile, path: str) -> IntegrityError:
    return IntegrityError(
        f"{path!r} in {str(tar.name)!r} is damaged: its bytes are not those of the manifest",
        next_step="fetch the archive again; nothing was registered",
    )
