"""safetensors: 8 bytes of header length, a JSON header, the tensors' bytes without holes.

After the format's own specification (huggingface/safetensors, README "Format"), and stricter
where two readers could understand one file differently: repeated keys are refused at every level.
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from modelyard.registry.formats.tensors import (
    HEADER_CAP_BYTES,
    MAX_TENSORS,
    DamagedHeader,
    Tensor,
    product,
)

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per value of each dtype."""
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 64
# A tensor's entry has about eight; objects, and so memory, are bounded before parsing.
_MAX_SEPARATORS = 8 * MAX_TENSORS


class SafetensorsHeader(msgspec.Struct, frozen=True):
    """A validated header."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    data_offset: int
    """Where the data begin, in bytes from the beginning of the file."""


def read_safetensors(path: Path, name: str) -> SafetensorsHeader:
    """Read and check the header of the file at `path`, called `name` in errors.

    Raises DamagedHeader; OSError when the file can't be read.
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size_bytes < _LENGTH_BYTES + 2:
            raise DamagedHeader(name, f"{size_bytes} bytes are too few for a header")
        if length > HEADER_CAP_BYTES:
            raise DamagedHeader(
                name, f"its header claims {length} bytes, over the cap of {HEADER_CAP_BYTES}"
            )
        if length > size_bytes - _LENGTH_BYTES:
            raise DamagedHeader(
                name, f"its header claims {length} bytes of a file of {size_bytes} bytes"
            )
        header = file.read(length)
    data_offset = _LENGTH_BYTES + length
    return parse_header(header, size_bytes - data_offset, name)


def parse_header(header: bytes, data_bytes: int, name: str) -> SafetensorsHeader:
    """Check a header over `data_bytes` bytes of data; raises DamagedHeader."""
    fields = _parse_json(header, name)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DamagedHeader(name, "__metadata__ is not a map of strings")
    if len(fields) > MAX_TENSORS:
        raise DamagedHeader(name, f"it lists {len(fields)} tensors, over the cap of {MAX_TENSORS}")
    tensors = {key: _tensor(key, value, name) for key, value in fields.items()}
    _check_coverage(tensors, data_bytes, name)
    return SafetensorsHeader(tensors, metadata, _LENGTH_BYTES + len(header))


def _parse_json(header: bytes, name: str) -> dict[str, Any]:
    if header[:1] != b"{":
        raise DamagedHeader(name, "its header does not begin with '{'")
    if sum(map(header.count, (b",", b"{", b"["))) > _MAX_SEPARATORS:
        raise DamagedHeader(name, "its header lists more than any model has")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(items)
        if len(fields) != len(items):
            raise DamagedHeader(name, "its header repeats a key")
        return fields

    def refuse(text: str) -> NoReturn:
        raise DamagedHeader(name, f"its header holds the number {text[:20]}")

    try:
        fields = json.loads(
            header.decode(), object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse
        )
    except (ValueError, RecursionError) as error:
        raise DamagedHeader(name, f"its header is not valid JSON ({str(error)[:80]})") from error
    if not isinstance(fields, dict):
        raise DamagedHeader(name, "its header is not a JSON object")
    return fields


def _tensor(key: str, value: Any, name: str) -> Tensor:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise DamagedHeader(name, f"tensor {key!r} has not dtype, shape and data_offsets alone")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise DamagedHeader(name, f"tensor {key!r} has the unknown dtype {str(dtype)[:20]!r}")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise DamagedHeader(name, f"tensor {key!r} has a shape that is not a list of sizes")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise DamagedHeader(name, f"tensor {key!r} has data_offsets that are not two offsets")
    try:
        bits = product(tuple(shape)) * BITS[dtype]
    except OverflowError:
        raise DamagedHeader(name, f"the shape of tensor {key!r} overflows") from None
    begin, end = offsets
    if bits != (end - begin) * 8:
        raise DamagedHeader(
            name, f"tensor {key!r} needs {bits / 8:g} bytes, its offsets give {end - begin}"
        )
    return Tensor(dtype, tuple(shape), begin, end)


def _is_sizes(value: Any) -> bool:
    # bool is an int to Python: `true` is no size.
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_coverage(tensors: dict[str, Tensor], data_bytes: int, name: str) -> None:
    """The tensors follow each other without overlap or hole, from the first byte to the last."""
    reached = 0
    ordered = sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end))
    for key, begin, end in chain(
        ((key, tensor.begin, tensor.end) for key, tensor in ordered),
        [("the end of the file", data_bytes, data_bytes)],
    ):
        if begin < reached:
            problem = f"{key!r} overlaps what is before it, or the file is cut short"
            raise DamagedHeader(name, f"{problem} (byte {begin} of its data)")
        if begin > reached:
            raise DamagedHeader(
                name, f"bytes {reached} to {begin} of its data, before {key!r}, belong to no tensor"
            )
        reached = end
