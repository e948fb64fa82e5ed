"""A golden model's folder again, its weights stored in another precision that holds them all."""

import json
import shutil
from pathlib import Path

import numpy as np

from modelyard.forms.checkpoints import read_weights


def recast(source: Path, target: Path, dtype: str) -> Path:
    """Copy the folder; its float16 weights become `dtype`, with the very same values."""
    shutil.copytree(source, target)
    header: dict[str, object] = {}
    data = b""
    for name, weights in read_weights(source).items():
        wide = weights.read().astype("<f4")
        stored = {
            "F32": wide,
            "F16": wide.astype("<f2"),
            "BF16": (wide.view("<u4") >> np.uint32(16)).astype("<u2"),
        }[dtype].tobytes()
        offsets = [len(data), len(data) + len(stored)]
        header[name] = {"dtype": dtype, "shape": weights.shape, "data_offsets": offsets}
        data += stored
    encoded = json.dumps(header).encode()
    whole = len(encoded).to_bytes(8, "little") + encoded + data
    (target / "model.safetensors").write_bytes(whole)
    return target
