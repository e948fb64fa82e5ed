"""Where a version comes from and what was made of it.

Parents are named by digest, so lineage joins contents, not names: one content may have several
names, and a parent may be known by its digest alone (it was registered elsewhere).
"""

from collections.abc import Iterable

import msgspec

from modelyard.core.refs import Ref
from modelyard.registry.lookup import Lookup
from modelyard.registry.versions import Recipe, VersionRecord, VersionStore


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    """One content in a family."""

    digest: str
    depth: int
    """Generations below the oldest ancestor that is known."""
    versions: tuple[str, ...]
    """The versions with this content, as `name:3`; none when it is not registered here."""
    recipe: Recipe | None = None
    """How it was made from its parent."""
    asked: bool = False
    """It is the one that was asked for."""


class Lineages:
    """Draws families over all records."""

    def __init__(self, records: VersionStore, lookup: Lookup) -> None:
        self._records = records
        self._lookup = lookup

    def of(self, ref: str | Ref) -> tuple[LineageNode, ...]:
        """See `Registry.lineage`."""
        asked = self._lookup.get(ref).digest
        records = [r for name in self._records.names() for r in self._records.all_of(name)]
        family = _Family(records)
        return tuple(family.below(family.oldest(asked), asked))

    def children(self, digest: str) -> tuple[str, ...]:
        """The versions whose parent has this digest, as `name:3`."""
        return tuple(
            f"{record.name}:{record.version}"
            for name in self._records.names()
            for record in self._records.all_of(name)
            if record.parent == digest
        )


class _Family:
    """Records by content and by parent, oldest first."""

    def __init__(self, records: Iterable[VersionRecord]) -> None:
        self._by_digest: dict[str, list[VersionRecord]] = {}
        self._children: dict[str, list[str]] = {}
        for record in sorted(records, key=lambda record: record.created_at):
            self._by_digest.setdefault(record.digest, []).append(record)
            if record.parent is not None:
                below = self._children.setdefault(record.parent, [])
                if record.digest not in below:
                    below.append(record.digest)

    def oldest(self, digest: str) -> str:
        """The ancestor furthest up."""
        line = [digest]
        while True:
            known = self._by_digest.get(line[-1], ())
            # Two contents each made of the other are no reason to go round for ever.
            upwards = [r.parent for r in known if r.parent and r.parent not in line]
            if not upwards:
                return line[-1]
            line.append(upwards[0])

    def below(self, root: str, asked: str) -> Iterable[LineageNode]:
        """`root` and its descendants, each before its own; each content once."""
        seen = {root}
        waiting = [(root, 0)]
        while waiting:
            digest, depth = waiting.pop()
            records = self._by_digest.get(digest, [])
            yield LineageNode(
                digest=digest,
                depth=depth,
                versions=tuple(f"{record.name}:{record.version}" for record in records),
                recipe=next((r.recipe for r in records if r.recipe is not None), None),
                asked=digest == asked,
            )
            for child in reversed(self._children.get(digest, [])):
                if child not in seen:
                    seen.add(child)
                    waiting.append((child, depth + 1))
