"""What is to be registered: the files of a folder, or one GGUF file.

Left out by name, wherever they stand: what tools leave behind and no engine reads (`IGNORED`).
Everything else counts, other hidden files too. Links to files are followed when they stay inside
the folder, or lead from a Hugging Face cache snapshot (…/snapshots/REVISION) into the `blobs`
folder beside `snapshots`; every other link, and links to folders, are refused.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry.manifest import check_paths
from modelyard.registry.reading import HEAD_BYTES

IGNORED = frozenset(
    {".git", ".gitattributes", ".gitignore", ".cache", ".huggingface", "__pycache__"}
    | {".DS_Store", "Thumbs.db"}
)
WEIGHT_SUFFIXES = (".safetensors", ".gguf")
PICKLE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5"}
)
_MAX_DEPTH = 32


class SourceFile(msgspec.Struct, frozen=True, gc=False):
    """One file to be registered."""

    path: str
    """Its name in the manifest."""
    location: str
    """Where its bytes are, links resolved. No `Path`: of ten thousand files each would cost more
    than opening the file does."""
    size_bytes: int
    mtime_ns: int
    """When it was last written to; nanoseconds since 1970."""


def scan(source: Path) -> tuple[SourceFile, ...]:
    """List what `source` holds, ordered by path; raises InvalidRequest."""
    with _readable(source):
        files = _listed(source)
        check_paths(file.path for file in files)
        _require_weights(source, files)
        for file in files:
            if _suffix(file) in PICKLE_SUFFIXES:
                raise _pickle(file.path)
    return files


def list_files(source: Path) -> tuple[SourceFile, ...]:
    """What `source` holds, weights or not; raises InvalidRequest as `scan` does for links."""
    with _readable(source):
        return _listed(source)


def check_unchanged(source: Path, files: Sequence[SourceFile]) -> None:
    """Raise Conflict when `source` no longer holds what `scan` found; InvalidRequest as it does."""
    with _readable(source):
        now = _listed(source)
    if now != tuple(files):
        differing = min(file.path for file in set(now).symmetric_difference(files))
        raise Conflict(
            f"{source} changed while it was read ({differing!r} did)",
            next_step="wait until its writer is done, then run the same command again",
        )


@contextlib.contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"{error.filename or source} does not exist",
            next_step="give the folder that holds the weights, or a .gguf file",
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles
        raise InvalidRequest(
            f"can't read {getattr(error, 'filename', None) or source}: "
            f"{getattr(error, 'strerror', None) or error}",
            next_step="check that this user may read it",
        ) from error


def _listed(source: Path) -> tuple[SourceFile, ...]:
    root = source.resolve(strict=True)
    status = root.stat()
    if stat.S_ISREG(status.st_mode):
        return (_single(source, root, status),)
    if stat.S_ISDIR(status.st_mode):
        return tuple(sorted(_walk(root), key=lambda file: file.path))
    raise InvalidRequest(
        f"{source} is neither a folder nor a file",
        next_step="give the folder that holds the weights, or a .gguf file",
    )


def _single(source: Path, location: Path, status: os.stat_result) -> SourceFile:
    if source.suffix.lower() == ".safetensors":
        raise InvalidRequest(
            f"{source} is one file of a model",
            next_step="register its folder: config.json and the tokenizer belong to it",
        )
    return SourceFile(source.name, str(location), status.st_size, status.st_mtime_ns)


def _walk(root: Path) -> list[SourceFile]:
    found: list[SourceFile] = []
    waiting = [("", str(root), 0)]
    while waiting:
        prefix, folder, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise InvalidRequest(
                f"{folder} lies more than {_MAX_DEPTH} folders deep",
                next_step="give the folder that holds the weights",
            )
        with os.scandir(folder) as entries:
            listed = list(entries)
        for entry in listed:
            name = prefix + entry.name
            if entry.name in IGNORED:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((f"{name}/", entry.path, depth + 1))
                continue
            location = _followed(root, name, entry) if entry.is_symlink() else entry.path
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _not_a_file(root, name, status)
            found.append(SourceFile(name, location, status.st_size, status.st_mtime_ns))
    return found


def _followed(root: Path, name: str, entry: "os.DirEntry[str]") -> str:
    """Where a link leads; raises InvalidRequest when that is out of the folder."""
    location = Path(entry.path).resolve(strict=True)
    caches = (folder.parent for folder in root.parents if folder.name == "snapshots")
    if not any(location.is_relative_to(f) for f in (root, *(cache / "blobs" for cache in caches))):
        raise InvalidRequest(
            f"{name!r} in {root} is a link that leads out of the folder, to {location}",
            next_step="put the file itself in its place",
        )
    return str(location)


def _not_a_file(root: Path, name: str, status: os.stat_result) -> InvalidRequest:
    kind = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    return InvalidRequest(f"{name!r} in {root} is {kind}", next_step="remove it from the folder")


def _require_weights(source: Path, files: tuple[SourceFile, ...]) -> None:
    if any("/" not in file.path and file.path.endswith(WEIGHT_SUFFIXES) for file in files):
        return
    pickles = [file.path for file in files if Path(file.path).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise _pickle(pickles[0])
    snapshot = next((file.path for file in files if file.path.endswith(WEIGHT_SUFFIXES)), None)
    if snapshot is not None:
        below = source / Path(snapshot).parent
        raise InvalidRequest(
            f"{source} holds no weights itself; {below} does", next_step=f"register {below}"
        )
    raise InvalidRequest(
        f"{source} holds no weights ({'no files' if not files else f'{len(files)} other files'})",
        next_step="give a folder with .safetensors files and config.json, or a .gguf file",
    )


def refuse_pickle(file: SourceFile, head: bytes) -> None:
    """Raise InvalidRequest when the first bytes of a file are a pickle's.

    A pickle runs code of its author's when it is loaded; neither name nor content may be one. The
    names were looked at by `scan`.
    """
    # Protocol 2 and later begin with PROTO; torch.save's zip has data.pkl as its first member.
    if head[:1] == b"\x80":
        pickled = head[1:2] in b"\x02\x03\x04\x05"
    else:
        pickled = head[:4] == b"PK\x03\x04" and b".pkl" in head[:HEAD_BYTES]
    if pickled and _suffix(file) not in WEIGHT_SUFFIXES:
        raise _pickle(file.path)


def _suffix(file: SourceFile) -> str:
    return "." + file.path.rpartition(".")[2].lower()


def _pickle(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path!r} can hold a pickle, which runs its author's code when it is loaded",
        next_step="convert the weights to safetensors (save_pretrained does) and leave such files "
        "out of the folder",
    )
