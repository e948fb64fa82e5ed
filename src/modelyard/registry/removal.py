"""Taking a version out: refused while anything needs it, final otherwise."""

import time

import msgspec

from modelyard.core.errors import Conflict
from modelyard.core.refs import Ref
from modelyard.registry.mirror import Mirror
from modelyard.registry.reading import storage_error
from modelyard.registry.stores import Stores, actor
from modelyard.registry.versions import ModelVersion, Removal, VersionRecord


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What `remove` did."""

    version: ModelVersion
    """As it was."""
    warnings: tuple[str, ...] = ()
    """What went wrong without harm, such as a catalogue that is away."""


class Remover:
    """Marks version numbers as taken out; the bytes go with the next `Collector.collect`."""

    def __init__(self, stores: Stores, mirror: Mirror) -> None:
        self._stores = stores
        self._mirror = mirror

    def remove(self, ref: str | Ref, reason: str, wait_s: float) -> Removed:
        """See `Registry.remove`."""
        stores = self._stores
        with stores.alone(wait_s):
            version = stores.lookup.get(ref)
            needed_by = self._needed_by(version)
            if needed_by:
                raise Conflict(
                    f"{version} is needed by {', '.join(needed_by)}",
                    next_step="move those aliases, undeploy, or take the children out first",
                    param="ref",
                )
            removal = Removal(at=time.time(), actor=actor(), reason=reason)
            try:
                stores.records.mark_unmirrored(version.name)
                stores.records.remove(version.name, version.version, removal)
            except OSError as error:
                home = stores.home.root
                raise storage_error(error, f"taking out {version}", home) from error
        warnings: list[str] = []
        self._mirror.catch_up(warnings)
        return Removed(version=version, warnings=tuple(dict.fromkeys(warnings)))

    def _needed_by(self, version: ModelVersion) -> list[str]:
        aliases = [f"the alias {version.name}@{alias}" for alias in version.aliases]
        pins = [
            f"the {pin.by}"
            for pin in self._stores.pins.all()
            if (pin.name, pin.version) == (version.name, version.version)
        ]
        others = [record for record in self._visible() if _ref(record) != str(version)]
        # Children name a digest: another version with the same bytes serves them as well.
        alone = all(record.digest != version.digest for record in others)
        children = [
            f"its child {_ref(record)}"
            for record in others
            if alone and record.parent == version.digest
        ]
        return [*aliases, *dict.fromkeys(pins), *children]

    def _visible(self) -> list[VersionRecord]:
        records = self._stores.records
        return [record for name in records.names() for record in records.all_of(name)]


def _ref(record: VersionRecord) -> str:
    return f"{record.name}:{record.version}"
