"""What is made of requests, over restarts of the controller and however many there are."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from modelyard.control.judging import Judge
from modelyard.control.ledger import Ledger
from modelyard.control.smoke import SmokeTester
from modelyard.core.canary import CanaryRules
from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.records import RequestRecord
from modelyard.core.rollout import Entry, Phase, Plan, Rollout, Step, begin
from modelyard.core.scores import Score
from modelyard.state.records import Records
from modelyard.state.store import Store, open_sqlite

BLUE = SlotSpec(model="small", version=1, digest="sha256:1", engine="fake", generation=1)
GREEN = SlotSpec(model="small", version=2, digest="sha256:2", engine="fake", generation=2)
CANARY = Plan(
    strategy="canary",
    steps=(Step(share=0.2), Step(share=0.5)),
    canary=CanaryRules(min_requests=10),
)
BEGAN = 100.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = open_sqlite(tmp_path / "state.db")
    yield one
    one.close()


def rollout(
    phase: Phase, *, plan: Plan = CANARY, step: int = 0, entered_at: float = BEGAN
) -> Rollout:
    begun = begin("small-2", plan, candidate="green", before="blue", now=0.0)
    steps = tuple(
        Entry(at=at, phase=Phase.STEPPING, step=number, why="")
        for number, at in enumerate(sorted({BEGAN, entered_at}))
    )
    return msgspec.structs.replace(
        begun, phase=phase, step=step, entered_at=entered_at, history=(*begun.history, *steps)
    )


def deployment(moving: Rollout) -> Deployment:
    one = Deployment(name="small", blue=BLUE, green=GREEN, created_at=0.0)
    return one.with_rollout(moving)


def record(number: int, spec: SlotSpec, at: float) -> RequestRecord:
    return RequestRecord(
        request_id=f"{spec.version}-{number}", gateway="g", received_at=at, operation="chat",
        stream=True, outcome="completed", status=200, model="small", deployment="small",
        slot="green" if spec is GREEN else "blue", version=spec.version, digest=spec.digest,
        ttft_s=0.1, itl_mean_s=0.01, e2e_s=0.5, completion_tokens=20, finish_reason="stop",
    )  # fmt: skip


def records(count: int, first: int = 0, at: float = BEGAN + 1) -> list[RequestRecord]:
    numbers = range(first, first + count)
    return [record(n, spec, at + n / 100) for n in numbers for spec in (BLUE, GREEN)]


class Court:
    """A judge on the running loop, asked as the reconcile loop asks it."""

    def __init__(self, store: Store, records: Any = None) -> None:
        self._ledger = Ledger(store, lambda: BEGAN + 100, lambda: None)
        tester = SmokeTester(httpx.AsyncClient(), "token")
        self.judge = Judge(tester, records or store.records, store.scores, self._ledger)

    def look(self, moving: Rollout) -> None:
        self.judge.look([deployment(moving)], (), (), lambda _: True)

    async def read(self, moving: Rollout) -> None:
        """Look until what was recorded has been read."""
        for _ in range(500):
            self.look(moving)
            if "being read" not in self.judge.judged["small-2"].hold:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the past was not read")

    def close(self) -> None:
        self.judge.close()
        self._ledger.close()


def seen(court: Court) -> tuple[int, int]:
    found = court.judge.told(rollout(Phase.STEPPING)).finding
    assert found is not None
    return found.baseline_requests, found.candidate_requests


def test_a_step_goes_on_with_its_requests_after_a_restart(store: Store) -> None:
    async def go() -> None:
        second = rollout(Phase.STEPPING, step=1, entered_at=BEGAN + 50)
        store.records.add([*records(20), *records(10, first=100, at=BEGAN + 51)])
        court = Court(store)
        await court.read(second)
        assert court.judge.judged["small-2"].hold == ""
        court.close()

    asyncio.run(go())


def test_what_was_compared_is_kept_when_the_controller_restarts_later(store: Store) -> None:
    async def go() -> None:
        store.records.add(records(20))
        first = Court(store)
        await first.read(rollout(Phase.STEPPING))
        compared = first.judge.told(rollout(Phase.STEPPING))
        assert compared.finding
        first.close()
        baking = msgspec.structs.replace(compared, phase=Phase.BAKING)
        again = Court(store)
        await again.read(baking)
        again.judge.hear(records(5, first=50))
        again.look(baking)
        assert again.judge.told(baking).finding == compared.finding
        again.close()

    asyncio.run(go())


def test_where_nothing_is_compared_nothing_is_reported_as_compared(store: Store) -> None:
    async def go() -> None:
        plain = rollout(Phase.BAKING, plan=Plan())
        store.records.add(records(5))
        court = Court(store)
        for phase in (Phase.STEPPING, Phase.SWITCHING, Phase.BAKING):
            await court.read(msgspec.structs.replace(plain, phase=phase))
        assert court.judge.told(plain).finding is None
        court.close()

    asyncio.run(go())


class Slowly:
    """Records whose reading waits in the middle until it is let go on."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.half = threading.Event()
        self.go_on = threading.Event()

    def since(self, name: str, at: float) -> Iterator[RequestRecord]:
        for number, each in enumerate(self._records.since(name, at)):
            if number == 10:
                self.half.set()
                self.go_on.wait(20)
            yield each


def test_what_comes_while_the_past_is_read_is_counted_once_and_waited_for_by_nobody(
    store: Store,
) -> None:
    async def go() -> None:
        stepping = rollout(Phase.STEPPING)
        stored = records(20)
        store.records.add(stored)
        slowly = Slowly(store.records)
        court = Court(store, slowly)
        court.look(stepping)
        await asyncio.to_thread(slowly.half.wait, 20)
        court.judge.hear([*stored[-6:], *records(7, first=500, at=BEGAN)])  # some of them again
        court.look(stepping)
        assert "being read" in court.judge.judged["small-2"].hold
        slowly.go_on.set()
        await court.read(stepping)
        assert seen(court) == (27, 27)
        court.judge.hear(stored[:4])  # stored before they were read, heard of after that
        court.look(stepping)
        assert seen(court) == (27, 27)
        court.close()

    asyncio.run(go())


QUALITY = msgspec.structs.replace(
    CANARY, canary=CanaryRules(min_requests=10, watch=("errors", "quality"))
)


def scores(of: list[RequestRecord], at: float, *, candidate: float = 0.5) -> list[Score]:
    """Of a judge that finds the live version's answers good."""
    return [
        Score(
            request_id=each.request_id, judge="j/1", at=at,
            score=candidate if each.slot == "green" else 0.9,
        )
        for each in of
    ]  # fmt: skip


def test_scores_count_whenever_they_come_before_or_after_a_restart(store: Store) -> None:
    async def go() -> None:
        stepping = rollout(Phase.STEPPING, plan=QUALITY)
        asked = records(40)
        store.records.add(asked)
        court = Court(store)
        await court.read(stepping)
        assert "scores of at least 10 more answers" in court.judge.judged["small-2"].hold
        first, second = scores(asked[:40], 1.0), scores(asked[40:], 2.0)
        store.scores.add(first)
        court.judge.hear_scores(first[::-1])
        court.judge.hear_scores(first)  # heard of twice
        court.look(stepping)
        seen_once = court.judge.told(stepping).finding
        assert seen_once
        assert (seen_once.judge, seen_once.judged_candidate) == ("j/1", 20)
        court.close()
        store.scores.add(second)
        again = Court(store)
        await again.read(stepping)
        assert "judged worse" in again.judge.judged["small-2"].alarm
        again.close()

    asyncio.run(go())


def test_a_score_may_be_there_before_its_request_is_heard_of(store: Store) -> None:
    async def go() -> None:
        stepping = rollout(Phase.STEPPING, plan=QUALITY)
        court = Court(store)
        await court.read(stepping)
        asked = records(20)
        court.judge.hear_scores(scores(asked, 1.0, candidate=0.9))
        court.look(stepping)
        assert "10 more requests of the candidate" in court.judge.judged["small-2"].hold
        court.judge.hear(asked)
        court.look(stepping)
        assert court.judge.judged["small-2"].hold == ""
        assert court.judge.judged["small-2"].alarm == ""
        court.close()

    asyncio.run(go())


def test_scores_that_come_while_it_bakes_still_take_it_back(store: Store) -> None:
    async def go() -> None:
        asked = records(60)
        store.records.add(asked)
        court = Court(store)
        stepping = rollout(Phase.STEPPING, plan=QUALITY)
        switched = Entry(at=BEGAN + 50, phase=Phase.BAKING, step=0, why="")
        baking = msgspec.structs.replace(
            stepping, phase=Phase.BAKING, history=(*stepping.history, switched)
        )
        await court.read(baking)
        assert court.judge.judged["small-2"].alarm == ""
        later = records(60, first=500, at=BEGAN + 60)
        court.judge.hear(later)
        court.judge.hear_scores(scores(later, 1.0))
        court.look(baking)
        assert court.judge.judged["small-2"].alarm == ""  # these were not compared
        court.judge.hear_scores(scores(asked, 2.0))
        court.look(baking)
        assert "judged worse" in court.judge.judged["small-2"].alarm
        court.close()

    asyncio.run(go())
