"""Trends in the state: exact whatever the order and number of times that records come."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from tests.core.test_rollups import record

from modelyard.core.machines import GpuSample, MachineSample, Worker, WorkerSample
from modelyard.core.records import RequestRecord
from modelyard.core.rollups import KEPT_S, Series, Step, Sums, spans, summed_up
from modelyard.core.scores import Score
from modelyard.core.sketch import Sketch
from modelyard.state.store import Store

DAY_S = 86_400
BEGIN = 20_700 * DAY_S
"""Of a day."""


def some_records(count: int, seed: int, *, begin: float = BEGIN) -> list[RequestRecord]:
    """Of three models, two versions each, over two days."""
    draw = random.Random(seed)
    return [
        record(
            seed * 100_000 + number,
            received_at=begin + draw.random() * 2 * DAY_S,
            model=f"m{draw.randrange(3)}",
            version=(version := draw.randrange(1, 3)),
            digest=f"sha256:{version}",
            tenant=draw.choice((None, "a", "b")),
            outcome=draw.choice(("completed", "completed", "failed", "cancelled")),
            e2e_s=draw.lognormvariate(0, 1),
            ttft_s=draw.lognormvariate(-2, 1),
            prompt_tokens=draw.randrange(100),
            completion_tokens=draw.randrange(100),
            cost=draw.random() / 1000,
        )
        for number in range(count)
    ]


def counts(sums: Iterable[Sums]) -> dict[str, int]:
    rows = list(sums)
    return {name: sum(getattr(row, name) for row in rows) for name in Sums.COUNTS}


def all_of(store: Store, step: Step, **asked: Any) -> list[Sums]:
    return [each.sums for each in store.trends.between(step, 0, 1e12, **asked)]


def test_sums_are_exact_in_any_order_and_however_often_records_come(store: Store) -> None:
    records = some_records(600, 1)
    minutes, hours = summed_up(records)
    draw = random.Random(2)
    sent = [*records, *draw.sample(records, 200)]
    draw.shuffle(sent)
    while sent:
        size = draw.randrange(1, 120)
        store.records.add(sent[:size])
        sent = sent[size:]

    for step in Step:
        assert counts(all_of(store, step)) == counts(minutes.values())
        merged = Sketch()
        for sums in all_of(store, step):
            merged.merge(sums.ttft)
        assert merged == Sketch(
            each.ttft_s or 0.0 for each in records if each.outcome == "completed"
        )
    stored = {(each.at, each.series): each.sums.ttft for each in
              store.trends.between(Step.MINUTE, 0, 1e12)}  # fmt: skip
    assert stored == {place: sums.ttft for place, sums in minutes.items()}
    kept = dict(store.trends.tenants(0, 1e12))
    assert {place: sums.cost_nanos for place, sums in kept.items()} == {
        place: sums.cost_nanos for place, sums in hours.items()
    }
    assert sum(row.requests for row in store.usage.since(0)) == len(records)


def test_sums_go_on_after_a_restart(url: str, store: Store) -> None:
    first, second = some_records(100, 1), some_records(100, 2)
    store.records.add(first)
    store.close()
    again = Store(url)
    try:
        again.records.add([*first[50:], *second])  # half of the first batch once more
        minutes, _ = summed_up([*first, *second])
        assert counts(all_of(again, Step.DAY)) == counts(minutes.values())
        assert counts(all_of(again, Step.MINUTE, model="m1")) == counts(
            sums for (_, series), sums in minutes.items() if series.model == "m1"
        )
    finally:
        again.close()


def test_a_time_is_summed_from_whichever_steps_cover_it(store: Store) -> None:
    records = some_records(500, 3)
    store.records.add(records)
    now = BEGIN + 2 * DAY_S
    for since, until in ((7 * 3600 + 420, 40 * 3600 + 60), (0, 2 * DAY_S), (60, 120)):
        steps = spans(BEGIN + since, BEGIN + until, now)
        found = store.trends.totals(steps, model="m1")
        meant = [each for each in records if BEGIN + since <= each.received_at < BEGIN + until]
        assert counts(found.values()) == counts(
            summed_up([each for each in meant if each.model == "m1"])[0].values()
        )
        everything = store.trends.totals(steps)
        assert sum(sums.requests for sums in everything.values()) == len(meant)
        points = store.trends.points(steps, 7200, model="m1")
        assert counts(points.values()) == counts(found.values())
        assert all(at % 7200 == 0 for at in points)
    assert set(store.trends.totals(spans(BEGIN, now, now), model="m2")) == {
        Series("m2", version, f"sha256:{version}", "blue") for version in (1, 2)
    }


def test_steps_are_dropped_when_they_were_kept_long_enough(store: Store) -> None:
    records = some_records(300, 4, begin=BEGIN - 31 * DAY_S)
    records += some_records(300, 5, begin=BEGIN - 3 * DAY_S)
    store.records.add(records)
    store.machines.add("host", BEGIN - 3 * DAY_S, SAMPLE)
    rounds = 0
    while store.trends.forget(BEGIN):
        rounds += 1
        assert rounds < 100

    for step in Step:
        kept_s = KEPT_S[step]
        oldest = 0 if kept_s is None else step.begin(BEGIN - kept_s)
        found = list(store.trends.between(step, 0, 1e12))
        assert all(each.at >= oldest for each in found)
        meant = [each for each in records if each.received_at >= oldest]
        assert counts(each.sums for each in found) == counts(summed_up(meant)[0].values())
    assert store.machines.total(spans(BEGIN - 4 * DAY_S, BEGIN, BEGIN))["host"].cpu.looks == 1


def test_hours_of_tenants_are_dropped_and_their_days_stay(store: Store) -> None:
    records = [
        record(number, received_at=BEGIN - number * 3600.0, tenant=f"t{number % 400}")
        for number in range(3000)
    ]
    store.records.add(records)
    rounds = []
    while dropped := store.trends.forget(BEGIN + DAY_S):
        rounds.append(dropped)
    assert max(rounds) <= 2100
    kept = store.trends.tenants(0, 1e12)
    assert min(place.hour for place, _ in kept) == BEGIN - 89 * DAY_S
    assert len(kept) == 89 * 24 + 1
    assert sum(row.requests for row in store.usage.since(0)) == 3000


def test_names_are_known_by_what_was_asked(store: Store) -> None:
    assert store.trends.models() == []
    store.records.add(some_records(50, 6))
    assert store.trends.models() == ["m0", "m1", "m2"]
    assert store.trends.models(limit=2) == ["m0", "m1"]
    assert store.trends.knows("m1")
    assert not store.trends.knows("m9")


@pytest.mark.parametrize(
    "odd",
    [
        {"received_at": 1e300},
        {"received_at": -1e300},
        {"received_at": 4e9},
        {"e2e_s": 1e300, "ttft_s": -1.0},
        {"prompt_tokens": 10**30},
        {"cost": 1e300},
        {"model": "m\0" + "x" * 500, "digest": "d" * 500, "tenant": "t" * 500, "key_id": "k" * 500},
    ],
)
def test_one_odd_record_stalls_and_destroys_nothing(store: Store, odd: dict[str, Any]) -> None:
    usual = [record(number, received_at=BEGIN + number) for number in range(10)]
    batch = [*usual[:5], record(100, **odd), record(101, **odd), *usual[5:]]
    assert len(store.records.add(batch)) == 12
    assert store.records.add(batch) == ()
    store.records.add([record(102, **odd)])
    assert sum(sums.requests for sums in all_of(store, Step.DAY)) == 13
    while store.trends.forget(BEGIN + DAY_S):
        pass
    now = BEGIN + DAY_S
    [sums] = store.trends.totals(spans(BEGIN, now, now), model="chat").values()
    assert sums.requests == 10


def test_records_are_dropped_but_for_those_that_are_needed(store: Store) -> None:
    records = [
        record(number, received_at=BEGIN + number, model="tried" if number % 2 else None)
        for number in range(3000)
    ]
    store.records.add(records)
    store.scores.add(
        [Score(request_id=each.request_id, judge="j", score=1.0) for each in records[::500]]
    )
    rounds = []
    while dropped := store.records.forget(BEGIN + 2500, {"tried": BEGIN + 1000}):
        rounds.append(dropped)

    kept = {each.request_id for each in store.records.newest(5000)}
    assert kept == {
        each.request_id
        for number, each in enumerate(records)
        if number >= 2500 or (number % 2 and number >= 1000)
    }
    assert max(rounds) <= 1000
    scored = {each.request_id for each in records[::500] if store.scores.of(each.request_id)}
    assert scored == {each.request_id for each in records[2500::500]}
    assert sum(sums.requests for sums in all_of(store, Step.DAY)) == 3000  # sums stay


def test_the_bound_of_records_does_not_count_those_of_the_future(store: Store) -> None:
    store.records.add([record(number, received_at=BEGIN + number) for number in range(10)])
    store.records.add([record(99, received_at=BEGIN + 1e9)])
    assert store.records.oldest_of(4, BEGIN + 100) == BEGIN + 5
    assert store.records.oldest_of(10, BEGIN + 100) is None


SAMPLE = MachineSample(
    memory_used_bytes=100,
    memory_total_bytes=1000,
    cpu_share=0.5,
    load_1m=1.0,
    gpus=(GpuSample(index=0, name="H", memory_used_bytes=7, memory_total_bytes=9, busy_share=0.5),),
    workers=(
        WorkerSample(worker=Worker(pid=1, model="chat", version=3, slot="blue"), memory_bytes=10,
                     cpus=1.0),
        WorkerSample(worker=Worker(pid=2, model="chat", version=3, slot="blue"), memory_bytes=30,
                     cpus=0.5),
    ),
)  # fmt: skip


def test_looks_at_a_machine_are_averaged_by_steps(store: Store) -> None:
    for number in range(12):
        store.machines.add("host", BEGIN + number * 10, SAMPLE)
    now = BEGIN + DAY_S
    for until in (BEGIN + 120, BEGIN + 900, now):
        [(host, sums)] = store.machines.total(spans(BEGIN, until, now)).items()
        assert host == "host"
        assert (sums.memory.looks, sums.memory.average, sums.memory.most) == (12, 100, 100)
        assert sums.workers["chat/3/blue"].memory.average == 40  # two workers together
        assert sums.workers["chat/3/blue"].cpus.most == 1.5
        gpu = sums.gpus["0"]
        assert (gpu.name, gpu.memory.average, gpu.busy.average) == ("H", 7, 0.5)
        assert gpu.power.average is None
    [first] = store.machines.total(spans(BEGIN, BEGIN + 60, now)).values()
    assert first.cpu.looks == 6
