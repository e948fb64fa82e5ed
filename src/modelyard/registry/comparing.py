"""Holding the catalogue's entries against the version records. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.registry.catalogue import (
    DIGEST_TAG,
    VERSION_TAG,
    CatalogueVersion,
    source_of,
    tags_of,
)
from modelyard.registry.versions import VersionRecord

Listed = Mapping[int, CatalogueVersion]
"""MLflow's number → its version."""


class Tampering(msgspec.Struct, frozen=True):
    """What an entry says that was not registered."""

    texts: tuple[str, ...]
    """One line each."""
    tags: dict[str, str]
    """What its tags must be instead."""


def find_ours(records: Iterable[VersionRecord], listed: Listed) -> dict[int, int]:
    """Our number → MLflow's, for the records that MLflow has already: a crash came in between, or
    what both last agreed on was lost."""
    found: dict[int, int] = {}
    for record in records:
        same = [
            number
            for number, version in listed.items()
            if version.source == source_of(record.digest)
            or version.tags.get(DIGEST_TAG) == record.digest
        ]
        # Another home on the same server may have registered the same content.
        named = [n for n in same if listed[n].tags.get(VERSION_TAG) == str(record.version)]
        if named or record.version in same:
            found[record.version] = named[-1] if named else record.version
    return found


def find_tampering(record: VersionRecord, version: CatalogueVersion) -> Tampering:
    """Differences in the source and in the tags that Modelyard writes."""
    ref = f"{record.name}:{record.version}"
    texts = []
    if version.source != source_of(record.digest):
        texts.append(_text(ref, "its source", version.source, source_of(record.digest)))
    wanted = tags_of(record)
    wrong = {key: value for key, value in wanted.items() if version.tags.get(key) != value}
    for key, value in wrong.items():
        # A tag may be missing because an earlier release did not write it; these two are old.
        if key in version.tags or key in {DIGEST_TAG, VERSION_TAG}:
            texts.append(_text(ref, key, version.tags.get(key, ""), value))
    return Tampering(tuple(texts), wrong)


def _text(ref: str, what: str, found: str, registered: str) -> str:
    there = f"is {found!r}" if found else "was taken away"
    return (
        f"tampering in MLflow with {ref}: {what} {there}, {registered!r} was registered; "
        "Modelyard goes by what was registered"
    )
