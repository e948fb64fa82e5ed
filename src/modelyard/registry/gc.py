"""Giving back the space of what nothing needs any more.

Kept is what is reachable: the digests of every version that was not taken out (and so of every
alias and every parent, which can't be taken out), and those that somebody pinned, such as a
controller for its deployments; of these the manifest, the blobs, the tree, the forms and the
signatures. Anything else, and what dead writers left behind, is removed.

While it looks and removes, nobody else adds or reads bytes (`Stores.alone`), so that a
registration is either over, and its version reachable, or has not begun to look for what it can
reuse. A record, manifest or pin that can't be read ends it before anything is removed: when in
doubt, bytes stay.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelyard.core.errors import IntegrityError
from modelyard.core.refs import DIGEST_PREFIX
from modelyard.registry.hub import abandoned, remove_abandoned
from modelyard.registry.importing import IMPORTS, abandoned_imports, remove_import
from modelyard.registry.reading import storage_error
from modelyard.registry.staging import Staging
from modelyard.registry.stores import Stores

Kind = Literal["blob", "manifest", "tree", "form", "signatures", "unpacked", "download", "leftover"]


class Garbage(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that nothing needs."""

    kind: Kind
    path: str
    """Below the home."""
    size_bytes: int
    """What its removal gives back; 0 for a tree of hard links."""


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be."""

    removed: bool
    """False: a dry run."""
    garbage: tuple[Garbage, ...]

    @property
    def size_bytes(self) -> int:
        """Sum of what is given back."""
        return sum(item.size_bytes for item in self.garbage)


class Collector:
    """Removes what is not reachable."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def collect(self, dry_run: bool, wait_s: float) -> Collection:
        """See `Registry.gc`."""
        home = self._stores.home
        if not home.root.is_dir():
            return Collection(removed=not dry_run, garbage=())
        try:
            with self._stores.alone(wait_s):
                found = tuple(self._garbage())
                if not dry_run:
                    for item in found:
                        self._remove(item)
                    for folder in self._stagings():
                        Staging(folder).sweep()
        except OSError as error:
            raise storage_error(error, "cleaning up", home.root) from error
        return Collection(removed=not dry_run, garbage=found)

    def _garbage(self) -> Iterator[Garbage]:
        """What nothing needs: what refers to bytes before the bytes, so that a crash while
        removing leaves nothing that refers to what is gone."""
        digests = self._needed_digests()
        keep = {digest.removeprefix(DIGEST_PREFIX) for digest in digests}
        home = self._stores.home
        unneeded_forms, kept_forms = self._forms(keep)
        yield from unneeded_forms
        for kind, folder in (("tree", home.trees), ("signatures", home.signatures)):
            for path in _listed(folder):
                if path.name.partition(".")[0] not in keep:
                    yield self._item(kind, path)
        manifests = [path for path in _listed(home.manifests) if path.stem not in keep]
        for path in manifests:
            yield self._item("manifest", path)
        blobs = kept_forms | {
            file.sha256 for d in digests for file in self._stores.manifests.get(d).files
        }
        for blob in self._stores.blobs.stored():
            if blob.sha256 not in blobs:
                path = self._stores.blobs.path(blob.sha256)
                yield self._item("blob", path, blob.size_bytes)
        for folder in self._stagings():
            for path in _listed(folder):
                # Whoever notes something small, as a quarantine, writes without our lock: what was
                # listed may have been published meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    yield self._item("leftover", path)
        for path in sorted(home.downloads.glob("archive-*")):
            yield self._item("unpacked", path)
        for path in [*abandoned(home.downloads), *abandoned_imports(home.downloads)]:
            yield self._item("download", path)

    def _needed_digests(self) -> set[str]:
        records = self._stores.records
        visible = {record.digest for name in records.names() for record in records.all_of(name)}
        pinned = {pin.digest for pin in self._stores.pins.all()}
        # The manifest of a pinned digest may be gone already: it was taken out before it was
        # pinned, and then it does not run.
        there = {digest for digest in pinned if self._stores.manifests.path(digest).is_file()}
        return visible | there

    def _forms(self, keep: set[str]) -> tuple[list[Garbage], set[str]]:
        """Forms of what is not kept and halves of crashed conversions; blobs of kept forms."""
        unneeded: list[Garbage] = []
        blobs: set[str] = set()
        for path in _listed(self._stores.home.forms):
            digest = path.name.partition(".")[0]
            if digest not in keep or path.suffix == ".half":
                unneeded.append(self._item("form", path))
            elif path.suffix == ".json":
                blobs.add(_blob_of_form(path))
        return unneeded, blobs

    def _stagings(self) -> Sequence[Path]:
        home = self._stores.home
        stores = (home.manifests, home.versions, home.quarantine, home.trees, home.pins)
        return (home.blobs / "staging", *(folder / ".staging" for folder in stores))

    def _item(self, kind: Any, path: Path, size_bytes: int | None = None) -> Garbage:
        return Garbage(
            kind=kind,
            path=path.relative_to(self._stores.home.root).as_posix(),
            size_bytes=_size_bytes(path) if size_bytes is None else size_bytes,
        )

    def _remove(self, item: Garbage) -> None:
        path = self._stores.home.root / item.path
        if item.kind == "blob":
            self._stores.blobs.remove(path.name)
            self._stores.quarantine.lift(path.name)
        elif item.kind == "download":
            (remove_import if path.name.startswith(IMPORTS) else remove_abandoned)(path)
        elif item.kind == "leftover":
            pass  # swept: only what no writer holds
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Form(msgspec.Struct):
    """The one field of a form's provenance that matters here; forms/ writes it."""

    blob_sha256: str


def _blob_of_form(path: Path) -> str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Form).blob_sha256
    except msgspec.DecodeError as error:
        raise IntegrityError(
            f"the provenance of a form {path} is damaged: {error}",
            next_step="remove this file; the form is made again when it is needed",
        ) from error


def _listed(folder: Path) -> list[Path]:
    """What stands in a folder, without hidden entries."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _size_bytes(path: Path) -> int:
    """Bytes that come free; those of a file with another link don't."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size_bytes(below) for below in path.iterdir())
    status = path.lstat()
    return status.st_size if status.st_nlink == 1 else 0
