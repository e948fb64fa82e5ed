"""A version as a folder that an engine can open, made of its blobs at no cost of space.

Files are reflinks where the file system has them (then damage to a tree can't reach the store),
else hard links, else copies; all read-only. A tree is made and repaired in place, file by file,
by renames: what runs on it goes on.
"""

import errno
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from modelyard.core.refs import DIGEST_PREFIX
from modelyard.registry.filesystem import reflink
from modelyard.registry.manifest import Manifest
from modelyard.registry.staging import Staging, locked, make_folder

_NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP}


class Trees:
    """Materialised versions by digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def path(self, digest: str) -> Path:
        """Where the tree of a digest lies, or would lie."""
        return self._folder / digest.removeprefix(DIGEST_PREFIX)

    def complete(self, digest: str, manifest: Manifest, blobs: dict[str, Path]) -> Path:
        """Make the tree hold the manifest's files and nothing else; `blobs` is by SHA-256.

        Bytes of files that are there already are not looked at: the caller hashes them.
        Raises OSError (FileNotFoundError when a blob is missing).
        """
        tree = self.path(digest)
        wanted = {file.path: blobs[file.sha256] for file in manifest.files}
        folders = {parent.as_posix() for path in wanted for parent in Path(path).parents}
        with self._changing():
            self._staging.sweep()
            _remove_others(tree, tree, wanted.keys(), folders)
            for path, blob in wanted.items():
                target = tree / path
                if not _is_regular(target) or target.stat().st_size != blob.stat().st_size:
                    self._replace(target, blob)
        return tree

    def replace(self, target: Path, blob: Path) -> None:
        """Put a fresh link to, or copy of, `blob` at `target`; raises OSError."""
        with self._changing():
            self._replace(target, blob)

    def _changing(self) -> AbstractContextManager[None]:
        return locked(self._folder / ".lock")

    def _replace(self, target: Path, blob: Path) -> None:
        make_folder(target.parent)
        with self._staging.file() as staged, blob.open("rb") as source:
            if reflink(source.fileno(), staged.fd):
                staged.publish(target)
                return
        hard = staged.path.with_name(f"{staged.path.name}.link")
        try:
            os.link(blob, hard)
            hard.replace(target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            with self._staging.file() as staged, blob.open("rb") as source:
                while chunk := source.read(4 * 1024 * 1024):
                    staged.write(chunk)
                staged.publish(target)
        finally:
            # rename(2) of two links to one inode does nothing and leaves both.
            hard.unlink(missing_ok=True)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _remove_others(tree: Path, folder: Path, wanted: Collection[str], folders: set[str]) -> None:
    """Remove what does not belong into the tree: an engine would read it unverified."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
    if not folder.exists():
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        path = Path(entry.path)
        name = path.relative_to(tree).as_posix()
        if entry.is_dir(follow_symlinks=False):
            if name in folders:
                _remove_others(tree, path, wanted, folders)
            else:
                shutil.rmtree(path)
        elif name not in wanted:
            path.unlink()
