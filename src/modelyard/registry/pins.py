"""What must stay because somebody outside the registry uses it, such as a deployment.

    PINS/HOLDER.json        everything that one holder needs, replaced as a whole

A holder writes before it uses. Whatever a holder that died has written stays pinned until it, or
who comes after it, writes again: when in doubt, bytes are kept.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelyard.core.errors import IntegrityError
from modelyard.core.refs import check_name
from modelyard.registry.staging import Staging, publish_bytes


class Pin(msgspec.Struct, frozen=True, order=True):
    """One version in use."""

    name: str
    version: int
    digest: str
    by: str
    """For people: `deployment chat`."""


class Pins:
    """A folder with one small file per holder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def hold(self, holder: str, pins: Iterable[Pin]) -> None:
        """Replace what `holder` needs by `pins`; durable on return. Raises OSError."""
        wanted = sorted(set(pins))
        if self._path(holder).is_file() and self._read(self._path(holder)) == wanted:
            return
        publish_bytes(self._staging, self._path(holder), msgspec.json.encode(wanted))

    def all(self) -> list[Pin]:
        """What all holders need; raises IntegrityError when one of the files is damaged."""
        return [pin for path in sorted(self._folder.glob("*.json")) for pin in self._read(path)]

    def _read(self, path: Path) -> list[Pin]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Pin])
        except (OSError, msgspec.DecodeError) as error:
            raise IntegrityError(
                f"the list of versions in use {path} is damaged: {error}",
                next_step="remove it while nothing runs; `modelyard up` writes it anew",
            ) from error

    def _path(self, holder: str) -> Path:
        return self._folder / f"{check_name(holder)}.json"
