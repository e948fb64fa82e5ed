from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.records import AttemptOutcome
from modelyard.core.retries import RETRIED, Failure, RetryBudget, decide
from modelyard.core.routes import Retries

OUTCOMES: list[AttemptOutcome] = [
    "completed", "refused", "unreachable", "error_status", "busy", "timeout", "cut", "cancelled",
]  # fmt: skip
failures = st.builds(
    Failure,
    outcome=st.sampled_from(OUTCOMES),
    attempt=st.integers(1, 5),
    untried=st.integers(0, 3),
    left_s=st.floats(-1, 10),
)


@given(failures, st.booleans(), st.floats(0, 1))
def test_a_retry_has_a_reason_a_replica_a_budget_and_time(
    failure: Failure, allows: bool, draw: float
) -> None:
    policy = Retries()

    delay = decide(failure, policy, budget_allows=allows, draw=draw)

    if delay is not None:
        assert failure.outcome in RETRIED
        assert failure.untried > 0
        assert allows
        assert failure.attempt < policy.max_attempts
        assert 0 <= delay <= policy.backoff_max_s
        assert delay < failure.left_s


def test_what_the_request_itself_caused_is_not_retried() -> None:
    for outcome in ("completed", "refused", "timeout", "cancelled"):
        failure = Failure(outcome=outcome, attempt=1, untried=5, left_s=60)  # type: ignore[arg-type]
        assert decide(failure, Retries(), budget_allows=True, draw=0.5) is None


def test_the_budget_is_a_fifth_of_the_last_ten_seconds_with_a_floor() -> None:
    policy = Retries(budget_ratio=0.2, budget_floor_per_s=0.3)
    budget = RetryBudget()
    for _ in range(3):
        assert budget.allows(policy, now=0.5)
        budget.retry(0.5)
    assert not budget.allows(policy, now=0.5)  # the floor of 3 in 10 s is used up

    for _ in range(100):
        budget.request(1.0)
    allowed = 0
    while budget.allows(policy, now=1.5):
        budget.retry(1.5)
        allowed += 1
    assert allowed == 17  # 20 % of 100, less the 3 before

    assert budget.allows(policy, now=30.0)  # all of it is older than 10 s


@given(st.floats(0, 1), st.integers(1, 2))
def test_the_pause_is_drawn_from_nothing_to_a_bound_that_doubles(draw: float, attempt: int) -> None:
    policy = Retries(max_attempts=5, backoff_base_s=0.1, backoff_max_s=0.15)
    failure = Failure(outcome="unreachable", attempt=attempt, untried=1, left_s=60)

    delay = decide(failure, policy, budget_allows=True, draw=draw)

    assert delay == draw * (0.1 if attempt == 1 else 0.15)


def test_the_budget_that_holds_unless_told_otherwise() -> None:
    """Promise G8: a fifth of the requests of the last 10 s, or 3 a second."""
    budget, few = RetryBudget(), RetryBudget()
    for _ in range(1000):
        budget.request(0.0)
    few.request(0.0)

    def allowed(of: RetryBudget) -> int:
        count = 0
        while of.allows(Retries(), now=5.0):
            of.retry(5.0)
            count += 1
        return count

    assert allowed(budget) == 200
    assert allowed(few) == 30
