from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.affinity import BLOCK_BYTES, MAX_BLOCKS, PrefixIndex, prefix_keys


def keys(text: bytes, tenant: str = "t", digest: str = "d") -> list[bytes]:
    return prefix_keys(tenant, digest, [text])


@given(st.binary(max_size=4000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_equal_beginnings_have_equal_keys_and_others_do_not(
    start: bytes, one: bytes, other: bytes
) -> None:
    first, second = keys(start + one), keys(start + other)
    shared = len(start) // BLOCK_BYTES
    assert first[:shared] == second[:shared]
    for place, (a, b) in enumerate(zip(first, second, strict=False), 1):
        same = (start + one)[: place * BLOCK_BYTES] == (start + other)[: place * BLOCK_BYTES]
        assert (a == b) is same


@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_how_a_prompt_is_cut_into_parts_does_not_matter(parts: list[bytes]) -> None:
    assert prefix_keys("t", "d", parts) == keys(b"".join(parts))


def test_tenants_and_versions_share_nothing() -> None:
    text = b"x" * 5000
    assert not set(keys(text)) & set(keys(text, tenant="u"))
    assert not set(keys(text)) & set(keys(text, digest="e"))


def test_the_longest_beginning_wins_and_others_are_passed_over() -> None:
    index = PrefixIndex()
    index.note(keys(b"a" * 3 * BLOCK_BYTES), "r1")
    index.note(keys(b"a" * 5 * BLOCK_BYTES + b"b" * BLOCK_BYTES), "r2")

    assert index.find(keys(b"a" * 6 * BLOCK_BYTES), {"r1", "r2"}) == ("r2", 5)
    assert index.find(keys(b"a" * 6 * BLOCK_BYTES), {"r1"}) == (None, 0)
    assert index.find(keys(b"z" * 6 * BLOCK_BYTES), {"r1", "r2"}) == (None, 0)
    assert index.find(keys(b"a" * 10), {"r1", "r2"}) == (None, 0)  # shorter than a block


@given(st.lists(st.integers(0, 30), max_size=200))
def test_it_never_grows_over_its_bound(prompts: list[int]) -> None:
    """Promise G12: bounded in memory, whatever comes and for however long."""
    index = PrefixIndex(max_keys=20)
    for prompt in prompts:
        index.note(keys(bytes([prompt]) * (prompt % 7 + 1) * BLOCK_BYTES), f"r{prompt % 3}")
        assert len(index) <= 20


def test_a_request_however_long_costs_a_bounded_number_of_keys() -> None:
    assert len(keys(b"x" * 10_000_000)) == MAX_BLOCKS


def test_what_is_used_stays() -> None:
    index = PrefixIndex(max_keys=4)
    index.note(keys(b"a" * 2 * BLOCK_BYTES), "r1")
    for other in range(10):
        index.note(keys(bytes([98 + other]) * BLOCK_BYTES), "r2")
        index.note(keys(b"a" * 2 * BLOCK_BYTES), "r1")
    assert index.find(keys(b"a" * 2 * BLOCK_BYTES), {"r1"}) == ("r1", 2)
