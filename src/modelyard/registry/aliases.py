"""The alias journal: one JSON line per move, only ever added to. The current view is its replay.

A line that a crash cut short has no newline; it is not read, and the next move cuts it off.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

from modelyard.core.errors import IntegrityError
from modelyard.registry.staging import locked, make_folder


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """From `at` on, `alias` of `name` means `version`."""

    at: float
    """Unix seconds."""
    name: str
    alias: str
    version: int
    actor: str
    reason: str = ""
    origin: Literal["modelyard", "external"] = "modelyard"
    """`external`: made in the catalogue's own surface and taken over."""


class AliasJournal:
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, move: AliasMove) -> None:
        """Write a move down, durably; raises OSError."""
        make_folder(self._path.parent)
        with locked(self._path.with_suffix(".lock")):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o644)
            try:
                whole = self._whole_bytes()
                os.ftruncate(fd, whole)
                os.pwrite(fd, msgspec.json.encode(move) + b"\n", whole)
                os.fsync(fd)
            finally:
                os.close(fd)

    def moves(self) -> list[AliasMove]:
        """All moves, oldest first; raises IntegrityError when a line is not one."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes()[: self._whole_bytes()].splitlines()
        moves: list[AliasMove] = []
        for number, line in enumerate(lines, start=1):
            try:
                moves.append(msgspec.json.decode(line, type=AliasMove))
            except msgspec.DecodeError as error:
                raise IntegrityError(
                    f"line {number} of the alias journal {self._path} is damaged: {error}",
                    next_step="restore this file from a backup",
                ) from error
        return moves

    def current(self, name: str) -> dict[str, int]:
        """Alias → version number of one name, now."""
        return {move.alias: move.version for move in self.moves() if move.name == name}

    def _whole_bytes(self) -> int:
        """Bytes up to the last newline."""
        return self._path.read_bytes().rfind(b"\n") + 1 if self._path.exists() else 0
