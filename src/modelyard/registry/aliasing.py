"""Moving aliases: journalled first, mirrored then."""

import time

from modelyard.core.refs import Ref, check_alias
from modelyard.registry.aliases import AliasMove
from modelyard.registry.mirror import Mirror
from modelyard.registry.reading import storage_error
from modelyard.registry.stores import Stores, actor


class Aliases:
    """Lets aliases mean versions."""

    def __init__(self, stores: Stores, mirror: Mirror) -> None:
        self._stores = stores
        self._mirror = mirror

    def set(self, ref: str | Ref, alias: str, reason: str) -> tuple[str, ...]:
        """See `Registry.set_alias`."""
        check_alias(alias)
        stores = self._stores
        with stores.in_use():
            version = stores.lookup.get(ref)
            if stores.aliases.current(version.name).get(alias) != version.version:
                move = AliasMove(
                    at=time.time(),
                    name=version.name,
                    alias=alias,
                    version=version.version,
                    actor=actor(),
                    reason=reason,
                )
                try:
                    stores.records.mark_unmirrored(version.name)
                    stores.aliases.append(move)
                except OSError as error:
                    raise storage_error(error, f"setting {alias}", stores.home.root) from error
        warnings: list[str] = []
        self._mirror.catch_up(warnings)
        return tuple(warnings)
