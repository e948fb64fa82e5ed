"""GGUF versions 2 and 3, little-endian: key-values, tensor infos, aligned data.

After the format's own specification (ggml, docs/gguf.md). Strings and arrays are read only as far
as the file goes, so that a claimed length allocates nothing.
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelyard.registry.formats.ggml import GGML_TYPES
from modelyard.registry.formats.tensors import (
    HEADER_CAP_BYTES,
    MAX_TENSORS,
    DamagedHeader,
    Tensor,
    product,
)

_MAX_KEYS = 65_536
_MAX_NAME_BYTES = 65_535
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_STEP_BYTES = 1024 * 1024
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip

Value = str | int | float | bool


class GgufHeader(msgspec.Struct, frozen=True):
    """A validated header."""

    tensors: dict[str, Tensor]
    values: dict[str, Value]
    """Metadata that are single values."""
    array_lengths: dict[str, int]
    """Metadata that are arrays: how many elements each has."""
    data_offset: int
    """Where the data begin, in bytes from the beginning of the file."""


def read_gguf(path: Path, name: str) -> GgufHeader:
    """Read and check the header of the file at `path`, called `name` in errors.

    Raises DamagedHeader; OSError when the file can't be read.
    """
    with path.open("rb") as file:
        return _Reader(file, name).header()


class _Reader:
    """Walks over the header, never beyond the file or the cap."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._size_bytes = file.seek(0, 2)
        self._limit = min(self._size_bytes, HEADER_CAP_BYTES)
        file.seek(0)
        self._buffer = bytearray()
        self._at = 0

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            raise self._damaged("it does not begin with 'GGUF'")
        version = self._integer("<I")
        if version not in (2, 3):
            raise self._damaged(f"its GGUF version {version} is not 2 or 3 (little-endian)")
        tensor_count, key_count = self._integer("<Q"), self._integer("<Q")
        if tensor_count > MAX_TENSORS or key_count > _MAX_KEYS:
            raise self._damaged(f"it claims {tensor_count} tensors and {key_count} keys")
        values: dict[str, Value] = {}
        array_lengths: dict[str, int] = {}
        for _ in range(key_count):
            key = self._string(_MAX_NAME_BYTES)
            if key in values or key in array_lengths:
                raise self._damaged(f"the key {key[:80]!r} is repeated")
            kind = self._integer("<I")
            if kind == _ARRAY:
                array_lengths[key] = self._skip_array(key)
            else:
                values[key] = self._value(kind, key)
        alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"its alignment {alignment!r} is not a power of two")
        tensors: dict[str, Tensor] = {}
        for _ in range(tensor_count):
            tensor_name, tensor = self._tensor_info(alignment)
            if tensor_name in tensors:
                raise self._damaged(f"the tensor {tensor_name[:80]!r} is repeated")
            tensors[tensor_name] = tensor
        data_offset = _aligned(self._at, alignment)
        self._check_coverage(tensors, alignment, data_offset)
        return GgufHeader(tensors, values, array_lengths, data_offset)

    def _tensor_info(self, alignment: int) -> tuple[str, Tensor]:
        name = self._string(_MAX_NAME_BYTES)
        dimensions = self._integer("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name[:80]!r} claims {dimensions} dimensions")
        # The first length is the innermost: rows are what is cut into blocks.
        shape = tuple(self._integer("<Q") for _ in range(dimensions))
        kind = GGML_TYPES.get(self._integer("<I"))
        begin = self._integer("<Q")
        if kind is None:
            raise self._damaged(f"tensor {name[:80]!r} has an unknown type")
        try:
            elements = product(shape)
        except OverflowError:
            raise self._damaged(f"the shape of tensor {name[:80]!r} overflows") from None
        row = shape[0] if shape else 1
        if row % kind.block_elements:
            raise self._damaged(f"a row of tensor {name[:80]!r} is not whole blocks of {kind.name}")
        if begin % alignment:
            raise self._damaged(f"tensor {name[:80]!r} is not aligned to {alignment} bytes")
        end = begin + elements // kind.block_elements * kind.block_bytes
        return name, Tensor(kind.name, shape, begin, end)

    def _check_coverage(self, tensors: dict[str, Tensor], alignment: int, offset: int) -> None:
        """The tensors follow each other, each at the next aligned byte, to the file's end."""
        if not tensors:
            return
        ordered = sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end))
        if ordered[0][1].begin != 0:
            raise self._damaged("the bytes before its first tensor belong to none")
        for (_, before), (name, tensor) in pairwise(ordered):
            if tensor.begin != _aligned(before.end, alignment):
                raise self._damaged(f"tensor {name[:80]!r} overlaps another or leaves a hole")
        end = ordered[-1][1].end
        data_bytes = self._size_bytes - offset
        if not end <= data_bytes <= _aligned(end, alignment):
            raise self._damaged(f"its tensors need {end} bytes of data, it holds {data_bytes}")

    def _value(self, kind: int, key: str) -> Value:
        if kind == _STRING:
            return self._string(HEADER_CAP_BYTES)
        code = _SCALARS.get(kind)
        if code is None:
            raise self._damaged(f"the key {key[:80]!r} has the unknown type {kind}")
        value: Value = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _skip_array(self, key: str) -> int:
        kind, length = self._integer("<I"), self._integer("<Q")
        if kind == _STRING:
            # Each string takes at least its length's 8 bytes: `_take` ends a false claim.
            for _ in range(length):
                self._take(self._integer("<Q"))
        elif kind in _SCALARS:
            self._take(length * struct.calcsize(_SCALARS[kind]))
        else:
            raise self._damaged(f"the array {key[:80]!r} has elements of the unknown type {kind}")
        return length

    def _string(self, cap: int) -> str:
        length = self._integer("<Q")
        if length > cap:
            raise self._damaged(f"a name of {length} bytes is over the cap of {cap}")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self._damaged("a string is not UTF-8") from None

    def _integer(self, code: str) -> int:
        value: int = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > self._limit:
            raise self._damaged(
                f"its header goes beyond {self._limit} bytes (the file's end, or the cap)"
            )
        while len(self._buffer) < end:
            read = self._file.read(max(_STEP_BYTES, end - len(self._buffer)))
            if not read:
                raise self._damaged("it ends within its header")
            self._buffer += read
        taken = bytes(self._buffer[self._at : end])
        self._at = end
        return taken

    def _damaged(self, problem: str) -> DamagedHeader:
        return DamagedHeader(self._name, problem)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
