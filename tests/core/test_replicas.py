from modelyard.core.replicas import ALIVE, MOVES, ReplicaState, can_move


def test_every_state_has_its_moves_and_stopped_is_the_end() -> None:
    assert set(MOVES) == set(ReplicaState)
    assert MOVES[ReplicaState.STOPPED] == frozenset()
    assert ReplicaState.STOPPED not in ALIVE


def test_a_replica_that_drains_never_serves_again() -> None:
    assert not can_move(ReplicaState.DRAINING, ReplicaState.READY)
    assert can_move(ReplicaState.DRAINING, ReplicaState.STOPPED)


def test_ready_is_reached_only_through_a_generation() -> None:
    before_ready = {state for state, after in MOVES.items() if ReplicaState.READY in after}
    assert before_ready == {ReplicaState.WARMING, ReplicaState.UNHEALTHY}
