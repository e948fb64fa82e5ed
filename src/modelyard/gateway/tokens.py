"""The tokens that guard a stand-alone gateway's admin routes and its metrics."""

import os
import secrets
from pathlib import Path

from modelyard.core.errors import StorageError


def read_token(file: Path) -> str:
    """The token in a file; empty when there is none yet."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def make_token(file: Path) -> None:
    """Make the token, unless it is there: a file that only its owner can read (0600)."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(
            f"can't write {file}: {error.strerror}",
            next_step="set state_dir to a folder that this user may write to",
        ) from None
    with os.fdopen(fd, "w") as out:
        out.write(f"{secrets.token_urlsafe(32)}\n")
