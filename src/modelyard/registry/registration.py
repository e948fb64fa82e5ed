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

from modelyard.core.refs import check_name
from modelyard.registry.facts import read_facts
from modelyard.registry.manifest import FileEntry, build_manifest
from modelyard.registry.mirror import Mirror
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import storage_error
from modelyard.registry.source import SourceFile, check_unchanged, scan
from modelyard.registry.stores import Stores, actor
from modelyard.registry.versions import ModelVersion, VersionRecord


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
        self, name: str, path: Path | str, progress: Progress | None, *, link: bool = False
    ) -> Registration:
        """See `Registry.register`."""
        check_name(name)
        files = scan(Path(path))
        # Refuse early what is damaged; the facts that count are those of the stored bytes.
        read_facts({file.path: file.location for file in files})
        warnings: list[str] = []
        with self._stores.in_use():
            try:
                entries = self._store(files, progress, link)
                check_unchanged(Path(path), files)
                record, created = self._publish(name, path, entries, warnings)
            except OSError as error:
                home = self._stores.home.root
                raise storage_error(error, f"registering {name}", home) from error
        if not warnings:  # a server that did not answer a moment ago is not waited for twice
            self._mirror.catch_up(warnings)
        return Registration(
            version=self._stores.lookup.view(record),
            created=created,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _publish(
        self,
        name: str,
        path: Path | str,
        entries: Iterable[FileEntry],
        warnings: list[str],
    ) -> tuple[VersionRecord, bool]:
        stores = self._stores
        manifest = build_manifest(entries)
        facts = read_facts({file.path: stores.blobs.path(file.sha256) for file in manifest.files})
        digest = stores.manifests.put(manifest)
        known = stores.records.find(name, digest)
        if known is not None:
            return known, False
        stores.records.mark_unmirrored(name)
        record = VersionRecord(
            name=name,
            version=self._mirror.first_free(name, warnings),
            digest=digest,
            created_at=time.time(),
            actor=actor(),
            source=os.fsencode(path).decode(errors="replace"),
            facts=facts,
        )
        return stores.records.add(record)

    def _store(
        self, files: Sequence[SourceFile], progress: Progress | None, link: bool
    ) -> list[FileEntry]:
        """Store the bytes. Those of blobs that are marked as damaged are written anew."""
        quarantine = self._stores.quarantine
        marked = quarantine.marked().keys()
        tally = Tally(progress, sum(file.size_bytes for file in files))
        blobs = self._stores.blobs.put_all(files, tally, link=link, suspects=marked)
        for sha256 in marked & {blob.sha256 for blob in blobs}:
            quarantine.lift(sha256)
        return [
            FileEntry(path=file.path, sha256=blob.sha256, size_bytes=blob.size_bytes)
            for file, blob in zip(files, blobs, strict=True)
        ]
