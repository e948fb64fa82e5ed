"""What ran is counted, asked or not: exactly, over restarts and whatever the clocks do (O6)."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from modelyard.control.ledger import Ledger
from modelyard.control.metering import Meter
from modelyard.core.capacity import LONGEST_MS, Capacity
from modelyard.core.cost import PriceList
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import StorageError
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollups import Step
from modelyard.state.store import open_sqlite
from modelyard.state.tables import capacity

HOUR_S = 3600.0
PRICES = PriceList(replica_hour={"process": 0.12}, accelerator_hour={"process": 2.5})
DIGEST = "sha256:" + "5" * 64


class Machine:
    """A controller's parts on clocks that a test sets; `restart` is another controller."""

    def __init__(self, path: Path, prices: PriceList = PRICES) -> None:
        self.path = path
        self.prices = prices
        self.wall = 1_700_000_000.0
        self.steady = 5_000.0
        self.store = open_sqlite(path)
        self._began()

    def _began(self) -> None:
        self.ledger = Ledger(self.store, lambda: self.wall, lambda: None)
        self.adopted = asyncio.Event()
        self.meter = Meter(
            self.store,
            self.ledger,
            self.prices,
            self.adopted,
            wall=lambda: self.wall,
            steady=lambda: self.steady,
        )

    async def start(self, *, gone: tuple[str, ...] = ()) -> None:
        """What a controller does first; the workers of replicas `gone` don't run any more."""
        await self.ledger.load()
        for name in gone:
            self.ledger.move(name, ReplicaState.STOPPED)
        self.adopted.set()

    def restart(self) -> None:
        """As after `kill -9`."""
        self.close()
        self.store = open_sqlite(self.path)
        self.steady = random.Random(self.wall).uniform(0, 1e6)  # another process, another zero
        self._began()

    def close(self) -> None:
        self.ledger.close()
        self.store.close()

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    async def launch(self, name: str, generation: int = 1) -> None:
        await self.ledger.add(
            Replica(
                id=name,
                deployment="chat",
                slot="blue",
                version=3,
                digest=DIGEST,
                engine="fake",
                launcher="process",
                state=ReplicaState.STARTING,
                created_at=self.wall,
                changed_at=self.wall,
                generation=generation,
            )
        )

    def stop(self, name: str) -> None:
        assert self.ledger.move(name, ReplicaState.STOPPED)

    def counted(self) -> Capacity:
        return self.store.capacity.by("model", 0).get(("chat",), Capacity())

    def steps(self, step: Step) -> Capacity:
        """The same as it is in one length of steps."""
        with self.store.capacity._database.reading() as connection:
            columns = [capacity.c[name] for name in Capacity._fields]
            total = Capacity()
            for row in connection.execute(sa.select(*columns).where(capacity.c.step == int(step))):
                total = total.plus(Capacity(*row))
            return total


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "state.db")
    yield made
    made.close()


def ran(seconds: float, accelerators: int = 0) -> Capacity:
    """What a replica of PRICES is counted as."""
    ms = round(seconds * 1000)
    hour = 0.12 + 2.5 * accelerators
    return Capacity(ms, ms * accelerators, ms, round(hour * seconds / HOUR_S * 1e9))


def same(found: Capacity, expected: Capacity) -> bool:
    """To the millisecond of each look, and the billionth of each piece."""
    ms = abs(found.replica_ms - expected.replica_ms) <= 20
    return ms and abs(found.cost_nanos - expected.cost_nanos) <= 1000


async def test_replicas_are_counted_from_their_launch_to_their_end(machine: Machine) -> None:
    await machine.start()
    await machine.meter.look()
    assert machine.counted() == Capacity()
    machine.passes(2)
    await machine.launch("a")
    machine.passes(3)
    await machine.meter.look()
    assert same(machine.counted(), ran(3))
    for _ in range(50):
        machine.passes(5)
        await machine.meter.look()
    machine.passes(1)
    machine.stop("a")
    machine.ledger.forget(("a",))  # forgotten at once, as with a deployment that is taken away
    machine.passes(4)
    await machine.meter.look()
    await machine.meter.look()

    assert same(machine.counted(), ran(254))
    assert machine.store.capacity.marks() == {}
    for step in Step:
        assert machine.steps(step) == machine.counted()


async def test_one_that_lived_between_two_looks_is_counted(machine: Machine) -> None:
    await machine.start()
    await machine.meter.look()
    machine.passes(1)
    await machine.launch("short")
    machine.passes(2.5)
    machine.stop("short")
    machine.passes(1)
    await machine.meter.look()
    assert same(machine.counted(), ran(2.5))


async def test_accelerators_are_counted_and_cost(machine: Machine) -> None:
    spec = SlotSpec(model="m", version=3, digest=DIGEST, engine="fake",
                    accelerators_per_replica=2, generation=1)  # fmt: skip
    machine.store.deployments.change(
        "chat", lambda _: Deployment(name="chat", blue=spec, created_at=1.0)
    )
    await machine.start()
    await machine.launch("a")
    machine.passes(30)
    await machine.meter.look()
    machine.store.deployments.change("chat", lambda _: None)  # it drains after its deployment
    machine.restart()
    machine.passes(30)
    await machine.start()
    await machine.meter.look()
    assert same(machine.counted(), ran(60, 2))
    assert machine.counted().accelerator_ms == 2 * machine.counted().replica_ms


async def test_the_time_without_a_controller_counts_for_what_ran_on(machine: Machine) -> None:
    await machine.start()
    await machine.launch("stays")
    await machine.launch("dies")
    machine.passes(10)
    await machine.meter.look()
    machine.passes(3)
    machine.restart()
    machine.passes(2 * HOUR_S)
    await machine.start(gone=("dies",))
    await machine.meter.look()
    machine.passes(5)
    await machine.meter.look()

    # Of the one that ended while nobody looked, what was counted by then.
    assert same(machine.counted(), ran(10 + 3 + 2 * HOUR_S + 5 + 10))
    assert set(machine.store.capacity.marks()) == {"stays"}


async def test_what_an_earlier_controller_saw_end_is_counted_to_its_end(machine: Machine) -> None:
    await machine.start()
    await machine.launch("a")
    machine.passes(10)
    await machine.meter.look()
    machine.passes(2)
    machine.stop("a")
    machine.passes(1)
    machine.restart()
    machine.passes(600)
    await machine.start()
    await machine.meter.look()
    await machine.meter.look()
    assert same(machine.counted(), ran(12))


async def test_an_absence_that_can_not_be_true_is_bounded_and_said(machine: Machine) -> None:
    await machine.start()
    await machine.launch("a")
    await machine.meter.look()
    machine.restart()
    machine.passes(30 * 86_400)
    await machine.start()
    await machine.meter.look()
    assert machine.counted().replica_ms == LONGEST_MS
    journal = await machine.ledger.write(machine.store.events.after, 0, 100)
    told = [event for event in journal if event.kind == "capacity.uncounted"]
    assert [event.subject for event in told] == ["a"]
    assert "552.0 h" in told[0].message
    minutes = machine.steps(Step.MINUTE)
    assert 0 < minutes.replica_ms <= 48 * HOUR_S * 1000 + 60_000  # none that are not kept


@pytest.mark.parametrize("jump_s", [-86_400 * 400.0, -HOUR_S, 7.0, HOUR_S, 86_400 * 400.0])
async def test_a_clock_that_jumps_changes_no_amount(machine: Machine, jump_s: float) -> None:
    await machine.start()
    await machine.launch("a")
    machine.passes(5)
    await machine.meter.look()
    machine.passes(2)
    machine.wall += jump_s
    await machine.launch("b")
    machine.passes(3)
    await machine.meter.look()
    machine.passes(5)
    machine.wall -= jump_s
    machine.stop("a")
    machine.passes(5)
    await machine.meter.look()

    counted = machine.counted()
    # `a` 15 s, `b` 13 s; whose border was told by a clock that was wrong may be off by a look.
    assert 28_000 - 10_000 <= counted.replica_ms <= 28_000 + 10_000
    assert counted.cost_nanos > 0
    for step in (Step.QUARTER, Step.DAY):
        assert machine.steps(step).replica_ms >= 0
    machine.restart()
    machine.wall += jump_s
    await machine.start()
    await machine.meter.look()
    more = machine.counted().replica_ms - counted.replica_ms
    assert 0 <= more <= LONGEST_MS


async def test_what_the_state_refuses_is_counted_by_the_next_look(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.start()
    await machine.launch("a")
    machine.passes(5)
    await machine.meter.look()
    add = machine.store.capacity.add

    def refused(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(machine.store.capacity, "add", refused)
    machine.passes(5)
    with pytest.raises(StorageError):
        await machine.meter.look()
    machine.passes(1)
    machine.stop("a")
    machine.passes(1)
    with pytest.raises(StorageError):
        await machine.meter.look()
    monkeypatch.setattr(machine.store.capacity, "add", add)
    machine.passes(600)
    await machine.meter.look()
    assert same(machine.counted(), ran(11))


async def test_without_a_price_time_is_counted_and_its_cost_unknown(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "state.db", PriceList())
    await machine.start()
    await machine.launch("a")
    machine.passes(60)
    await machine.meter.look()
    assert machine.counted() == Capacity(60_000, 0, 0, 0)
    machine.close()


async def test_a_new_price_holds_from_the_start_with_it(machine: Machine) -> None:
    await machine.start()
    await machine.launch("a")
    machine.passes(60)
    await machine.meter.look()
    before = machine.counted()
    machine.prices = msgspec.structs.replace(PRICES, replica_hour={"process": 1.2})
    machine.restart()
    await machine.start()
    machine.passes(60)
    await machine.meter.look()
    assert same(before, ran(60))
    added = machine.counted().cost_nanos - before.cost_nanos
    assert abs(added - 10 * before.cost_nanos) <= 100
