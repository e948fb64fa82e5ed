import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire.sse import DONE, EventSplitter, data_of, event

lines = st.sampled_from([b"data: {}", b"data:x", b": ping", b"event: a", b"data: [DONE]", b"id: 1"])
events = st.lists(
    st.tuples(st.lists(lines, min_size=1, max_size=3), st.sampled_from([b"\n", b"\r\n"])).map(
        lambda drawn: drawn[1].join(drawn[0]) + drawn[1] * 2
    ),
    max_size=8,
)


@given(events, st.lists(st.integers(0, 400), max_size=12))
def test_how_a_stream_is_chunked_changes_nothing(whole: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(whole)
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = EventSplitter()

    found = [one for begin, end in pairwise(borders) for one in splitter.feed(stream[begin:end])]

    assert found == whole
    assert splitter.rest == b""


def test_what_has_not_ended_is_kept() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == [b"data: a\n\n"]
    assert splitter.rest == b"data: b"


def test_an_event_without_end_does_not_grow_memory() -> None:
    splitter = EventSplitter(limit_bytes=100)
    with pytest.raises(ValueError, match="larger than 100"):
        splitter.feed(b"data: " + b"x" * 200)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\r\n\r\n", b"{}"),
        (b"event: x\ndata: a\ndata: b\n\n", b"a\nb"),
        (b": comment\n\n", None),
        (event(DONE), DONE),
    ],
)
def test_data_lines_are_joined(text: bytes, expected: bytes | None) -> None:
    assert data_of(text) == expected


def test_a_burst_of_events_takes_time_in_proportion() -> None:
    """A slow client's replica is read in large pieces: they must not hold up everybody else."""
    burst = b"data: {}\n\n" * 50_000 + b"data: {"
    for text in (burst, burst.replace(b"\n", b"\r\n")):
        begun = time.perf_counter()
        assert len(EventSplitter().feed(text)) == 50_000
        assert time.perf_counter() - begun < 1


def test_a_large_event_in_small_pieces_is_read_once() -> None:
    splitter = EventSplitter()
    assert not [one for _ in range(2000) for one in splitter.feed(b"x" * 100)]
    assert splitter.feed(b"\r\n\r") == []
    (whole,) = splitter.feed(b"\n")
    assert len(whole) == 200_004
