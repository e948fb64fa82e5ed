"""Finding versions: from a ref to what is known of it. Reads small files, nothing else."""

import bisect
from collections.abc import Iterable

import msgspec

from modelyard.core.errors import IntegrityError, InvalidRequest, NotFound
from modelyard.core.refs import Ref, parse_ref
from modelyard.registry.aliases import AliasJournal, replay
from modelyard.registry.manifest import Manifest, ManifestStore
from modelyard.registry.quarantine import Mark, Quarantine
from modelyard.registry.versions import ModelVersion, VersionRecord, VersionStore

_SHOWN = 8


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the versions: by name, the newest of each name first."""

    versions: tuple[ModelVersion, ...]
    total: int
    """How many there are on all pages."""
    next: str | None
    """What to ask for as `after`; None at the end."""


class Lookup:
    """Resolves refs over the stores of one home."""

    def __init__(
        self,
        records: VersionStore,
        manifests: ManifestStore,
        aliases: AliasJournal,
        quarantine: Quarantine,
    ) -> None:
        self._records = records
        self._manifests = manifests
        self._aliases = aliases
        self._quarantine = quarantine

    def get(self, ref: str | Ref) -> ModelVersion:
        """Raises NotFound, InvalidRequest, IntegrityError."""
        return self.view(self._resolve(parse_ref(ref) if isinstance(ref, str) else ref))

    def versions(self, name: str | None) -> list[ModelVersion]:
        """By name and number."""
        names = self._records.names() if name is None else [name]
        marked = self._quarantine.marked()
        aliases = replay(self._aliases.moves())
        return [
            self._listed(record, aliases.get(each, {}), marked)
            for each in names
            for record in self._records.all_of(each)
        ]

    def page(self, name: str | None, limit: int, after: str | Ref | None) -> Page:
        """See `Registry.page`."""
        if limit < 1:
            raise InvalidRequest("limit is below 1", next_step="ask for one or more", param="limit")
        names = self._records.names() if name is None else [name]
        numbers = {each: self._records.numbers(each) for each in names}
        if name is not None and not numbers[name]:
            raise self._no_name(name)
        places = [(each, number) for each in names for number in reversed(numbers[each])]
        begin = 0 if after is None else _place_behind(after, places)
        shown = places[begin : begin + limit]
        aliases = replay(self._aliases.moves())
        marked = self._quarantine.marked()
        return Page(
            versions=tuple(
                self._listed(self._records.get(each, number), aliases.get(each, {}), marked)
                for each, number in shown
            ),
            total=len(places),
            next=f"{shown[-1][0]}:{shown[-1][1]}" if begin + limit < len(places) else None,
        )

    def view(self, record: VersionRecord) -> ModelVersion:
        """Join a record with its manifest, aliases and marks."""
        return self._view(record, self._aliases.current(record.name), self._quarantine.marked())

    def _listed(
        self, record: VersionRecord, aliases: dict[str, int], marked: dict[str, Mark]
    ) -> ModelVersion:
        """As `_view`; one damaged manifest must not hide all other versions."""
        try:
            return self._view(record, aliases, marked)
        except IntegrityError as error:
            return _joined(record, Manifest(files=()), aliases, error.message)

    def _view(
        self, record: VersionRecord, aliases: dict[str, int], marked: dict[str, Mark]
    ) -> ModelVersion:
        manifest = self._manifests.get(record.digest)
        reasons = [marked[file.sha256].reason for file in manifest.files if file.sha256 in marked]
        return _joined(record, manifest, aliases, reasons[0] if reasons else "")

    def _resolve(self, ref: Ref) -> VersionRecord:
        numbers = self._records.numbers(ref.name)
        if not numbers:
            raise self._no_name(ref.name)
        if ref.digest is not None:
            record = self._records.find(ref.name, ref.digest)
            if record is None:
                raise _no_version(ref, [f"{ref.name}:{number}" for number in numbers[-_SHOWN:]])
            return record
        version = ref.version if ref.version is not None else numbers[-1]
        if ref.alias is not None:
            aliases = self._aliases.current(ref.name)
            if ref.alias not in aliases:
                raise _no_version(ref, _nearest(ref, aliases))
            version = aliases[ref.alias]
        if version not in numbers:
            near = sorted(numbers, key=lambda number: abs(number - version))[:_SHOWN]
            raise _no_version(ref, [f"{ref.name}:{number}" for number in sorted(near)])
        return self._records.get(ref.name, version)

    def _no_name(self, name: str) -> NotFound:
        import difflib

        names = self._records.names()
        if not names:
            return NotFound(
                f"no model {name!r}: the registry is empty",
                next_step="register one: modelyard register NAME FOLDER",
                param="ref",
            )
        nearest = difflib.get_close_matches(name, names, n=3) or names[:_SHOWN]
        return NotFound(
            f"no model {name!r}; there is {', '.join(nearest)}",
            next_step="modelyard models list shows all of them",
            param="ref",
        )


def _place_behind(after: str | Ref, places: list[tuple[str, int]]) -> int:
    """The first place behind `after`, which may have been taken out meanwhile."""
    ref = parse_ref(after) if isinstance(after, str) else after
    if ref.version is None:
        raise InvalidRequest(
            f"a page can't begin after {ref}",
            next_step="give name:3, as `next` does",
            param="after",
        )
    mark = (ref.name, -ref.version)
    return bisect.bisect_right(places, mark, key=lambda place: (place[0], -place[1]))


def _nearest(ref: Ref, aliases: Iterable[str]) -> list[str]:
    import difflib

    refs = [f"{ref.name}@{alias}" for alias in sorted(aliases)]
    return difflib.get_close_matches(str(ref), refs, n=_SHOWN, cutoff=0.0)


def _no_version(ref: Ref, near: list[str]) -> NotFound:
    there = f"there is {', '.join(near)}" if near else f"{ref.name} has no alias"
    return NotFound(
        f"no version {ref}; {there}",
        next_step=f"modelyard models list {ref.name} shows all of its versions",
        param="ref",
    )


def _joined(
    record: VersionRecord, manifest: Manifest, aliases: dict[str, int], quarantined: str
) -> ModelVersion:
    return ModelVersion(
        name=record.name,
        version=record.version,
        digest=record.digest,
        manifest=manifest,
        facts=record.facts,
        declared_licence=record.declared_licence,
        source=record.source,
        source_commit=record.source_commit,
        created_at=record.created_at,
        aliases=tuple(sorted(a for a, v in aliases.items() if v == record.version)),
        parent=record.parent,
        recipe=record.recipe,
        metrics=record.metrics,
        size_bytes=manifest.size_bytes,
        quarantined=quarantined,
    )
