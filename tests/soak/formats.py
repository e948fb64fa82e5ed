"""Proof: no file, however broken, makes the header readers do worse than refuse it (R8).

Sound files are broken in random ways: bytes flipped, cut out, put in, lengths and counts replaced
by numbers near powers of two, JSON values by others, pieces of two files spliced; and files of
noise. A reader returns a header whose tensors lie side by side in the file, or raises
DamagedHeader with one line. It allocates no more than the file justifies: Python's own peak is
measured for every file, and the process has an address-space limit.
"""

import json
import random
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.soak._proof import Proof, parse, say

from modelyard.registry.formats.gguf import read_gguf
from modelyard.registry.formats.safetensors import BITS, read_safetensors
from modelyard.registry.formats.tensors import DamagedHeader

FILES = 1_000_000
_SPARE_BYTES = 512 * 1024 * 1024
_BASE_BYTES = 4 * 1024 * 1024
"""What a reader may allocate for the smallest file: its read buffer and Python's own."""
_PER_BYTE = 200
_NUMBERS = (
    0, 1, 2, 7, 8, 9, 31, 32, 127, 255, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1,
    2**40, 10**12, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_VALUES = (None, True, [], {}, "", "F32", -1, 0.5, 1, 2**63, 2**64, 10**30, [0], [0, 8], [[1]])
_READERS: dict[str, Callable[[Path, str], Any]] = {
    "safetensors": read_safetensors,
    "gguf": read_gguf,
}


def main(argv: Sequence[str]) -> int:
    """Run the proof; 0 when it holds."""
    proof = parse(argv, "formats: broken headers", count=FILES)
    _limit_memory()
    tracemalloc.start()
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        failures, outcomes, peak = _fuzz(proof, Path(folder) / "file")
    tracemalloc.stop()
    say(f"{dict(sorted(outcomes.items()))}; at most {peak / 1e6:.1f} MB allocated for one file")
    for failure in failures[:20]:
        say(f"  {failure}")
    say("holds" if not failures else f"FAILS {len(failures)} times")
    return 0 if not failures else 1


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_BYTES, hard))


def _fuzz(proof: Proof, path: Path) -> tuple[list[str], Counter[str], int]:
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    highest = 0
    begun = told = time.monotonic()
    for number in range(proof.count):
        kind = "safetensors" if number % 2 else "gguf"
        contents = _broken(kind, proof.random)
        path.write_bytes(contents)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        outcome = _read(kind, path, len(contents))
        peak = tracemalloc.get_traced_memory()[1] - before
        highest = max(highest, peak)
        if peak > _BASE_BYTES + _PER_BYTE * len(contents):
            outcome = f"allocated {peak} bytes"
        if outcome not in ("read", "refused"):
            failures.append(f"{kind} {number}: {outcome}: {contents[:200]!r}")
        outcomes[f"{kind} {outcome[:40]}"] += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(f"  {number} files in {told - begun:.0f} s")
    return failures, outcomes, highest


def _read(kind: str, path: Path, size_bytes: int) -> str:
    try:
        header = _READERS[kind](path, "file")
    except DamagedHeader as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 1000 else f"said {error}"
    except Exception as error:  # noqa: BLE001 - whatever else comes is what this looks for
        return f"raised {type(error).__name__}: {str(error)[:100]}"
    reached = 0
    spans = sorted((t.begin, t.end) for t in header.tensors.values())
    for begin, end in spans:
        if begin < reached or end < begin:
            return f"accepted overlapping tensors {spans[:4]}"
        reached = end
    if header.data_offset + reached > size_bytes and spans:
        return f"accepted tensors beyond the file's {size_bytes} bytes"
    return "read"


def _broken(kind: str, draw: random.Random) -> bytes:
    make = _safetensors if kind == "safetensors" else _gguf
    style = draw.random()
    if style < 0.05:
        return b"GGUF" * (kind == "gguf") + draw.randbytes(draw.randrange(400))
    data = bytearray(make(draw))
    if style < 0.15:
        other = make(draw)
        data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 8))):
        draw.choice(_BREAKS)(data, draw)
    return bytes(data)


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice(b'\x00\xff{}[]",:09\\ \x80')


def _cut(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    del data[at : at + draw.choice((1, 1, 4, 8, 64, 10_000))]


def _insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.randbytes(draw.choice((1, 1, 4, 8, 64)))


def _repeat(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    piece = data[at : at + draw.randrange(1, 80)]
    data[at:at] = piece * draw.choice((1, 1, 2, 500))


def _number(data: bytearray, draw: random.Random) -> None:
    code, size = draw.choice((("<I", 4), ("<Q", 8)))
    at = draw.randrange(len(data) + 1)
    value = draw.choice(_NUMBERS) % 2 ** (8 * size)
    data[at : at + size] = struct.pack(code, value)


def _digits(data: bytearray, draw: random.Random) -> None:
    """Another number in the place of one in JSON."""
    places = [place for place, byte in enumerate(data[:4000]) if byte in b"0123456789"]
    if places:
        at = draw.choice(places)
        data[at : at + 1] = str(draw.choice(_NUMBERS)).encode()


_BREAKS = (_flip, _set, _cut, _insert, _repeat, _number, _digits)


def _safetensors(draw: random.Random) -> bytes:
    header: dict[str, Any] = {}
    reached = 0
    if draw.random() < 0.5:
        header["__metadata__"] = {"format": "pt"}
    for number in range(draw.randrange(5)):
        dtype = draw.choice(sorted(BITS))
        shape = [draw.randrange(5) for _ in range(draw.randrange(4))] + [8]
        size_bytes = BITS[dtype] // 2 * 2  # times 8 values, of 8 bits each byte
        for length in shape[:-1]:
            size_bytes *= length
        offsets = [reached, reached + size_bytes]
        header[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        reached += size_bytes
    if header and draw.random() < 0.3:
        entry = draw.choice(list(header.values()))
        entry[draw.choice(sorted(entry))] = draw.choice(_VALUES)
    text = json.dumps(header).encode() + b" " * draw.choice((0, 0, 7))
    if draw.random() < 0.03:
        nested = draw.choice((b"[", b'{"a":')) * draw.choice((10, 2_000, 100_000))
        text = b'{"a":' + nested
    return struct.pack("<Q", len(text)) + text + bytes(reached)


def _gguf(draw: random.Random) -> bytes:
    keys = [_string("general.architecture") + struct.pack("<I", 8) + _string("qwen3")]
    for number in range(draw.randrange(4)):
        value = draw.choice(
            (
                struct.pack("<II", 4, draw.choice(_NUMBERS) % 2**32),
                struct.pack("<IQ", 10, draw.choice(_NUMBERS)),
                struct.pack("<IIQ", 9, 4, 3) + bytes(12),
                struct.pack("<IIQ", 9, 8, 2) + _string("one") + _string("two"),
                struct.pack("<I?", 7, True),
            )
        )
        keys.append(_string(f"key{number}") + value)
    infos, reached = [], 0
    for number in range(draw.randrange(4)):
        shape = [draw.choice((32, 64))] + [draw.randrange(1, 3) for _ in range(draw.randrange(3))]
        count = 1
        for length in shape:
            count *= length
        kind, size_bytes = draw.choice(((0, count * 4), (1, count * 2), (8, count // 32 * 34)))
        infos.append(
            _string(f"t{number}")
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, reached)
        )
        reached += -(-size_bytes // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", draw.choice((2, 3)), len(infos), len(keys))
    head += b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(reached)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
