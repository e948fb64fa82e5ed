"""Version records: which content a number of a name stands for. Written once, never changed.

    VERSIONS/NAME/3.json            the record
    VERSIONS/NAME/3.removed         version 3 was taken out: by whom, when and why
    VERSIONS/NAME/.unmirrored-…     the catalogue lacks something of NAME; see catalogue.py

A record is linked to the first free number, which fails when another process was there first:
numbers are unique without a lock, and a record is visible whole or not at all. The record of a
version that was taken out stays, for the history; its number is never given again.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import IntegrityError
from modelyard.core.facts import ModelFacts
from modelyard.registry.manifest import Manifest
from modelyard.registry.staging import Staging, make_folder, publish_bytes

RECORD_FORMAT = 1
_UNMIRRORED = ".unmirrored-"
_RECORD, _REMOVED = ".json", ".removed"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version was made from its parent, so that it can be made again."""

    kind: str
    """`quantize`, `prune`, `distill`, `finetune`, … in one word."""
    tool: str = ""
    """What did it, with its release."""
    options: dict[str, str | int | float | bool | None] = {}
    seed: int | None = None
    data_digest: str | None = None
    """`sha256:…` of the data it was made with."""


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What was registered, when and by whom; fields are added, never taken away."""

    format: int = RECORD_FORMAT
    name: str
    version: int
    digest: str
    created_at: float
    """Unix seconds."""
    actor: str
    """`user:NAME`."""
    source: str
    """The path or address that was registered, as text."""
    source_commit: str | None = None
    """What the address's revision meant, for one on a hub."""
    facts: ModelFacts
    declared_licence: str | None = None
    """What the one who registered said; `facts.licence` is what the files say."""
    parent: str | None = None
    """Digest of the version that this one was made from."""
    recipe: Recipe | None = None
    """How it was made from its parent."""
    metrics: dict[str, float] = {}
    """Evaluation results that were given at registration."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """How a version was taken out."""

    at: float
    """Unix seconds."""
    actor: str
    reason: str = ""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version, with what is known of it now."""

    name: str
    version: int
    digest: str
    manifest: Manifest
    facts: ModelFacts
    declared_licence: str | None = None
    """What the one who registered said; `facts.licence` is what the files say."""
    source: str = ""
    """The path or address that was registered."""
    source_commit: str | None = None
    """What the address's revision meant, for one on a hub."""
    created_at: float
    """Unix seconds."""
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    recipe: Recipe | None = None
    metrics: dict[str, float] = {}
    size_bytes: int
    quarantined: str = ""
    """Why it is out of service; empty while it is not."""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class VersionStore:
    """Version records in a folder per name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def names(self) -> list[str]:
        """Names that have at least one version."""
        if not self._folder.is_dir():
            return []
        folders = (path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        return sorted(name for name in folders if self.numbers(name))

    def numbers(self, name: str) -> list[int]:
        """Version numbers of `name`, ascending, without those that were taken out."""
        added, removed = self._listed(name)
        return sorted(added - removed)

    def remove(self, name: str, version: int, removal: Removal) -> None:
        """Take a version out for good; durable on return. Raises OSError."""
        publish_bytes(
            self._staging, self._path(name, version, _REMOVED), msgspec.json.encode(removal)
        )

    def removed(self, name: str) -> list[int]:
        """Numbers of `name` that were taken out, ascending."""
        return sorted(self._listed(name)[1])

    def get(self, name: str, version: int) -> VersionRecord:
        """Read a record; raises IntegrityError when it is not one."""
        path = self._path(name, version)
        try:
            record = msgspec.json.decode(path.read_bytes(), type=VersionRecord)
            if (record.name, record.version) != (name, version):
                raise msgspec.ValidationError(f"it is {record.name}:{record.version}'s")
        except (OSError, msgspec.DecodeError) as error:
            raise IntegrityError(
                f"the version record {path} is damaged: {error}",
                next_step="restore this file from a backup, or remove it and register again",
            ) from error
        return record

    def all_of(self, name: str) -> list[VersionRecord]:
        """All records of `name`, by number."""
        return [self.get(name, number) for number in self.numbers(name)]

    def find(self, name: str, digest: str) -> VersionRecord | None:
        """The newest version of `name` with this digest."""
        for record in reversed(self.all_of(name)):
            if record.digest == digest:
                return record
        return None

    def add(self, record: VersionRecord) -> tuple[VersionRecord, bool]:
        """Publish under `record.version` or the first free number above those taken.

        Returns the record, and False when `name` had this digest already. Raises OSError.
        """
        self._staging.sweep()
        while True:
            given, _ = self._listed(record.name)
            existing = self.find(record.name, record.digest)
            if existing is not None:
                return existing, False
            # Nothing was added since `given` were listed if the number is still free.
            number = max(record.version, max(given, default=0) + 1)
            added = msgspec.structs.replace(record, version=number)
            with contextlib.suppress(FileExistsError):
                target = self._path(record.name, number)
                data = msgspec.json.encode(added, order="sorted")
                publish_bytes(self._staging, target, data, exclusive=True)
                return added, True

    def mark_unmirrored(self, name: str) -> Path:
        """Note that the catalogue will lack something of `name`; written before it does."""
        folder = self._folder / name
        make_folder(folder)
        mark = folder / f"{_UNMIRRORED}{secrets.token_hex(8)}"
        mark.touch()
        return mark

    def unmirrored(self) -> dict[str, Sequence[Path]]:
        """The marks by name; those taken away after mirroring must have been listed before it."""
        marks: dict[str, list[Path]] = {}
        for mark in self._folder.glob(f"*/{_UNMIRRORED}*"):
            marks.setdefault(mark.parent.name, []).append(mark)
        return dict(marks)

    def _listed(self, name: str) -> tuple[set[int], set[int]]:
        """The numbers that were given, and those of them that were taken out."""
        found: dict[str, set[int]] = {_RECORD: set(), _REMOVED: set()}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder / name) as entries:
            for entry in entries:
                stem, dot, ending = entry.name.partition(".")
                if stem.isdecimal() and dot + ending in found:
                    found[dot + ending].add(int(stem))
        return found[_RECORD], found[_REMOVED]

    def _path(self, name: str, version: int, ending: str = _RECORD) -> Path:
        return self._folder / name / f"{version}{ending}"
