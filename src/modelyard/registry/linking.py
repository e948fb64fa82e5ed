"""Which files can be registered where they lie, without a copy.

The store's blob is then a second name of the user's file (or a reflink where the file system has
them): whoever writes to that file damages the blob. So it must be read-only, for everybody.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

from modelyard.core.errors import InvalidRequest
from modelyard.registry.source import SourceFile

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check_linkable(files: Iterable[SourceFile], store: Path) -> None:
    """Raise InvalidRequest, saying why, unless all lie on the store's file system, read-only."""
    device = store.stat().st_dev
    for file in files:
        status = Path(file.location).stat()
        if status.st_dev != device:
            raise InvalidRequest(
                f"can't link {file.path!r}: it lies on another file system than {store}",
                next_step="register without --link, which copies, or choose a --home on that disk",
            )
        if status.st_mode & _WRITABLE:
            raise InvalidRequest(
                f"can't link {file.path!r}: it can be written to (mode "
                f"{stat.S_IMODE(status.st_mode):04o}), which would change the registered bytes",
                next_step=f"chmod a-w {file.location} (every file of the folder), or register "
                "without --link, which copies",
            )
