"""The three tokens of a home, made at its first start: files that only their owner can read."""

import os
import secrets
from pathlib import Path

from modelyard.core.errors import StorageError
from modelyard.core.home import Home


def prepare_home(home: Home) -> None:
    """Make the folders (0700) and tokens (0600) that are missing; StorageError if it can't."""
    try:
        for folder in (home.root, home.run, home.logs, home.admin_token.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for token in (home.admin_token, home.gateway_token, home.metrics_token):
            _make_token(token)
    except OSError as error:
        raise StorageError(
            f"can't prepare the home {home.root}: {error.strerror}: {error.filename}",
            next_step="choose a --home that you may write to, on a disk with space",
        ) from error


def read_token(path: Path) -> str:
    """The token in the file at `path`; StorageError when it can't be read or is empty."""
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise StorageError(
            f"can't read the token {path}: {error.strerror}",
            next_step="start Modelyard on this home, as the user that owns it",
        ) from error
    if not token:
        raise StorageError(
            f"the token file {path} is empty", next_step="remove the file and start again"
        )
    return token


def _make_token(path: Path) -> None:
    if path.exists():
        return
    # Written aside and linked into place: a reader never sees half a token, and of two
    # processes that start at once the first one's stays.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, f"{secrets.token_urlsafe(32)}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
