"""Registering: from a folder of weights to a version.

Publishing goes blobs → manifest → version record → catalogue. A version exists from the moment
its record is linked into place, and everything it needs lies there by then: a kill at any moment
leaves either the whole version or none. What was stored before the kill is reused.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.core.refs import check_name, is_digest
from modelyard.registry.facts import concerned, read_facts
from modelyard.registry.manifest import FileEntry, build_manifest
from modelyard.registry.mirror import Mirror
from modelyard.registry.origin import Origin, check_origin
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import storage_error
from modelyard.registry.source import SourceFile, check_unchanged, refuse_pickle, scan
from modelyard.registry.stores import Stores, actor
from modelyard.registry.tokenizer import with_tokenizer
from modelyard.registry.versions import ModelVersion, Recipe, VersionRecord


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What `register` did."""

    version: ModelVersion
    created: bool
    """False: this name had the same content already, as `version`."""
    warnings: tuple[str, ...] = ()
    """What went wrong without harm to the version, such as a catalogue that is away."""


class Registrar:
    """Adds versions to the stores."""

    def __init__(self, stores: Stores, mirror: Mirror) -> None:
        self._stores = stores
        self._mirror = mirror

    def register(
        self,
        name: str,
        path: Path | str,
        progress: Progress | None,
        *,
        link: bool = False,
        origin: Origin | None = None,
        tokenizer: Path | None = None,
    ) -> Registration:
        """See `Registry.register`."""
        check_name(name)
        self._resolved(origin or Origin())
        scanned = scan(Path(path))
        files = scanned if tokenizer is None else with_tokenizer(scanned, tokenizer)
        # Refuse early what is damaged; the facts that count are those of the stored bytes.
        read_facts(
            {file.path: Path(file.location) for file in files if concerned(file.path)},
            sum(file.size_bytes for file in files),
        )
        warnings: list[str] = []
        with self._stores.in_use():
            known = self._resolved(origin or Origin())  # from here on nobody takes the parent out
            try:
                entries = self._store(files, progress, link)
                check_unchanged(Path(path), scanned)
                record, created = self._publish(self._record(name, path, entries, known), warnings)
            except OSError as error:
                home = self._stores.home.root
                raise storage_error(error, f"registering {name}", home) from error
        if not warnings:  # a server that did not answer a moment ago is not waited for twice
            self._mirror.catch_up(warnings)
        if not created and known.differs_from(record):
            warnings.append(
                f"{record.name}:{record.version} stays as it was registered: the parent, recipe, "
                "metrics or licence given now are not those that it has"
            )
        if known.licence and record.facts.licence not in (None, known.licence):
            warnings.append(
                f"the files say that the licence is {record.facts.licence}; {known.licence} is "
                "recorded as declared beside it"
            )
        return Registration(
            version=self._stores.lookup.view(record),
            created=created,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _record(
        self, name: str, path: Path | str, entries: Iterable[FileEntry], origin: "_Resolved"
    ) -> VersionRecord:
        """What is to be registered, without its number."""
        stores = self._stores
        manifest = build_manifest(entries)
        stored = {f.path: stores.blobs.path(f.sha256) for f in manifest.files if concerned(f.path)}
        facts = read_facts(stored, manifest.size_bytes)
        record = VersionRecord(
            name=name,
            version=0,
            digest=stores.manifests.put(manifest),
            created_at=time.time(),
            actor=actor(),
            source=origin.source or os.fsencode(path).decode(errors="replace"),
            source_commit=origin.source_commit,
            facts=facts,
            declared_licence=origin.licence,
            parent=origin.parent,
            recipe=origin.recipe,
            metrics=origin.metrics,
        )
        if record.parent == record.digest:
            raise InvalidRequest(
                "these files are the parent's own: nothing was made of it",
                next_step="register the folder that the recipe wrote, or leave the parent out",
                param="parent",
            )
        return record

    def _publish(self, record: VersionRecord, warnings: list[str]) -> tuple[VersionRecord, bool]:
        records = self._stores.records
        known = records.find(record.name, record.digest)
        if known is not None:
            return known, False
        records.mark_unmirrored(record.name)
        number = self._mirror.first_free(record.name, warnings)
        return records.add(msgspec.structs.replace(record, version=number))

    def _resolved(self, origin: Origin) -> "_Resolved":
        """Checked, the parent as a digest; one given as a digest may be registered elsewhere."""
        check_origin(origin)
        parent = origin.parent
        if parent is not None and not (isinstance(parent, str) and is_digest(parent)):
            parent = self._stores.lookup.get(parent).digest
        return _Resolved(
            parent=parent,
            recipe=origin.recipe,
            metrics=dict(origin.metrics),
            licence=origin.licence,
            source=origin.source,
            source_commit=origin.source_commit,
        )

    def _store(
        self, files: Sequence[SourceFile], progress: Progress | None, link: bool
    ) -> list[FileEntry]:
        """Store the bytes. Those of blobs that are marked as damaged are written anew."""
        quarantine = self._stores.quarantine
        marked = quarantine.marked().keys()
        tally = Tally(progress, sum(file.size_bytes for file in files))
        blobs = self._stores.blobs.put_all(
            files, tally, link=link, suspects=marked, check=refuse_pickle
        )
        for sha256 in marked & {blob.sha256 for blob in blobs}:
            quarantine.lift(sha256)
        return [
            FileEntry(path=file.path, sha256=blob.sha256, size_bytes=blob.size_bytes)
            for file, blob in zip(files, blobs, strict=True)
        ]


class _Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """An `Origin` whose parent is a digest."""

    parent: str | None
    recipe: Recipe | None
    metrics: dict[str, float]
    licence: str | None
    source: str
    source_commit: str | None

    def differs_from(self, record: VersionRecord) -> bool:
        """Whether it says anything that the record, which never changes, does not."""
        given = (self.parent, self.recipe, self.metrics, self.licence)
        known = (record.parent, record.recipe, record.metrics, record.declared_licence)
        return any(mine and mine != its for mine, its in zip(given, known, strict=True))
