"""Slots, queue, prefill and decode steps, without a clock or a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.fake_server.scheduler import Scheduler, Sequence, Timing


def scheduler(
    *, parallel: int = 2, max_waiting: int = 2, timing: Timing | None = None
) -> Scheduler[Sequence]:
    return Scheduler(
        parallel=parallel, max_waiting=max_waiting, timing=timing or Timing(step_base_s=1.0)
    )


def test_beyond_the_slots_they_wait_in_order_and_beyond_the_queue_they_are_refused() -> None:
    engine = scheduler()
    sequences = [Sequence() for _ in range(5)]
    placed = [engine.submit(sequence, 0.0) for sequence in sequences]
    assert placed == ["running", "running", "waiting", "waiting", "full"]
    assert (engine.running, engine.waiting) == (2, 2)
    engine.leave(sequences[0], 0.0)
    assert sequences[2].slot == 0
    assert (engine.running, engine.waiting) == (2, 1)


def test_each_step_gives_each_running_sequence_one_token() -> None:
    engine = scheduler()
    first, second = Sequence(stops_at=3), Sequence(stops_at=2)
    engine.submit(first, 0.0)
    engine.submit(second, 0.5)
    assert engine.next_at() == 1.0
    assert engine.advance(0.9) == []
    assert engine.advance(1.0) == [first]  # the second came amid the step
    assert engine.advance(2.0) == [first, second]
    assert engine.advance(3.0) == [first, second]
    assert (first.made, second.made) == (3, 2)
    assert engine.next_at() is None  # both stopped, and keep their slots until they leave
    assert engine.running == 2


def test_a_larger_batch_takes_longer_steps() -> None:
    engine = scheduler(parallel=8, timing=Timing(step_base_s=1.0, step_per_request_s=0.5))
    for _ in range(4):
        engine.submit(Sequence(stops_at=9), 0.0)
    assert engine.next_at() == 1.5  # the first one's step began alone
    assert len(engine.advance(1.5)) == 1
    assert engine.next_at() == 1.5 + 3.0


def test_prompts_are_read_one_at_a_time() -> None:
    engine = scheduler(timing=Timing(prefill_tokens_per_s=10.0, step_base_s=0.1))
    first, second = Sequence(20, stops_at=9), Sequence(10, stops_at=9)
    engine.submit(first, 0.0)
    engine.submit(second, 0.0)
    assert engine.next_at() == 2.0
    assert engine.advance(2.0) == []
    assert engine.advance(2.1) == [first]
    while not second.made:
        engine.advance(engine.next_at() or 0.0)
    assert first.made > 5


def test_a_prompt_given_up_frees_the_reader_at_once() -> None:
    engine = scheduler(timing=Timing(prefill_tokens_per_s=10.0, step_base_s=0.1))
    first, second = Sequence(1000), Sequence(10)
    engine.submit(first, 0.0)
    engine.submit(second, 0.0)
    engine.leave(first, 1.0)
    assert engine.next_at() == 2.0


def test_a_delayed_sequence_holds_its_slot_and_gives_nothing_until_then() -> None:
    engine = scheduler()
    slow = Sequence(delay_s=5.0)
    engine.submit(slow, 0.0)
    assert engine.next_at() == 5.0
    assert engine.advance(5.0) == []
    assert engine.advance(6.0) == [slow]


def test_one_that_never_decodes_holds_its_slot() -> None:
    engine = scheduler()
    engine.submit(Sequence(stops_at=0), 0.0)
    assert engine.next_at() is None
    assert engine.running == 1


def test_steps_do_not_drift_and_do_not_rush_after_a_pause() -> None:
    engine = scheduler()
    engine.submit(Sequence(stops_at=99), 0.0)
    engine.advance(1.2)
    assert engine.next_at() == 2.0
    engine.advance(7.0)
    assert engine.next_at() == 8.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["submit", "leave", "advance"]), st.integers(0, 7)), max_size=80
    ),
    st.sampled_from([0.0, 5.0]),
    st.sampled_from([0.0, 0.25]),
)
def test_slots_and_queue_stay_right_whatever_happens(
    moves: list[tuple[str, int]], prefill: float, step: float
) -> None:
    engine = scheduler(
        parallel=3,
        max_waiting=3,
        timing=Timing(prefill_tokens_per_s=prefill, step_base_s=step),
    )
    alive: list[Sequence] = []
    now = 0.0
    for move, number in moves:
        now += 0.1
        if move == "submit":
            sequence = Sequence(number, stops_at=number, delay_s=number % 2)
            if engine.submit(sequence, now) != "full":
                alive.append(sequence)
        elif move == "leave" and alive:
            engine.leave(alive.pop(number % len(alive)), now)
        else:
            for sequence in engine.advance(now):
                assert sequence in alive
                assert sequence.made <= sequence.stops_at
        assert engine.running == min(3, len(alive))
        assert engine.waiting == max(0, len(alive) - 3)
    for sequence in alive:
        engine.leave(sequence, now)
    assert (engine.running, engine.waiting, engine.next_at()) == (0, 0, None)


def test_nothing_takes_time_by_default() -> None:
    assert Timing().instant
    assert Timing(prefill_tokens_per_s=4.0).prefill_s(2) == pytest.approx(0.5)
