"""Versions out of and into the registry by hand: to a folder, to an archive, from an archive."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.core.refs import Ref
from modelyard.registry.archives import DamagedFile, unpacked, write_archive
from modelyard.registry.integrity import Integrity, refuse_quarantined
from modelyard.registry.origin import Origin
from modelyard.registry.progress import Progress
from modelyard.registry.pulling import pull
from modelyard.registry.registration import Registrar, Registration
from modelyard.registry.signing import Signatures
from modelyard.registry.stores import Stores
from modelyard.registry.versions import ModelVersion


class Carrier:
    """Carries versions over the registry's border; every byte is hashed on the way."""

    def __init__(
        self,
        stores: Stores,
        integrity: Integrity,
        registrar: Registrar,
        signatures: Signatures,
    ) -> None:
        self._stores = stores
        self._signatures = signatures
        self._integrity = integrity
        self._registrar = registrar

    def pull(self, ref: str | Ref, folder: Path, progress: Progress | None) -> Path:
        """See `Registry.pull`."""
        with self._leaving(ref) as version:
            return pull(version, self._stores.blobs.path, folder, progress)

    def export(self, ref: str | Ref, archive: Path, progress: Progress | None) -> ModelVersion:
        """See `Registry.export`."""
        with self._leaving(ref) as version:
            signatures = self._signatures.bundles(version.digest)
            write_archive(version, signatures, self._stores.blobs.path, archive, progress)
            return version

    def import_archive(
        self, archive: Path, name: str | None, progress: Progress | None
    ) -> Registration:
        """See `Registry.import_archive`."""
        folder = self._stores.home.downloads / f"archive-{secrets.token_hex(8)}"
        with self._stores.in_use(), unpacked(archive, folder, progress) as head:
            origin = Origin(
                parent=head.parent,
                recipe=head.recipe,
                metrics=head.metrics,
                licence=head.declared_licence,
                source=f"{archive} ({head.name}:{head.version})",
                source_commit=head.source_commit,
            )
            done = self._registrar.register(name or head.name, folder, progress, origin=origin)
            self._signatures.take(head.digest, head.signatures)
            return done

    @contextmanager
    def _leaving(self, ref: str | Ref) -> Iterator[ModelVersion]:
        with self._stores.in_use():
            version = self._stores.lookup.get(ref)
            refuse_quarantined(version)
            try:
                yield version
            except DamagedFile as damaged:
                raise self._integrity.found_damaged(version, [damaged.args[0]]) from None
