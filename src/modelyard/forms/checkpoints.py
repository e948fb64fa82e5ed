"""The weights of a folder in Hugging Face form, by memory map."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelyard.core.errors import InvalidRequest
from modelyard.registry.formats.safetensors import read_safetensors

STORED: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}
"""What a dtype is read as; numpy has no bfloat16, so its bits are carried as whole numbers."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor and where its values lie."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    """First byte, from the beginning of the file."""
    size_bytes: int

    def read(self) -> npt.NDArray[Any]:
        """The values, mapped: no memory is taken until they are used."""
        return np.memmap(self.file, STORED[self.dtype], "r", self.offset, self.shape)


def read_weights(folder: Path) -> dict[str, Weights]:
    """Every tensor of every shard, by name.

    Raises DamagedHeader for a broken file, InvalidRequest when two files hold the same tensor.
    """
    found: dict[str, Weights] = {}
    for path in sorted(folder.glob("*.safetensors")):
        header = read_safetensors(path, path.name)
        for name, tensor in header.tensors.items():
            if name in found:
                raise InvalidRequest(
                    f"{path.name} and {found[name].file.name} both hold {name}",
                    next_step="keep one set of weight files in the folder, and register it again",
                )
            found[name] = Weights(
                dtype=tensor.dtype,
                shape=tensor.shape,
                file=path,
                offset=header.data_offset + tensor.begin,
                size_bytes=tensor.end - tensor.begin,
            )
    return found
