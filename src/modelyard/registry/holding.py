"""Keeping versions for those who use them, such as a controller for its deployments."""

from collections.abc import Iterable

from modelyard.registry.pins import Pin
from modelyard.registry.reading import storage_error
from modelyard.registry.stores import Stores


class Holder:
    """Writes pins down while nobody removes anything."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def hold(self, holder: str, pins: Iterable[Pin]) -> None:
        """See `Registry.hold`."""
        with self._stores.in_use():
            try:
                self._stores.pins.hold(holder, pins)
            except OSError as error:
                raise storage_error(error, "keeping versions", self._stores.home.root) from error
