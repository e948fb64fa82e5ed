"""The golden files: `python tests/contracts/make_golden.py` writes them anew.

A changed golden file is a changed contract: say in the commit why, and what a process of the older
version does with the newer message.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "golden"


def contents() -> Mapping[str, bytes]:
    """What every golden file should hold, by file name."""
    from tests.contracts import examples, management

    files = {
        f"{name}.json": _pretty(msgspec.json.encode(message))
        for name, message in examples.MESSAGES.items()
    }
    for name, model in management.MESSAGES.items():
        files[f"{name}.json"] = _pretty(model.model_dump_json().encode())
    files["management.schema.json"] = _pretty(
        json.dumps(management.schema(), sort_keys=True).encode()
    )
    return files


def _pretty(encoded: bytes) -> bytes:
    return msgspec.json.format(encoded, indent=2) + b"\n"


def main() -> None:
    """Write what changed, remove what is no longer a contract, say so."""
    wanted = contents()
    FOLDER.mkdir(exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        if path.name not in wanted:
            path.unlink()
            sys.stdout.write(f"removed {path.name}\n")
    for name, content in wanted.items():
        path = FOLDER / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
