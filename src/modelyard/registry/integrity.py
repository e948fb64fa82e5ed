"""Checking stored bytes, and handing them out as a folder; damage is quarantined."""

import time
from pathlib import Path

from modelyard.core.errors import IntegrityError, InvalidRequest
from modelyard.core.refs import Ref
from modelyard.registry.manifest import FileEntry
from modelyard.registry.parallel import each
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.quarantine import Mark
from modelyard.registry.reading import hash_file, storage_error
from modelyard.registry.stores import Stores
from modelyard.registry.versions import ModelVersion


class Integrity:
    """Hashes what is stored."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def verify(self, ref: str | Ref, progress: Progress | None) -> None:
        """See `Registry.verify`."""
        with self._stores.in_use():
            version = self._stores.lookup.get(ref)
            tally = Tally(progress, version.size_bytes)

            def check(file: FileEntry) -> FileEntry | None:
                part = tally.part(file.path)
                return None if self._stores.blobs.verify(file.sha256, progress=part) else file

            damaged = [file for file in each(check, version.manifest.files, tally) if file]
            if damaged:
                raise self.found_damaged(version, damaged)
            refuse_quarantined(version)

    def load(self, ref: str | Ref, progress: Progress | None) -> Path:
        """See `Registry.load`."""
        with self._stores.in_use():
            return self._load(self._stores.lookup.get(ref), progress)

    def _load(self, version: ModelVersion, progress: Progress | None) -> Path:
        stores = self._stores
        refuse_quarantined(version)
        blobs = {file.sha256: stores.blobs.path(file.sha256) for file in version.manifest.files}
        missing = [file for file in version.manifest.files if not blobs[file.sha256].is_file()]
        if missing:
            raise self.found_damaged(version, missing)
        tally = Tally(progress, version.size_bytes)
        try:
            tree = stores.trees.complete(version.digest, version.manifest, blobs)

            def check(file: FileEntry) -> FileEntry | None:
                return None if self._whole_in(tree, file, tally.part(file.path)) else file

            damaged = [file for file in each(check, version.manifest.files, tally) if file]
        except OSError as error:
            raise storage_error(error, f"preparing {version}", stores.home.root) from error
        if damaged:
            raise self.found_damaged(version, damaged)
        return tree

    def _whole_in(self, tree: Path, file: FileEntry, progress: Progress) -> bool:
        """Hash what the engine will read; a spoilt copy of a whole blob is replaced."""
        target = tree / file.path
        try:
            if hash_file(target, lambda done: progress("", done, 0))[0] == file.sha256:
                return True
            blob = self._stores.blobs.path(file.sha256)
            if target.samefile(blob) or not self._stores.blobs.verify(file.sha256):
                return False
            self._stores.trees.replace(target, blob)
            return hash_file(target)[0] == file.sha256
        except InvalidRequest:  # a disk that fails to give bytes back has damaged them
            return False

    def found_damaged(self, version: ModelVersion, files: list[FileEntry]) -> IntegrityError:
        """Quarantine the blobs, and say so."""
        reasons = []
        for file in files:
            path = self._stores.blobs.path(file.sha256)
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                problem = "its stored bytes are missing"
            elif found != file.size_bytes:
                problem = f"it has {found} bytes, {file.size_bytes} were registered"
            else:
                problem = "its bytes are not those that were registered"
            reason = f"{file.path} of {version} ({version.digest}) is damaged: {problem}"
            reasons.append(reason)
            try:
                self._stores.quarantine.mark(
                    Mark(sha256=file.sha256, reason=reason, at=time.time())
                )
            except OSError as error:
                # The damage is the news; the next check finds it again.
                reasons.append(str(storage_error(error, "marking it", self._stores.home.root)))
        return _damage(version, reasons[0])


def refuse_quarantined(version: ModelVersion) -> None:
    """Raise IntegrityError with the reason when it is out of service."""
    if version.quarantined:
        raise _damage(version, version.quarantined)


def _damage(version: ModelVersion, reason: str) -> IntegrityError:
    return IntegrityError(
        reason,
        next_step=f"register the same folder as {version.name} again: that repairs it; "
        "nothing is served from it until then",
    )
