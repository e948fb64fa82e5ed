"""The reader of safetensors headers over bytes that nobody vouches for (R8)."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.registry.formats.safetensors import BITS, parse_header, read_safetensors
from modelyard.registry.formats.tensors import DamagedHeader


def tensor(shape: Any, begin: Any, end: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def parse(header: Any, data_bytes: int) -> dict[str, tuple[int, int]]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    tensors = parse_header(text, data_bytes, "f.safetensors").tensors
    return {name: (found.begin, found.end) for name, found in tensors.items()}


def test_a_sound_header_is_read() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor([2, 3], 4, 16, "F16"),
        "a": tensor([], 0, 4, "F32"),
        "none": tensor([0, 7], 16, 16, "BF16"),
        "half": tensor([3], 16, 18, "F4") | {"shape": [4]},
    }
    assert parse(header, 18) == {"b": (4, 16), "a": (0, 4), "none": (16, 16), "half": (16, 18)}


def test_trailing_spaces_are_padding() -> None:
    assert parse(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   ', 1) == {"a": (0, 1)}


@pytest.mark.parametrize(
    ("header", "data_bytes", "problem"),
    [
        (b"", 0, "does not begin with '{'"),
        (b" {}", 0, "does not begin with '{'"),
        (b"{} x", 0, "not valid JSON"),
        (b'{"\xff":1}', 0, "not valid JSON"),
        (b"{" + b'"a":{' * 5000, 0, "not valid JSON"),
        (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 0, "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", 0, "not valid JSON"),
        (b"{" + b"," * 3_000_000, 0, "lists more than any model has"),
        (b'{"a":NaN}', 0, "holds the number NaN"),
        (b'{"a":1e3}', 0, "holds the number 1e3"),
        (b'{"a":{},"a":{}}', 0, "repeats a key"),
        (b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1, "repeats a key"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__ is not a map of strings"),
        ({"__metadata__": []}, 0, "__metadata__ is not a map of strings"),
        ({"a": []}, 0, "has not dtype, shape and data_offsets alone"),
        ({"a": tensor([1], 0, 1) | {"more": 1}}, 1, "has not dtype, shape and data_offsets alone"),
        ({"a": tensor([1], 0, 1, "F12")}, 1, "unknown dtype 'F12'"),
        ({"a": tensor([1], 0, 1, ["U8"])}, 1, "unknown dtype"),
        ({"a": tensor([-1], 0, 1)}, 1, "shape that is not a list of sizes"),
        ({"a": tensor([True], 0, 1)}, 1, "shape that is not a list of sizes"),
        ({"a": tensor("1", 0, 1)}, 1, "shape that is not a list of sizes"),
        ({"a": tensor([1] * 65, 0, 1)}, 1, "shape that is not a list of sizes"),
        ({"a": tensor([2**40, 2**40], 0, 1)}, 1, "shape of tensor 'a' overflows"),
        ({"a": tensor([2**40], 0, 2**40)}, 1, "belong to no tensor|cut short"),
        ({"a": tensor([1], -1, 0)}, 1, "data_offsets that are not two offsets"),
        ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, 1, "not two offsets"),
        ({"a": tensor([2], 0, 1)}, 1, "needs 2 bytes, its offsets give 1"),
        ({"a": tensor([3], 0, 1, "F4")}, 1, "needs 1.5 bytes"),
        ({"a": tensor([1], 1, 0)}, 1, "needs 1 bytes, its offsets give -1"),
        ({"a": tensor([2], 0, 2), "b": tensor([2], 1, 3)}, 3, "'b' overlaps"),
        ({"a": tensor([2], 0, 2), "b": tensor([2], 0, 2)}, 2, "overlaps"),
        ({"a": tensor([1], 0, 1), "b": tensor([1], 2, 3)}, 3, "bytes 1 to 2 .* belong to no"),
        ({"a": tensor([1], 1, 2)}, 2, "bytes 0 to 1 .* belong to no"),
        ({"a": tensor([1], 0, 1)}, 2, "bytes 1 to 2 .* belong to no"),
        ({"a": tensor([4], 0, 4)}, 3, "cut short"),
    ],
)
def test_a_damaged_header_is_refused_with_its_fault(
    header: Any, data_bytes: int, problem: str
) -> None:
    with pytest.raises(DamagedHeader, match=problem):
        parse(header, data_bytes)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "too few"),
        (b"\x00" * 7, "too few"),
        (struct.pack("<Q", 10**12) + b"{}", "over the cap"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "over the cap"),
        (struct.pack("<Q", 3) + b"{}", "claims 3 bytes of a file of 10"),
    ],
)
def test_a_false_length_allocates_nothing(tmp_path: Path, contents: bytes, problem: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(contents)
    with pytest.raises(DamagedHeader, match=rf"model\.safetensors is damaged: .*{problem}"):
        read_safetensors(path, "model.safetensors")


layouts = st.lists(
    st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 4), max_size=3)), max_size=5
)


@given(layouts)
def test_any_gapless_layout_is_read(layout: list[tuple[str, list[int]]]) -> None:
    header, reached = {}, 0
    for number, (dtype, shape) in enumerate(layout):
        padded = [*shape, 8]  # whole bytes for the dtypes of 4 and 6 bits
        size = BITS[dtype]
        for length in shape:
            size *= length
        header[str(number)] = tensor(padded, reached, reached + size, dtype)
        reached += size
    assert len(parse(header, reached)) == len(layout)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_arbitrary_bytes_are_refused_or_read_never_worse(noise: bytes, data_bytes: int) -> None:
    for header in (noise, b"{" + noise, b'{"a":' + noise + b"}"):
        with contextlib.suppress(DamagedHeader):
            parse_header(header, data_bytes, "f")


@given(st.data())
def test_one_changed_byte_is_refused_or_still_covers_the_data(data: st.DataObject) -> None:
    text = bytearray(
        json.dumps({"a": tensor([2, 2], 0, 8, "F16"), "b": tensor([3], 8, 11)}).encode()
    )
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_header(bytes(text), 11, "f").tensors.values()
    except DamagedHeader:
        return
    assert sum(each.end - each.begin for each in found) == 11
