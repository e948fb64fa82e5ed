"""States of a replica and the moves between them, as a table."""

from enum import StrEnum


class ReplicaState(StrEnum):
    STARTING = "starting"
    """Launched; its weights are being loaded."""
    WARMING = "warming"
    """It answers; a real generation has not come back yet."""
    READY = "ready"
    """A real generation came back; it gets traffic."""
    UNHEALTHY = "unhealthy"
    """It was ready and does not answer its probe; it gets no traffic."""
    DRAINING = "draining"
    """It finishes what it has and gets nothing new."""
    STOPPED = "stopped"
    """Its process or container is gone."""


S = ReplicaState
MOVES: dict[ReplicaState, frozenset[ReplicaState]] = {
    S.STARTING: frozenset({S.WARMING, S.DRAINING, S.STOPPED}),
    S.WARMING: frozenset({S.READY, S.DRAINING, S.STOPPED}),
    S.READY: frozenset({S.UNHEALTHY, S.DRAINING, S.STOPPED}),
    S.UNHEALTHY: frozenset({S.READY, S.DRAINING, S.STOPPED}),
    S.DRAINING: frozenset({S.STOPPED}),
    S.STOPPED: frozenset(),
}

ALIVE = frozenset(S) - {S.STOPPED}
"""States in which the replica holds its accelerators and memory."""


def can_move(before: ReplicaState, after: ReplicaState) -> bool:
    """Whether the table allows the move; staying is always allowed."""
    return before == after or after in MOVES[before]
