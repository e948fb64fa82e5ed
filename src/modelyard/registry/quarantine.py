"""Marks on blobs that were found damaged.

Damage belongs to bytes, not to names: a mark is on the blob, and every version, of whatever name,
whose manifest lists that blob is out of service until the blob is whole again.
"""

from pathlib import Path

import msgspec

from modelyard.registry.staging import Staging, publish_bytes


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Why a blob is not served."""

    sha256: str
    reason: str
    at: float
    """Unix seconds."""


class Quarantine:
    """A folder with one small file per damaged blob; nearly always empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def mark(self, mark: Mark) -> None:
        """Take a blob out of service; a mark that is there stays as it was. Raises OSError."""
        target = self._path(mark.sha256)
        if not target.exists():
            publish_bytes(self._staging, target, msgspec.json.encode(mark))

    def lift(self, sha256: str) -> None:
        """Put a blob back into service, after its bytes were made whole."""
        self._path(sha256).unlink(missing_ok=True)

    def marked(self) -> dict[str, Mark]:
        """All marks by SHA-256."""
        if not self._folder.is_dir():
            return {}
        marks = (
            msgspec.json.decode(path.read_bytes(), type=Mark)
            for path in self._folder.glob("*.json")
        )
        return {mark.sha256: mark for mark in marks}

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"
