"""The reader of GGUF headers over bytes that nobody vouches for (R8)."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.registry.formats.ggml import GGML_TYPES
from modelyard.registry.formats.gguf import GgufHeader, read_gguf
from modelyard.registry.formats.tensors import DamagedHeader


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def info(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    lengths = struct.pack(f"<{len(shape)}Q", *shape)
    head = string(name) + struct.pack("<I", len(shape))
    return head + lengths + struct.pack("<IQ", kind, offset)


def build(
    keys: list[bytes],
    infos: list[bytes],
    data: bytes,
    *,
    version: int = 3,
    count: int | None = None,
) -> bytes:
    counted = len(infos) if count is None else count
    head = b"GGUF" + struct.pack("<IQQ", version, counted, len(keys)) + b"".join(keys + infos)
    return head + b"\0" * (-len(head) % 32) + data


def read(tmp_path: Path, contents: bytes) -> GgufHeader:
    path = tmp_path / "m.gguf"
    path.write_bytes(contents)
    return read_gguf(path, "m.gguf")


ARCHITECTURE = key("general.architecture", 8, string("qwen3"))
F32 = info("w", [4], 0, 0)


def test_what_the_reference_writer_writes_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    writer.add_context_length(512)
    writer.add_token_list(["a", "b", "é"])
    writer.add_float32("x.float", 0.5)
    writer.add_array("x.numbers", [1, 2, 3, 4])
    writer.add_tensor("one", np.ones((3, 5), np.float32))
    writer.add_tensor("two", np.ones((2, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = read_gguf(tmp_path / "m.gguf", "m.gguf")

    assert header.values["general.architecture"] == "qwen3"
    assert header.values["qwen3.context_length"] == 512
    assert header.array_lengths == {"tokenizer.ggml.tokens": 3, "x.numbers": 4}
    assert {n: (t.dtype, t.shape, t.begin) for n, t in header.tensors.items()} == {
        "one": ("F32", (5, 3), 0),
        "two": ("F16", (64, 2), 64),
    }


def test_block_sizes_are_those_of_the_reference() -> None:
    ours = {n: (t.name, t.block_elements, t.block_bytes) for n, t in GGML_TYPES.items()}
    theirs = {int(t): (t.name, *sizes) for t, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "header goes beyond 0 bytes"),
        (b"GGML" + b"\0" * 20, "does not begin with 'GGUF'"),
        (build([], [], b"", version=1), "version 1 is not 2 or 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648 is not 2 or 3"),
        (build([], [], b"", count=2**60), "it claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "it claims"),
        (build([], [], b"", count=3), "header goes beyond"),
        (build([key("a", 8, struct.pack("<Q", 2**63))], [], b""), "over the cap"),
        (build([key("a", 9, struct.pack("<IQ", 4, 2**62))], [], b""), "header goes beyond"),
        (build([key("a", 9, struct.pack("<IQ", 8, 2**62))], [], b""), "header goes beyond"),
        (build([key("a", 9, struct.pack("<IQ", 9, 1))], [], b""), "elements of the unknown type 9"),
        (build([key("a", 99, b"")], [], b""), "unknown type 99"),
        (build([ARCHITECTURE, ARCHITECTURE], [], b""), "'general.architecture' is repeated"),
        (build([key("a", 8, struct.pack("<Q", 1) + b"\xff")], [], b""), "not UTF-8"),
        (build([key("general.alignment", 4, struct.pack("<I", 24))], [F32], b""), "alignment 24"),
        (build([key("general.alignment", 4, struct.pack("<I", 0))], [F32], b""), "alignment 0"),
        (build([], [F32, F32], b"\0" * 16), "tensor 'w' is repeated"),
        (build([], [info("w", [1] * 5, 0, 0)], b"\0" * 4), "claims 5 dimensions"),
        (build([], [info("w", [4], 4, 0)], b"\0" * 16), "has an unknown type"),
        (build([], [info("w", [2**40, 2**40], 0, 0)], b""), "overflows"),
        (build([], [info("w", [31], 8, 0)], b"\0" * 34), "not whole blocks of Q8_0"),
        (build([], [info("w", [4], 0, 8)], b"\0" * 24), "not aligned to 32"),
        (build([], [info("w", [4], 0, 32)], b"\0" * 48), "before its first tensor"),
        (build([], [F32, info("v", [4], 0, 0)], b"\0" * 16), "overlaps another or leaves a hole"),
        (build([], [F32, info("v", [4], 0, 64)], b"\0" * 80), "overlaps another or leaves a hole"),
        (build([], [F32], b"\0" * 15), "need 16 bytes of data, it holds 15"),
        (build([], [F32], b"\0" * 33), "need 16 bytes of data, it holds 33"),
        (build([], [info("w", [2**38], 0, 0)], b"\0" * 16), "it holds 16"),
    ],
)
def test_a_damaged_file_is_refused_with_its_fault(
    tmp_path: Path, contents: bytes, problem: str
) -> None:
    with pytest.raises(DamagedHeader, match=rf"m\.gguf is damaged: .*{problem}"):
        read(tmp_path, contents)


SOUND = build(
    [ARCHITECTURE, key("a", 9, struct.pack("<IQ", 8, 1) + string("t"))], [F32], b"\0" * 16
)


@settings(max_examples=200)
@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 8))
def test_changed_bytes_are_refused_or_read_never_worse(
    tmp_path_factory: pytest.TempPathFactory, place: int, noise: bytes, removed: int
) -> None:
    contents = SOUND[:place] + noise + SOUND[place + removed :]
    try:
        header = read(tmp_path_factory.getbasetemp(), contents)
    except DamagedHeader:
        return
    assert all(t.end <= len(contents) for t in header.tensors.values())
