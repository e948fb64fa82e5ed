"""Looks whether files have changed, without asking the kernel to tell: it works on every mount."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[tuple[Path, int, int, int], ...]


def stamp(files: Iterable[Path]) -> Stamp:
    """What tells one state of files from another: inode, size and time of the last write."""
    found = []
    for file in sorted(set(files)):
        with contextlib.suppress(OSError):
            facts = file.stat()
            found.append((file, facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(found)
