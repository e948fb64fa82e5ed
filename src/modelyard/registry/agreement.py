"""What the catalogue and we last agreed on, per name: who differs from it has moved since.

    VERSIONS/NAME/.mirrored.json

It is no truth: without it everything is compared anew, and only a removal made in MLflow meanwhile
goes unnoticed.
"""

from pathlib import Path

import msgspec

from modelyard.registry.staging import Staging, publish_bytes

_FILE = ".mirrored.json"


class Agreement(msgspec.Struct):
    """About one name."""

    created: int
    """When MLflow made its registered model; another time is another catalogue."""
    versions: dict[int, int] = {}
    """Our version number → MLflow's."""
    aliases: dict[str, int] = {}
    """Alias → our version number."""


class Agreements:
    """One small file per name."""

    def __init__(self, versions: Path) -> None:
        self._folder = versions
        self._staging = Staging(versions / ".staging")

    def get(self, name: str, created: int) -> Agreement:
        """The last one with this catalogue, or an empty one."""
        try:
            found = msgspec.json.decode((self._folder / name / _FILE).read_bytes(), type=Agreement)
        except (FileNotFoundError, msgspec.DecodeError):
            return Agreement(created)
        return found if found.created == created else Agreement(created)

    def put(self, name: str, agreement: Agreement) -> None:
        """Replace it; raises OSError."""
        data = msgspec.json.encode(agreement)
        publish_bytes(self._staging, self._folder / name / _FILE, data)
