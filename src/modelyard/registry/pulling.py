"""A version's files copied out to a folder of the user's, hashed on the way."""

import os
from collections.abc import Callable
from pathlib import Path

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry.archives import BlobPath, DamagedFile
from modelyard.registry.manifest import Manifest
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import OpenFile, hash_file, storage_error, stream
from modelyard.registry.versions import ModelVersion


def pull(version: ModelVersion, blob: BlobPath, folder: Path, progress: Progress | None) -> Path:
    """Copy a version's files to `folder`, which must not be there or be empty.

    What an interrupted call left in `FOLDER.partial` is hashed and continued. Raises Conflict,
    DamagedFile, StorageError.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise Conflict(
            f"{folder} is there already", next_step="choose a folder that is not there or is empty"
        )
    partial = folder.with_name(f"{folder.name}.partial")
    tally = Tally(progress, version.size_bytes)
    try:
        for file in version.manifest.files:
            target = partial / file.path
            report = tally.part(file.path)
            advance = lambda done, report=report: report("", done, 0)  # noqa: E731
            if _is_whole(target, file.sha256, advance):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(blob(file.sha256), target, advance) != file.sha256:
                target.unlink()
                raise DamagedFile(file)
        _remove_others(partial, version.manifest)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise storage_error(error, f"copying {version}", folder.parent) from error
    return folder


def _is_whole(target: Path, sha256: str, report: Callable[[int], None]) -> bool:
    return target.is_file() and not target.is_symlink() and hash_file(target, report)[0] == sha256


def _copy(source: Path, target: Path, report: Callable[[int], None]) -> str:
    """Copy and hash in one read; return the SHA-256 of what was written."""
    try:
        with OpenFile(source) as opened, target.open("wb") as out:

            def write(view: memoryview) -> None:
                out.write(view)

            sha256, _ = stream(opened, write, report)
            out.flush()
            os.fsync(out.fileno())
            return sha256
    except InvalidRequest:  # the stored file is missing or can't be read back: damaged
        target.touch()
        return ""


def _remove_others(folder: Path, manifest: Manifest) -> None:
    """What an older, other version left in the partial folder."""
    wanted = {file.path for file in manifest.files}
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
