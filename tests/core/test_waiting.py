from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.keys import Priority
from modelyard.core.waiting import ORDER, Line

priorities: st.SearchStrategy[Priority] = st.sampled_from(list(ORDER))


@given(st.lists(priorities, max_size=30), st.integers(0, 8))
def test_the_line_is_bounded_and_the_lowest_and_latest_goes(
    comers: list[Priority], max_waiting: int
) -> None:
    line: Line[tuple[int, Priority]] = Line()
    for number, priority in enumerate(comers):
        ticket = (number, priority)
        before = [each for _, each in line.tickets()]
        gone = line.join(ticket, priority, max_waiting)

        assert len(line) <= max_waiting
        if gone is not None:
            everybody = [*before, ticket]
            lowest = max(ORDER.index(each[1]) for each in everybody)
            assert ORDER.index(gone[1]) == lowest
            assert gone[0] == max(each[0] for each in everybody if ORDER.index(each[1]) == lowest)
    served = [ticket for _, ticket in line.tickets()]
    assert served == sorted(served, key=lambda each: (ORDER.index(each[1]), each[0]))


def test_a_newcomer_waits_behind_its_equals_and_betters() -> None:
    line: Line[str] = Line()
    line.join("a", "normal", 5)
    assert line.ahead_of("normal")
    assert line.ahead_of("low")
    assert not line.ahead_of("high")
    line.leave("a", "normal")
    line.leave("never there", "normal")
    assert not line.ahead_of("low")
