"""A broken version on purpose: the weights of a whole one in another order."""

import shutil
from pathlib import Path


def shuffled(source: Path, target: Path, seed: int) -> None:
    """Copy a model's folder, the numbers of each of its tensors in a random order.

    Everything that reads the files finds them sound: shapes, types, sizes are as they were. Only
    asking the model shows that it knows nothing any more.
    """
    import numpy

    shutil.copytree(source, target)
    draws = numpy.random.default_rng(seed)
    weights = target / "model.safetensors"
    content = bytearray(weights.read_bytes())
    for first, end in _tensors(bytes(content)):
        numbers = numpy.frombuffer(content, dtype="<u2", count=(end - first) // 2, offset=first)
        numbers[:] = draws.permutation(numbers)
    weights.chmod(0o644)
    weights.write_bytes(content)


def _tensors(content: bytes) -> list[tuple[int, int]]:
    """Where each tensor's bytes lie; of the 16 bit types that yardling has."""
    import json

    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    begin = 8 + length
    return [
        (begin + first, begin + end)
        for first, end in (tensor["data_offsets"] for tensor in header.values())
    ]
