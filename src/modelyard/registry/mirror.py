"""Keeping the MLflow catalogue and what is registered here in step.

Truth is the manifests, version records and alias journal; the catalogue can be rebuilt from them.
A catalogue that is away costs a warning where something is registered or moved, and nothing where
something is loaded or served.

Version numbers. MLflow gives a new version the number after the last it ever gave, deleted ones
included; nobody can choose it. So that both sides agree:
- before a number is taken here, MLflow is asked for its newest, and the number is above both;
- versions are mirrored in ascending order, one process at a time (a lock file), and a number that
  MLflow gives below the one wanted (a gap) is used up by a version that is deleted at once;
- a number above the one wanted means that somebody else took it in MLflow while it was away. The
  version then lives there under the other number; its tag `modelyard.version` and a warning tell.

Aliases. Who differs from what both sides last agreed on has moved: a move in MLflow is journalled
as external and followed, one of ours is written there; where both moved, ours stands and the
journal holds both. What else was changed in MLflow is reported as tampering and never believed.

What a crash or an absent server leaves out is marked in the versions' folder before the record is
written (`VersionStore.mark_unmirrored`); the next use of the catalogue catches up.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import msgspec

from modelyard.core.errors import InvalidRequest, ModelyardError
from modelyard.core.refs import check_alias
from modelyard.registry.agreement import Agreement, Agreements
from modelyard.registry.aliases import AliasMove, replay
from modelyard.registry.catalogue import Catalogue, CatalogueModel
from modelyard.registry.comparing import Listed, find_ours, find_tampering
from modelyard.registry.merging import FOREIGN, Merged, merge
from modelyard.registry.progress import Progress
from modelyard.registry.reading import storage_error
from modelyard.registry.staging import locked
from modelyard.registry.stores import Stores
from modelyard.registry.versions import VersionRecord

EXTERNAL = "external:mlflow"
_MAX_GAP = 10_000


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the catalogue."""

    moves: tuple[AliasMove, ...] = ()
    """Made there, taken over into the journal."""
    tampering: tuple[str, ...] = ()
    """What somebody changed there that nobody may; one line each."""
    warnings: tuple[str, ...] = ()
    """What can't agree; one line each."""
    added: int = 0
    """Versions that were not in the catalogue."""


class Mirror:
    """Brings names and the catalogue into step."""

    def __init__(
        self, stores: Stores, catalogue: Catalogue, clock: Callable[[], float] = time.time
    ) -> None:
        self._stores = stores
        self._catalogue = catalogue
        self._agreements = Agreements(stores.home.versions)
        self._clock = clock

    def first_free(self, name: str, warnings: list[str]) -> int:
        """The lowest version number of `name` that MLflow has not given yet."""
        try:
            with self._mirroring():
                return self._catalogue.newest(name) + 1
        except (ModelyardError, OSError) as error:
            warnings.append(_not_mirrored(error))
            return 1

    def catch_up(self, warnings: list[str]) -> None:
        """Mirror every name that is marked; a catalogue that fails costs a warning only."""
        marked = self._stores.records.unmirrored()
        if not marked:
            return
        try:
            synced = self.sync(marked)
            warnings += [*synced.tampering, *synced.warnings, *map(told, synced.moves)]
        except ModelyardError as error:
            warnings.append(_not_mirrored(error))

    def sync(
        self,
        names: Iterable[str] | None = None,
        *,
        thorough: bool = False,
        repair: bool = False,
        progress: Progress | None = None,
    ) -> Synced:
        """Bring names (None: all) into step.

        `thorough` compares every version with its entry too; `repair` puts right what can be.
        Raises Unavailable when the catalogue can't be asked, StorageError, IntegrityError.
        """
        try:
            with self._mirroring():
                marks = self._stores.records.unmirrored()
                models = self._catalogue.models() if names is None else {}
                names = self._stores.records.names() if names is None else list(names)
                aliases = replay(self._stores.aliases.moves())
                found = []
                for done, name in enumerate(names):
                    if progress is not None:
                        progress(name, done, len(names))
                    if self._stores.records.numbers(name) or self._stores.records.removed(name):
                        found.append(
                            _Name(self, name, thorough, repair).sync(
                                models.get(name), aliases.get(name, {})
                            )
                        )
                    for mark in marks.get(name, ()):
                        mark.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "mirroring", self._stores.home.root) from error
        return Synced(
            moves=tuple(move for each in found for move in each.moves),
            tampering=tuple(text for each in found for text in each.tampering),
            warnings=tuple(text for each in found for text in each.warnings),
            added=sum(each.added for each in found),
        )

    def _mirroring(self) -> AbstractContextManager[None]:
        return locked(self._stores.home.versions / ".mirror.lock")


class _Name:
    """One name being brought into step."""

    def __init__(self, mirror: Mirror, name: str, thorough: bool, repair: bool) -> None:
        self._stores = mirror._stores
        self._catalogue = mirror._catalogue
        self._agreements = mirror._agreements
        self._clock = mirror._clock
        self._name = name
        self._thorough = thorough
        self._repair = repair
        self._warnings: list[str] = []
        self._tampering: list[str] = []

    def sync(self, model: CatalogueModel | None, ours: dict[str, int]) -> Synced:
        """`ours`: the aliases here a moment ago."""
        model = model or self._catalogue.model(self._name)
        agreed = self._agreements.get(self._name, model.created)
        before = msgspec.json.encode(agreed)
        numbers = self._stores.records.numbers(self._name)
        self._remove(model, agreed)
        missing = [number for number in numbers if number not in agreed.versions]
        if missing or self._thorough:
            above = 0 if self._thorough else max(agreed.versions.values(), default=0)
            listed = {v.number: v for v in self._catalogue.versions(self._name, above)}
            records = self._records(numbers if self._thorough else missing)
            agreed.versions |= find_ours([records[number] for number in missing], listed)
            if self._thorough:
                self._compare(records, listed, agreed)
            missing = [number for number in numbers if number not in agreed.versions]
        added = self._add(self._records(missing), agreed)
        moves = self._aliases(model, agreed, ours)
        if msgspec.json.encode(agreed) != before:
            self._agreements.put(self._name, agreed)
        return Synced(
            moves=tuple(moves),
            tampering=tuple(self._tampering),
            warnings=tuple(self._warnings),
            added=added,
        )

    def _records(self, numbers: Iterable[int]) -> dict[int, VersionRecord]:
        return {number: self._stores.records.get(self._name, number) for number in numbers}

    def _remove(self, model: CatalogueModel, agreed: Agreement) -> None:
        """Take out there what was taken out here."""
        for number in self._stores.records.removed(self._name):
            there = agreed.versions.pop(number, None)
            if there is None or self._catalogue.version(self._name, there) is None:
                continue
            self._catalogue.remove(self._name, there)
            for alias in [alias for alias, meant in model.aliases.items() if meant == there]:
                # MLflow takes its aliases away with it: nobody moved them.
                del model.aliases[alias]
                agreed.aliases.pop(alias, None)

    def _compare(
        self, records: dict[int, VersionRecord], listed: Listed, agreed: Agreement
    ) -> None:
        """Report what was changed or deleted in MLflow; put it right when asked to."""
        for number, record in records.items():
            there = agreed.versions.get(number)
            if there is None:
                continue
            if there not in listed:
                self._deleted(number, agreed)
                continue
            found = find_tampering(record, listed[there])
            self._tampering += found.texts
            if self._repair and found.tags:
                self._catalogue.set_tags(self._name, there, found.tags)

    def _deleted(self, number: int, agreed: Agreement) -> None:
        if not self._repair:
            self._warnings.append(
                f"{self._name}:{number} was deleted in MLflow and is registered here all the same; "
                "modelyard models rebuild-catalogue puts it back"
            )
            return
        # Its aliases went with it: that was no move.
        agreed.aliases = {a: v for a, v in agreed.aliases.items() if v != number}
        del agreed.versions[number]

    def _add(self, records: dict[int, VersionRecord], agreed: Agreement) -> int:
        runs = self._catalogue.runs(self._name) if records else {}
        for number, record in records.items():
            there = self._catalogue.add(record, runs)
            for _ in range(_MAX_GAP):
                if there >= number:
                    break
                self._catalogue.remove(self._name, there)
                there = self._catalogue.add(record, runs)
            agreed.versions[number] = there
            if there != number:
                self._warnings.append(
                    f"{self._name}:{number} is version {there} in MLflow, where its number was "
                    "taken"
                )
        return len(records)

    def _aliases(
        self, model: CatalogueModel, agreed: Agreement, ours: dict[str, int]
    ) -> Sequence[AliasMove]:
        ours_by_theirs = {there: number for number, there in agreed.versions.items()}
        theirs = {
            alias: ours_by_theirs.get(number, FOREIGN)
            for alias, number in model.aliases.items()
            if self._allowed(alias)
        }
        for alias in sorted(agreed.aliases.keys() - theirs.keys()):
            number = agreed.aliases[alias]
            if self._catalogue.version(self._name, agreed.versions.get(number, 0)) is None:
                # MLflow took the alias away with the version: nobody moved it.
                theirs[alias] = number
        merged = merge(agreed.aliases, ours, theirs)
        moves: Sequence[AliasMove] = ()
        if merged.taken or merged.overruled:
            moves = self._take_over(agreed, theirs)
            merged = merge(agreed.aliases, self._stores.aliases.current(self._name), theirs)
        # Where theirs can't be followed, what was agreed on stays: nobody moved here.
        theirs |= {a: agreed.aliases[a] for a in merged.foreign if a in agreed.aliases}
        agreed.aliases = {alias: number for alias, number in theirs.items() if number != FOREIGN}
        self._push(merged, agreed)
        for alias in merged.foreign:
            self._warnings.append(
                f"{self._name}@{alias} means version {model.aliases[alias]} in MLflow, which is "
                "not registered here; it stays what it is here"
            )
        return moves

    def _take_over(self, agreed: Agreement, theirs: dict[str, int]) -> Sequence[AliasMove]:
        """Journal what was moved in MLflow."""

        def decide(moves: list[AliasMove]) -> list[AliasMove]:
            ours = replay(move for move in moves if move.name == self._name).get(self._name, {})
            merged = merge(agreed.aliases, ours, theirs)
            taken = [self._external(alias, number) for alias, number in merged.taken.items()]
            for alias, number in merged.overruled.items():
                taken += [self._external(alias, number), self._standing(alias, ours.get(alias))]
            return taken

        return self._stores.aliases.extend(decide)

    def _allowed(self, alias: str) -> bool:
        """MLflow takes some names that a ref can't have: those stay as they are there."""
        try:
            check_alias(alias)
        except InvalidRequest as error:
            self._warnings.append(
                f"{self._name} has an alias in MLflow that is not taken over: {error}"
            )
            return False
        return True

    def _external(self, alias: str, number: int | None) -> AliasMove:
        return AliasMove(
            at=self._clock(),
            name=self._name,
            alias=alias,
            version=number,
            actor=EXTERNAL,
            reason="found in MLflow",
            origin="external",
        )

    def _standing(self, alias: str, number: int | None) -> AliasMove:
        return AliasMove(
            at=self._clock(),
            name=self._name,
            alias=alias,
            version=number,
            actor="modelyard",
            reason="moved here and in MLflow since both agreed: the move made here stands",
        )

    def _push(self, merged: Merged, agreed: Agreement) -> None:
        for alias, number in merged.pushed.items():
            there = None if number is None else agreed.versions[number]
            if there is not None and self._catalogue.version(self._name, there) is None:
                self._warnings.append(
                    f"{self._name}@{alias} can't be shown in MLflow, where {self._name}:{number} "
                    "was deleted; modelyard models rebuild-catalogue puts it back"
                )
                continue
            self._catalogue.set_alias(self._name, alias, there)
            if number is None:
                agreed.aliases.pop(alias, None)
            else:
                agreed.aliases[alias] = number


def told(move: AliasMove) -> str:
    """A move in one line, for people."""
    what = "was removed" if move.version is None else f"means version {move.version}"
    where = "in MLflow; taken over" if move.origin == "external" else f"by {move.actor}"
    return f"{move.name}@{move.alias} {what} {where}"


def _not_mirrored(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return f"the MLflow catalogue was not updated ({first_line}); its next use does that"
