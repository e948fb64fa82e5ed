"""What the worker needs to know of a GGUF file before the C++ server is handed it.

Only the scalars before the tokenizer's long lists are read, so it costs well under a millisecond;
the registry has validated the file as a whole.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING = 1 << 20
DEFAULT_CONTEXT = 4096
MEMORY_SHARE = 4
"""One part in this many of the free memory goes to attention's keys and values by default."""


class GgufHeader(NamedTuple):
    """Scalars of a GGUF file's metadata that come before its first list."""

    values: dict[str, int | float | bool | str]

    def number(self, key: str, default: int) -> int:
        """A whole number under the architecture's own prefix."""
        value = self.values.get(f"{self.values.get('general.architecture')}.{key}")
        return value if isinstance(value, int) and value > 0 else default


def read_header(path: Path) -> GgufHeader:
    """Read it; raises ValueError when the file is not GGUF, OSError when it can't be read."""
    values: dict[str, int | float | bool | str] = {}
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError(f"{path}: not a GGUF file")
        try:
            version, _tensors, count = struct.unpack("<IQQ", file.read(20))
            if version not in VERSIONS:
                raise ValueError(f"{path}: GGUF version {version} is not known")
            for _ in range(count):
                key = _string(file)
                (kind,) = struct.unpack("<I", file.read(4))
                if kind == _ARRAY:
                    break
                values[key] = _string(file) if kind == _STRING else _scalar(file, kind)
        except (struct.error, KeyError, UnicodeDecodeError, MemoryError) as error:
            raise ValueError(f"{path}: damaged GGUF header") from error
    return GgufHeader(values)


def affordable_context(header: GgufHeader, parallel: int) -> int:
    """Tokens per request: the model's own context, or less where memory for it is short."""
    own = header.number("context_length", DEFAULT_CONTEXT)
    heads = header.number("attention.head_count", 1)
    hidden = header.number("embedding_length", 1)
    head_size = header.number("attention.key_length", hidden // heads)
    kv_width = header.number("attention.head_count_kv", heads) * head_size
    bytes_per_token = 2 * 2 * kv_width * header.number("block_count", 1)  # keys and values, in f16
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    affordable = free // MEMORY_SHARE // (bytes_per_token * parallel)
    return max(min(own, affordable), min(own, 512))


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST_STRING:
        raise ValueError(f"damaged GGUF header: a string of {length} bytes")
    return file.read(length).decode()


def _scalar(file: BinaryIO, kind: int) -> int | float | bool:
    form = "<" + _SCALARS[kind]
    value: int | float | bool = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value
