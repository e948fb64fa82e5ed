"""Bringing two views of a name's aliases together: ours and the catalogue's. Pure."""

from collections.abc import Mapping

import msgspec

Aliases = Mapping[str, int]
"""Alias → version number."""

FOREIGN = -1
"""Stands for a version in the catalogue that is none of ours."""


class Merged(msgspec.Struct, frozen=True):
    """What has to happen so that both views agree; None stands for "no such alias"."""

    taken: dict[str, int | None]
    """Moved in the catalogue: ours follows."""
    overruled: dict[str, int | None]
    """Moved in the catalogue, and otherwise here while it was away: ours stands."""
    pushed: dict[str, int | None]
    """To write into the catalogue."""
    foreign: tuple[str, ...]
    """They mean a version in the catalogue that we can't follow to."""


def merge(base: Aliases, ours: Aliases, theirs: Aliases) -> Merged:
    """`base` is what both sides had when they last agreed; who differs from it has moved."""
    merged = Merged({}, {}, {}, ())
    foreign = []
    for alias in sorted({*base, *ours, *theirs}):
        before, here, there = base.get(alias), ours.get(alias), theirs.get(alias)
        if here == there:
            continue
        if there == before:
            merged.pushed[alias] = here
        elif here != before:
            merged.pushed[alias] = here
            if there != FOREIGN:
                merged.overruled[alias] = there
        elif there == FOREIGN:
            foreign.append(alias)
        else:
            merged.taken[alias] = there
    return msgspec.structs.replace(merged, foreign=tuple(foreign))
