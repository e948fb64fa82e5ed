"""Keeping the catalogue up with what was registered; a catalogue that is away costs a warning."""

from contextlib import AbstractContextManager

from modelyard.core.errors import ModelyardError
from modelyard.registry.catalogue import Catalogue
from modelyard.registry.staging import locked
from modelyard.registry.stores import Stores


class Mirror:
    """Brings marked names into the catalogue."""

    def __init__(self, stores: Stores, catalogue: Catalogue) -> None:
        self._stores = stores
        self._catalogue = catalogue

    def first_free(self, name: str, warnings: list[str]) -> int:
        """The lowest version number of `name` that MLflow has not given yet."""
        try:
            with self._mirroring():
                return self._catalogue.newest(name) + 1
        except Exception as error:  # noqa: BLE001 - any failure: see `catch_up`
            warnings.append(_not_mirrored(error))
            return 1

    def catch_up(self, warnings: list[str]) -> None:
        """Mirror every name that is marked; a catalogue that fails costs a warning only."""
        records = self._stores.records
        if not records.unmirrored():
            return
        try:
            with self._mirroring():
                for name, marks in records.unmirrored().items():
                    known = records.all_of(name)
                    if known:
                        aliases = self._stores.aliases.current(name)
                        warnings += self._catalogue.mirror(name, known, aliases)
                    for mark in marks:
                        mark.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 - MLflow, its database and HTTP client raise anything
            warnings.append(_not_mirrored(error))

    def _mirroring(self) -> AbstractContextManager[None]:
        return locked(self._stores.home.versions / ".mirror.lock")


def _not_mirrored(error: Exception) -> str:
    text = str(error) if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
    first_line = (text.splitlines() or [""])[0]
    return f"the MLflow catalogue was not updated ({first_line[:200]}); the next registration does"
