"""The alias journal: one JSON line per move, only ever added to. The current view is its replay.

The order of the lines is the order of the moves, whatever the clock said. A line that a crash cut
short has no newline; it is not read, and the next move cuts it off.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from modelyard.core.errors import IntegrityError
from modelyard.registry.staging import locked, make_folder


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """From `at` on, `alias` of `name` means `version`."""

    at: float
    """Unix seconds; for an external move, when it was noticed."""
    name: str
    alias: str
    version: int | None
    """None: the alias is there no more."""
    actor: str
    reason: str = ""
    origin: Literal["modelyard", "external"] = "modelyard"
    """`external`: made in the catalogue's own surface and taken over."""


Decide = Callable[[list[AliasMove]], Sequence[AliasMove]]
"""From all moves so far to those to add."""


def replay(moves: Iterable[AliasMove]) -> dict[str, dict[str, int]]:
    """Name → alias → version number after these moves."""
    names: dict[str, dict[str, int]] = {}
    for move in moves:
        aliases = names.setdefault(move.name, {})
        if move.version is None:
            aliases.pop(move.alias, None)
        else:
            aliases[move.alias] = move.version
    return names


def until(moves: Sequence[AliasMove], at: float) -> Sequence[AliasMove]:
    """The moves made by the time `at` (Unix seconds).

    That is up to the last one whose clock said so: where the clock went back it was set right, so
    the later line's time holds, and what came before that line came before its time.
    """
    made = 0
    for number, move in enumerate(moves, start=1):
        if move.at <= at:
            made = number
    return moves[:made]


class AliasJournal:
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, *moves: AliasMove) -> None:
        """Write moves down, durably; raises OSError."""
        self.extend(lambda _: moves)

    def extend(self, decide: Decide) -> Sequence[AliasMove]:
        """Add what `decide` makes of the moves so far, while nobody else can add; return it.

        Raises OSError, IntegrityError when a line is damaged, and what `decide` raises.
        """
        make_folder(self._path.parent)
        with locked(self._path.with_suffix(".lock")):
            added = decide(self.moves())
            if not added:
                return ()
            data = b"".join(msgspec.json.encode(move) + b"\n" for move in added)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                whole = len(self._whole_lines())
                os.ftruncate(fd, whole)
                _write_at(fd, data, whole)
            finally:
                os.close(fd)
        return added

    def moves(self, name: str | None = None) -> list[AliasMove]:
        """All moves, or those of one name, in order; raises IntegrityError for a damaged line."""
        lines = self._whole_lines()
        try:
            moves = msgspec.json.Decoder(AliasMove).decode_lines(lines)
        except msgspec.DecodeError:
            moves = [self._decode(n, line) for n, line in enumerate(lines.splitlines(), start=1)]
        return moves if name is None else [move for move in moves if move.name == name]

    def current(self, name: str) -> dict[str, int]:
        """Alias → version number of one name, now."""
        return replay(self.moves(name)).get(name, {})

    def _decode(self, number: int, line: bytes) -> AliasMove:
        try:
            return msgspec.json.decode(line, type=AliasMove)
        except msgspec.DecodeError as error:
            raise IntegrityError(
                f"line {number} of the alias journal {self._path} is damaged: {error}",
                next_step="restore this file from a backup",
            ) from error

    def _whole_lines(self) -> bytes:
        """Everything up to the last newline."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]


def _write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data`, flushed; what a full disk cut short is taken back."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.pwrite(fd, view, offset + len(data) - len(view)) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, offset)
        raise
