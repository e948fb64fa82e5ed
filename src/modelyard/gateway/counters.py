"""Counters that outlive the process: rows of integers in a file that is mapped into memory.

A write is a store into memory, so counting costs no system call, and the kernel has it when the
process is killed at that moment (a machine that loses power loses the last seconds). One process
counts in a file; it holds a lock on it.

    SLOT: the counter's name as 16 bytes of BLAKE2b, the last day it was used, its cells
"""

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import struct
from pathlib import Path

from modelyard.core.errors import Conflict, StorageError
from modelyard.core.windows import CELLS, Cells

log = logging.getLogger(__name__)

_MAGIC = b"MYCOUNT1"
_HEAD = 4
"""Integers before a slot's cells: two of the name, the day, one spare."""
_SLOT = CELLS + _HEAD + 5
"""Integers in a slot: 72, with room for a later form."""
_SEGMENT_SLOTS = 1024
_BYTES = 8
_FIRST_BYTES = mmap.ALLOCATIONGRANULARITY
_SEGMENT_BYTES = _SEGMENT_SLOTS * _SLOT * _BYTES
FORGOTTEN_AFTER_DAYS = 40
"""Longer than any period: what was not used for so long makes room."""
_ID = struct.Struct("=qq")


class Counters:
    """Cells by name."""

    def __init__(self, file: Path) -> None:
        """Nothing is opened yet; `open` does."""
        self._file = file
        self._fd = -1
        self._slots: dict[bytes, memoryview] = {}
        self._free: list[memoryview] = []
        self._segments: list[memoryview] = []
        self._maps: list[mmap.mmap] = []

    def open(self, today: int) -> None:
        """Take over what was counted. Raises Conflict when another process counts there,
        StorageError when the file can't be used."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read_head()
            size = os.fstat(self._fd).st_size
            for number in range((size - _FIRST_BYTES) // _SEGMENT_BYTES):
                self._map(number)
        except BlockingIOError:
            self.close()
            raise Conflict(
                f"another gateway counts in {self._file}: together they would let in more than "
                "the limits allow",
                next_step="run one gateway on this home, or give this one a folder of its own",
            ) from None
        except OSError as error:
            self.close()
            raise self._unusable(error) from None
        for segment in self._segments:
            self._take_over(segment, today)

    def cells(self, name: str, today: int) -> Cells:
        """The cells of a counter, all zero at its first use. Raises StorageError (disk full)."""
        key = hashlib.blake2b(name.encode(), digest_size=16).digest()
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._take_slot(key)
        slot[2] = today
        return slot[_HEAD:]

    def close(self) -> None:
        """Let go of the file."""
        self._slots.clear()
        self._free.clear()
        self._segments.clear()
        for mapped in self._maps:
            with contextlib.suppress(BufferError):  # somebody still holds cells: the end frees it
                mapped.close()
        self._maps.clear()
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # a mapping still there would go on holding it
            os.close(self._fd)
            self._fd = -1

    def _read_head(self) -> None:
        head = os.pread(self._fd, len(_MAGIC), 0)
        if not head:
            os.pwrite(self._fd, _MAGIC, 0)
            os.ftruncate(self._fd, _FIRST_BYTES)
        elif head != _MAGIC:
            raise StorageError(
                f"{self._file} holds no counters that this gateway knows",
                next_step="move it away: limits and budgets then begin anew",
            )

    def _map(self, number: int) -> None:
        mapped = mmap.mmap(self._fd, _SEGMENT_BYTES, offset=_FIRST_BYTES + number * _SEGMENT_BYTES)
        self._maps.append(mapped)
        self._segments.append(memoryview(mapped).cast("q"))

    def _take_over(self, segment: memoryview, today: int) -> None:
        for begin in range(0, _SEGMENT_SLOTS * _SLOT, _SLOT):
            slot = segment[begin : begin + _SLOT]
            used = slot[0] or slot[1]
            if used and today - slot[2] <= FORGOTTEN_AFTER_DAYS:
                self._slots[_ID.pack(slot[0], slot[1])] = slot
            else:
                self._free.append(slot)

    def _take_slot(self, key: bytes) -> memoryview:
        if self._fd < 0:
            raise Conflict(
                f"limits can't be counted: another gateway has {self._file}",
                next_step="run one gateway on this home, or give this one a folder of its own",
            )
        if not self._free:
            self._grow()
        slot = self._free.pop()
        for place in range(_SLOT):
            slot[place] = 0
        slot[0], slot[1] = _ID.unpack(key)
        return slot

    def _grow(self) -> None:
        number = len(self._segments)
        try:
            # Written now, not when it is used: a full disk then would end the process.
            os.posix_fallocate(self._fd, _FIRST_BYTES + number * _SEGMENT_BYTES, _SEGMENT_BYTES)
            self._map(number)
        except OSError as error:
            raise self._unusable(error) from None
        segment = self._segments[-1]
        slots = range((_SEGMENT_SLOTS - 1) * _SLOT, -1, -_SLOT)
        self._free.extend(segment[begin : begin + _SLOT] for begin in slots)

    def _unusable(self, error: OSError) -> StorageError:
        return StorageError(
            f"limits can't be counted in {self._file}: {error.strerror}",
            next_step="make the folder writable and give it space: limits that can't be counted "
            "are not ignored",
        )
