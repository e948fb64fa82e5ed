"""What differs between two versions: files, facts, metrics, and the tensors by name.

Tensors are matched by name over all weight files of a version, so that the same tensor in another
shard is the same tensor. Those with equal dtype and shape are compared byte for byte where they
lie in the blobs; files that both versions share are not read at all.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from modelyard.core.refs import Ref
from modelyard.registry.blobs import BlobStore
from modelyard.registry.formats.gguf import read_gguf
from modelyard.registry.formats.safetensors import read_safetensors
from modelyard.registry.formats.tensors import Tensor
from modelyard.registry.parallel import each
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.progress import Progress, Tally
from modelyard.registry.reading import storage_error
from modelyard.registry.stores import Stores
from modelyard.registry.versions import ModelVersion


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is in one version only, or with other bytes; the absent side is None."""

    path: str
    before_bytes: int | None
    after_bytes: int | None


class TensorChange(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is in one version only, or differs; `BF16[2,3]` as dtype and shape."""

    name: str
    before: str | None
    after: str | None
    """Equal to `before`: the same dtype and shape with other values."""


class ValueChange(msgspec.Struct, frozen=True, kw_only=True):
    """A fact or metric of both; None where a version has none."""

    name: str
    before: str | int | float | bool | None
    after: str | int | float | bool | None


class VersionDiff(msgspec.Struct, frozen=True, kw_only=True):
    """From one version to another."""

    before: str
    after: str
    same: bool
    """The same digest: the same bytes under the same file names."""
    files: tuple[FileChange, ...]
    facts: tuple[ValueChange, ...]
    """Those that differ."""
    metrics: tuple[ValueChange, ...]
    """All of both, equal ones too, to be read side by side."""
    tensors: tuple[TensorChange, ...]
    tensors_equal: int
    """How many are the same in both."""


class _Place(NamedTuple):
    """Where a tensor's bytes lie."""

    sha256: str
    path: Path
    offset: int
    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.tensor.dtype}[{','.join(map(str, self.tensor.shape))}]"


class Comparer:
    """Compares versions of one registry."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def compare(
        self, before: str | Ref, after: str | Ref, progress: Progress | None
    ) -> VersionDiff:
        """See `Registry.diff`."""
        stores = self._stores
        with stores.in_use():
            one, other = stores.lookup.get(before), stores.lookup.get(after)
            try:
                return compare(one, other, stores.blobs, progress)
            except OSError as error:
                raise storage_error(
                    error, f"comparing {one} and {other}", stores.home.root
                ) from error


def compare(
    before: ModelVersion, after: ModelVersion, blobs: BlobStore, progress: Progress | None
) -> VersionDiff:
    """What differs; raises DamagedHeader, OSError when a weight file can't be read."""
    tensors, equal = _tensors(before, after, blobs, progress)
    return VersionDiff(
        before=str(before),
        after=str(after),
        same=before.digest == after.digest,
        files=_files(before, after),
        facts=_values(
            msgspec.to_builtins(before.facts), msgspec.to_builtins(after.facts), equal_too=False
        ),
        metrics=_values(before.metrics, after.metrics, equal_too=True),
        tensors=tensors,
        tensors_equal=equal,
    )


def _files(before: ModelVersion, after: ModelVersion) -> tuple[FileChange, ...]:
    old = {file.path: file for file in before.manifest.files}
    new = {file.path: file for file in after.manifest.files}
    return tuple(
        FileChange(
            path=path,
            before_bytes=old[path].size_bytes if path in old else None,
            after_bytes=new[path].size_bytes if path in new else None,
        )
        for path in sorted(old.keys() | new.keys())
        if path not in old or path not in new or old[path].sha256 != new[path].sha256
    )


def _values(
    old: Mapping[str, Any], new: Mapping[str, Any], *, equal_too: bool
) -> tuple[ValueChange, ...]:
    return tuple(
        ValueChange(name=name, before=old.get(name), after=new.get(name))
        for name in sorted(old.keys() | new.keys())
        if equal_too or old.get(name) != new.get(name)
    )


def _tensors(
    before: ModelVersion, after: ModelVersion, blobs: BlobStore, progress: Progress | None
) -> tuple[tuple[TensorChange, ...], int]:
    old, new = _places(before, blobs), _places(after, blobs)
    alike = [
        name
        for name in sorted(old.keys() & new.keys())
        if str(old[name]) == str(new[name]) and not _same_place(old[name], new[name])
    ]
    tally = Tally(progress, sum(_length(old[name]) for name in alike))
    unequal = {
        name
        for name, equal in zip(
            alike, each(lambda n: _equal(n, old[n], new[n], tally), alike, tally), strict=True
        )
        if not equal
    }
    changes = tuple(
        TensorChange(
            name=name,
            before=str(old[name]) if name in old else None,
            after=str(new[name]) if name in new else None,
        )
        for name in sorted(old.keys() | new.keys())
        if name in unequal or str(old.get(name)) != str(new.get(name))
    )
    return changes, len(old.keys() | new.keys()) - len(changes)


def _places(version: ModelVersion, blobs: BlobStore) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    for file in version.manifest.files:
        path = blobs.path(file.sha256)
        if file.path.endswith(".safetensors"):
            header: Any = read_safetensors(path, file.path)
        elif file.path.endswith(".gguf"):
            header = read_gguf(path, file.path)
        else:
            continue
        for name, tensor in header.tensors.items():
            offset = header.data_offset + tensor.begin
            found[name] = _Place(file.sha256, path, offset, tensor)
    return found


def _length(place: _Place) -> int:
    return place.tensor.end - place.tensor.begin


def _same_place(a: _Place, b: _Place) -> bool:
    return (a.sha256, a.offset) == (b.sha256, b.offset)


def _equal(name: str, a: _Place, b: _Place, tally: Tally) -> bool:
    """Compare the bytes, in chunks, up to the first that differ."""
    report = tally.part(name)
    length = _length(a)
    if length != _length(b):
        return False
    with a.path.open("rb", buffering=0) as left, b.path.open("rb", buffering=0) as right:
        for done in range(0, length, CHUNK_BYTES):
            count = min(CHUNK_BYTES, length - done)
            mine = os.pread(left.fileno(), count, a.offset + done)
            if mine != os.pread(right.fileno(), count, b.offset + done):
                report(name, length, length)
                return False
            report(name, done + count, length)
    return True
