"""The registry: what a program and the command line use.

Publishing goes blobs → manifest → version record → catalogue. A version exists from the moment
its record is linked into place, and everything it needs lies there by then: a kill at any moment
leaves either the whole version or none. What was stored before the kill is reused.
"""

import getpass
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import msgspec

from modelyard.core.errors import IntegrityError, InvalidRequest, ModelyardError
from modelyard.core.home import Home
from modelyard.core.refs import Ref, check_alias, check_name
from modelyard.registry.aliases import AliasJournal, AliasMove
from modelyard.registry.blobs import BlobStore, LocalBlobStore
from modelyard.registry.catalogue import Catalogue
from modelyard.registry.facts import read_facts
from modelyard.registry.lookup import Lookup
from modelyard.registry.manifest import FileEntry, ManifestStore, build_manifest
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.quarantine import Mark, Quarantine
from modelyard.registry.reading import hash_file, storage_error
from modelyard.registry.source import SourceFile, scan
from modelyard.registry.staging import locked
from modelyard.registry.trees import Trees
from modelyard.registry.versions import ModelVersion, VersionRecord, VersionStore

_MAX_WORKERS = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What `register` did."""

    version: ModelVersion
    created: bool
    """False: this name had the same content already, as `version`."""
    warnings: tuple[str, ...] = ()
    """What went wrong without harm to the version, such as a catalogue that is away."""


class Registry:
    """Verified, immutable, deduplicated model versions under one home.

    Safe to use from several threads and processes at once.
    """

    def __init__(
        self, home: Home | Path | str | None = None, *, tracking_uri: str | None = None
    ) -> None:
        """`home`: None is the user's data folder, or MODELYARD_HOME. Nothing is touched yet.

        `tracking_uri`: of the MLflow catalogue; None is SQLite in the home.
        """
        root = home.root if isinstance(home, Home) else _folder(home)
        self.home = Home(root.absolute())
        self.blobs: BlobStore = LocalBlobStore(self.home.blobs)
        self._manifests = ManifestStore(self.home.manifests)
        self._records = VersionStore(self.home.versions)
        self._aliases = AliasJournal(self.home.alias_journal)
        self._quarantine = Quarantine(self.home.quarantine)
        self._trees = Trees(self.home.trees)
        self._catalogue = Catalogue(tracking_uri or f"sqlite:///{self.home.catalogue}")
        self._lookup = Lookup(self._records, self._manifests, self._aliases, self._quarantine)

    def get(self, ref: str | Ref) -> ModelVersion:
        """Look a version up; `name` alone is the newest. No network, no MLflow.

        Raises NotFound naming those that exist, InvalidRequest, IntegrityError.
        """
        return self._lookup.get(ref)

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, or those of one name, by name and number."""
        return self._lookup.versions(name)

    def register(
        self, name: str, path: Path | str, *, progress: Progress | None = None
    ) -> Registration:
        """Copy a folder (or one GGUF file) into the registry as the next version of `name`.

        The same content again, under the same name, is no new version; it repairs damaged blobs.
        Raises InvalidRequest (what is wrong with the files), Conflict (they changed meanwhile),
        StorageError (disk full, not permitted); nothing is registered then.
        """
        check_name(name)
        files = scan(Path(path))
        # Refuse early what is damaged; the facts that count are those of the stored bytes.
        read_facts({file.path: file.location for file in files})
        try:
            manifest = build_manifest(self._store(files, progress))
            facts = read_facts({file.path: self.blobs.path(file.sha256) for file in manifest.files})
            digest = self._manifests.put(manifest)
            for file in manifest.files:
                self._quarantine.lift(file.sha256)
            warnings: list[str] = []
            known = self._records.find(name, digest)
            if known is None:
                self._records.mark_unmirrored(name)
                record = VersionRecord(
                    name=name,
                    version=self._first_free_in_catalogue(name, warnings),
                    digest=digest,
                    created_at=time.time(),
                    actor=_actor(),
                    source=os.fsencode(path).decode(errors="replace"),
                    facts=facts,
                )
                record, created = self._records.add(record)
            else:
                record, created = known, False
        except OSError as error:
            raise storage_error(error, f"registering {name}", self.home.root) from error
        if not warnings:  # a server that did not answer a moment ago is not waited for twice
            self._catch_up(warnings)
        return Registration(
            version=self._lookup.view(record),
            created=created,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def verify(self, ref: str | Ref, *, progress: Progress | None = None) -> None:
        """Hash every stored byte of a version.

        Raises IntegrityError naming the first damaged file; the version, and every other one with
        the same bytes, is quarantined then.
        """
        version = self.get(ref)
        tally = Tally(progress, version.size_bytes)

        def check(file: FileEntry) -> FileEntry | None:
            part = tally.part(file.path)
            return None if self.blobs.verify(file.sha256, progress=part) else file

        damaged = [file for file in _each(check, version.manifest.files, tally) if file]
        if damaged:
            raise self._found_damaged(version, damaged)
        self._refuse_quarantined(version)

    def load(self, ref: str | Ref, *, progress: Progress | None = None) -> Path:
        """Return a read-only folder with the version's files, every byte hashed by this call.

        Raises IntegrityError as `verify` does, and for a version that is quarantined; StorageError.
        """
        version = self.get(ref)
        self._refuse_quarantined(version)
        blobs = {file.sha256: self.blobs.path(file.sha256) for file in version.manifest.files}
        missing = [file for file in version.manifest.files if not blobs[file.sha256].is_file()]
        if missing:
            raise self._found_damaged(version, missing)
        tally = Tally(progress, version.size_bytes)
        try:
            tree = self._trees.complete(version.digest, version.manifest, blobs)

            def check(file: FileEntry) -> FileEntry | None:
                return None if self._whole_in(tree, file, tally.part(file.path)) else file

            damaged = [file for file in _each(check, version.manifest.files, tally) if file]
        except OSError as error:
            raise storage_error(error, f"preparing {version}", self.home.root) from error
        if damaged:
            raise self._found_damaged(version, damaged)
        return tree

    def aliases(self, name: str) -> dict[str, int]:
        """Alias → version number of one name."""
        return self._aliases.current(name)

    def set_alias(self, ref: str | Ref, alias: str, *, reason: str = "") -> tuple[str, ...]:
        """Let `alias` of the ref's name mean this version from now on; return warnings.

        Raises NotFound, InvalidRequest, StorageError.
        """
        check_alias(alias)
        version = self.get(ref)
        if self._aliases.current(version.name).get(alias) != version.version:
            move = AliasMove(
                at=time.time(),
                name=version.name,
                alias=alias,
                version=version.version,
                actor=_actor(),
                reason=reason,
            )
            try:
                self._records.mark_unmirrored(version.name)
                self._aliases.append(move)
            except OSError as error:
                raise storage_error(error, f"setting {alias}", self.home.root) from error
        warnings: list[str] = []
        self._catch_up(warnings)
        return tuple(warnings)

    def _store(self, files: Iterable[SourceFile], progress: Progress | None) -> list[FileEntry]:
        files = list(files)
        tally = Tally(progress, sum(file.size_bytes for file in files))

        def put(file: SourceFile) -> FileEntry:
            blob = self.blobs.put(file.location, progress=tally.part(file.path))
            return FileEntry(path=file.path, sha256=blob.sha256, size_bytes=blob.size_bytes)

        return _each(put, files, tally)

    def _whole_in(self, tree: Path, file: FileEntry, progress: Progress) -> bool:
        """Hash what the engine will read; a spoilt copy of a whole blob is replaced."""
        target = tree / file.path
        try:
            if hash_file(target, lambda done: progress("", done, 0))[0] == file.sha256:
                return True
            blob = self.blobs.path(file.sha256)
            if target.samefile(blob) or not self.blobs.verify(file.sha256):
                return False
            self._trees.replace(target, blob)
            return hash_file(target)[0] == file.sha256
        except InvalidRequest:  # a disk that fails to give bytes back has damaged them
            return False

    def _found_damaged(self, version: ModelVersion, files: list[FileEntry]) -> IntegrityError:
        """Quarantine the blobs, and say so."""
        reasons = []
        for file in files:
            path = self.blobs.path(file.sha256)
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
                self._quarantine.mark(Mark(sha256=file.sha256, reason=reason, at=time.time()))
            except OSError as error:
                # The damage is the news; the next check finds it again.
                reasons.append(str(storage_error(error, "marking it", self.home.root)))
        return _damage(version, reasons[0])

    def _refuse_quarantined(self, version: ModelVersion) -> None:
        if version.quarantined:
            raise _damage(version, version.quarantined)

    def _first_free_in_catalogue(self, name: str, warnings: list[str]) -> int:
        try:
            with self._mirroring():
                return self._catalogue.newest(name) + 1
        except Exception as error:  # noqa: BLE001 - any failure: see `_catch_up`
            warnings.append(_not_mirrored(error))
            return 1

    def _mirroring(self) -> AbstractContextManager[None]:
        return locked(self.home.versions / ".mirror.lock")

    def _catch_up(self, warnings: list[str]) -> None:
        """Mirror every name that is marked; a catalogue that fails costs a warning only."""
        if not self._records.unmirrored():
            return
        try:
            with self._mirroring():
                for name, marks in self._records.unmirrored().items():
                    records = self._records.all_of(name)
                    if records:
                        aliases = self._aliases.current(name)
                        warnings += self._catalogue.mirror(name, records, aliases)
                    for mark in marks:
                        mark.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 - MLflow, its database and HTTP client raise anything
            warnings.append(_not_mirrored(error))


def _each(work: Callable[[Item], Result], items: Iterable[Item], tally: Tally) -> list[Result]:
    """Run `work` over the items in threads; when one fails, or Ctrl-C, the others stop too."""
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="registry") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            tally.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _damage(version: ModelVersion, reason: str) -> IntegrityError:
    return IntegrityError(
        reason,
        next_step=f"register the same folder as {version.name} again: that repairs it; "
        "nothing is served from it until then",
    )


def _not_mirrored(error: Exception) -> str:
    text = str(error) if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
    first_line = (text.splitlines() or [""])[0]
    return f"the MLflow catalogue was not updated ({first_line[:200]}); the next registration does"


def _folder(home: Path | str | None) -> Path:
    if home is not None:
        return Path(home)
    chosen = os.environ.get("MODELYARD_HOME")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("modelyard", appauthor=False))


def _actor() -> str:
    try:
        return f"user:{getpass.getuser()}"
    except (OSError, KeyError):  # no entry in the user database, as in some containers
        return f"user:{os.getuid()}"
