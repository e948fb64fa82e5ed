"""What loops of the controller write down of the machine, and what they drop."""

import logging
import os
import time
from pathlib import Path

import msgspec
import pytest
from tests.core.test_rollups import record
from tests.state.test_store import DEPLOYMENT, REPLICA

from modelyard.control.sampling import Forgetting, MachineWatch, RecordsKept
from modelyard.core.capacity import Capacity, Place
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollups import Step, spans
from modelyard.observe.gpus import Gpus
from modelyard.observe.machine import MachineProbe
from modelyard.state.store import open_sqlite

DAY_S = 86_400.0
NOW = 20_700 * DAY_S


def test_replicas_are_looked_at_by_model_version_and_slot(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "state.db")
    running = msgspec.structs.replace(REPLICA, pid=os.getpid(), state=ReplicaState.READY)
    store.replicas.put(running)
    store.replicas.put(msgspec.structs.replace(REPLICA, id="x", state=ReplicaState.STOPPED, pid=1))
    watch = MachineWatch(store, MachineProbe(Gpus(None)), "here")
    watch.look()
    watch.look()

    now = time.time()
    [(host, sums)] = store.machines.total(spans(now - 600, now, now)).items()
    assert host == "here"
    assert list(sums.workers) == ["chat/1/blue"]
    assert sums.workers["chat/1/blue"].memory.looks == 2
    assert (sums.workers["chat/1/blue"].memory.average or 0) > 10_000_000
    store.close()


class Clocks:
    """Time of day, and time that passes."""

    def __init__(self) -> None:
        self.day, self.passed = NOW, 0.0

    def pass_by(self, seconds: float) -> None:
        self.day += seconds
        self.passed += seconds


def test_records_go_by_age_and_number_but_not_those_of_a_rollout(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "state.db")
    clocks = Clocks()
    kept = RecordsKept(days=7, rows=20)
    forgetting = Forgetting(store, kept, clock=lambda: clocks.day, elapsed=lambda: clocks.passed)
    ages = [8 * DAY_S, 6 * DAY_S, *(3600.0 + number for number in range(30)),
            *(float(number) for number in range(10))]  # fmt: skip
    store.records.add(
        [
            record(number, received_at=NOW - age_s, model="other")
            for number, age_s in enumerate(ages)
        ]
    )
    tried = [record(900 + n, received_at=NOW - n * DAY_S, model="chat") for n in (1, 20)]
    store.records.add(tried)
    rollout = msgspec.structs.replace(DEPLOYMENT.rollout, started_at=NOW - 2 * DAY_S)  # type: ignore[type-var]
    store.deployments.change("chat", lambda _: DEPLOYMENT.with_rollout(rollout))
    while forgetting.forget_some():
        pass

    left = store.records.newest(100)
    assert (
        sorted(NOW - each.received_at for each in left if each.model == "other")
        == sorted(ages, reverse=False)[:21]
    )
    assert [each.request_id for each in left if each.model == "chat"] == ["q901"]
    assert store.records.add(tried[:1]) == ()
    store.close()


def test_a_batch_that_comes_again_soon_is_known_however_many_came_since(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "state.db")
    clocks = Clocks()
    forgetting = Forgetting(
        store, RecordsKept(days=7, rows=5), clock=lambda: clocks.day, elapsed=lambda: clocks.passed
    )
    batch = [record(number, received_at=NOW - 60 - number) for number in range(100)]
    store.records.add(batch)
    assert forgetting.forget_some() == 0
    assert store.records.add(batch) == ()
    clocks.pass_by(3600)
    while forgetting.forget_some():
        pass
    assert len(store.records.newest(100)) == 6
    store.close()


def test_a_clock_that_jumps_makes_nothing_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_sqlite(tmp_path / "state.db")
    clocks = Clocks()
    forgetting = Forgetting(
        store, RecordsKept(), clock=lambda: clocks.day, elapsed=lambda: clocks.passed
    )
    store.records.add([record(number, received_at=NOW - number) for number in range(10)])
    ran = Place(Step.MINUTE, Step.MINUTE.begin(NOW), "m", 1, "blue")
    store.capacity.add({ran: Capacity(60_000, 0, 0, 0)})
    with caplog.at_level(logging.WARNING):
        for jump_s in (3650 * DAY_S, -3650 * DAY_S * 2):
            clocks.day += jump_s
            for _ in range(3):
                assert forgetting.forget_some() == 0
    assert len([line for line in caplog.messages if "the clock jumped" in line]) == 1
    assert len(store.records.newest(100)) == 10
    assert len(list(store.trends.between(Step.MINUTE, 0, 1e12))) > 0

    clocks.day = NOW + clocks.passed  # it was set right
    clocks.pass_by(8 * DAY_S)
    while forgetting.forget_some():
        pass
    assert store.records.newest(100) == []
    assert store.capacity.forget(clocks.day) == 0  # nothing old is left of it
    assert list(store.trends.between(Step.MINUTE, 0, 1e12)) == []
    assert sum(e.sums.requests for e in store.trends.between(Step.DAY, 0, 1e12)) == 10
    store.close()
