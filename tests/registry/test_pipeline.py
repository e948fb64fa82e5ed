"""Reading, and several sinks at once."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.registry.pipeline import CHUNK_BYTES, Pipeline


def source(data: bytes) -> Callable[[memoryview], int]:
    at = 0

    def fill(buffer: memoryview) -> int:
        nonlocal at
        part = data[at : at + len(buffer)]
        buffer[: len(part)] = part
        at += len(part)
        return len(part)

    return fill


@settings(max_examples=25, deadline=None)
@given(chunks=st.integers(0, 20), rest=st.integers(0, CHUNK_BYTES), sinks=st.integers(1, 3))
def test_every_sink_gets_every_byte_in_order(chunks: int, rest: int, sinks: int) -> None:
    data = os.urandom(chunks * CHUNK_BYTES + rest)
    got = [bytearray() for _ in range(sinks)]
    counts: list[int] = []

    def advance(count: int) -> bool:
        counts.append(count)
        return True

    Pipeline([into.extend for into in got]).run(source(data), advance)

    assert all(bytes(each) == data for each in got)
    assert sum(counts) == len(data)


@pytest.mark.parametrize("failing_at", [0, 3, 19])
def test_a_sink_that_fails_ends_it_and_is_told(failing_at: int) -> None:
    seen: list[int] = []

    def fails(view: memoryview) -> None:
        if len(seen) == failing_at:
            raise OSError("the disk is gone")
        seen.append(len(view))

    with pytest.raises(OSError, match="the disk is gone"):
        Pipeline([fails, lambda _view: None]).run(
            source(bytes(20 * CHUNK_BYTES)), lambda _count: True
        )
    assert len(seen) == failing_at


def test_a_reader_that_fails_ends_it() -> None:
    def fill(_buffer: memoryview) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([lambda _view: None]).run(fill, lambda _count: True)


def test_it_stops_when_told_to() -> None:
    got = bytearray()
    Pipeline([got.extend]).run(source(bytes(9 * CHUNK_BYTES)), lambda _count: False)
    assert len(got) == CHUNK_BYTES
