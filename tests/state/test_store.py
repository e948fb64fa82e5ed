"""What the controller relies on in its state, on every kind of database."""

import msgspec
import pytest

from modelyard.core.deployments import Deployment, Event, Replica, SlotSpec
from modelyard.core.errors import Conflict, StorageError
from modelyard.core.keys import KeyRevoked
from modelyard.core.records import RequestRecord
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase, Plan, Signal, begin, move
from modelyard.core.routes import empty_snapshot
from modelyard.state.store import Store

SPEC = SlotSpec(model="yardling", version=1, digest="sha256:1", engine="fake")
ROLLOUT = begin("chat-1", Plan(), candidate="blue", before=None, now=1.0)
DEPLOYMENT = Deployment(name="chat", blue=SPEC, created_at=1.0).with_rollout(ROLLOUT)
REPLICA = Replica(
    id="chat-blue-1",
    deployment="chat",
    slot="blue",
    version=1,
    digest="sha256:1",
    engine="fake",
    launcher="process",
    state=ReplicaState.STARTING,
    created_at=2.0,
    changed_at=2.0,
)


def record(number: int) -> RequestRecord:
    return RequestRecord(
        request_id=f"q{number}",
        gateway="g",
        received_at=float(number),
        operation="chat",
        stream=False,
        outcome="completed",
        status=200,
        e2e_s=0.1,
    )


def test_everything_is_there_after_a_restart(url: str, store: Store) -> None:
    epoch = store.meta.epoch()
    snapshot = msgspec.structs.replace(empty_snapshot(epoch), version=7)
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    store.replicas.put(REPLICA)
    store.snapshots.put(snapshot)
    store.meta.set_default_model("chat")
    store.close()
    again = Store(url)
    try:
        assert again.meta.epoch() == epoch
        assert again.meta.default_model() == "chat"
        assert again.deployments.all() == [DEPLOYMENT]
        assert again.deployments.get("chat") == DEPLOYMENT
        assert again.replicas.all() == [REPLICA]
        assert again.snapshots.newest() == snapshot
    finally:
        again.close()


def test_a_change_that_is_refused_stores_nothing(store: Store) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)

    def refuse(_: Deployment | None) -> Deployment | None:
        raise Conflict("another move is under way")

    with pytest.raises(Conflict, match="under way"):
        store.deployments.change("chat", refuse)
    assert store.deployments.get("chat") == DEPLOYMENT
    store.deployments.change("chat", lambda _: None)
    assert store.deployments.all() == []


def test_a_replica_is_stored_over_itself_and_forgotten_only_when_stopped(store: Store) -> None:
    store.replicas.put(REPLICA)
    store.replicas.forget([REPLICA.id])
    stopped = msgspec.structs.replace(REPLICA, state=ReplicaState.STOPPED, error="exit code 1")
    assert store.replicas.all() == [REPLICA]
    store.replicas.put(stopped)
    assert store.replicas.all() == [stopped]
    store.replicas.forget([REPLICA.id])
    assert store.replicas.all() == []


def test_the_journal_counts_and_is_read_in_pieces(store: Store) -> None:
    for number in range(5):
        event = Event(
            at=number,
            kind="replica.ready",
            subject=f"r{number}",
            actor="reconciler",
            details={"pid": number, "ok": True, "url": None},
        )
        assert store.events.append(event) == number + 1
    read = store.events.after(2, limit=2)
    assert [event.subject for event in read] == ["r2", "r3"]
    assert read[0].details == {"pid": 2, "ok": True, "url": None}


def test_a_rollout_is_written_with_its_deployment_and_outlives_it(store: Store) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    moved = DEPLOYMENT.with_rollout(move(ROLLOUT, Signal.READY, "", 2.0))
    store.deployments.change("chat", lambda _: moved)
    assert [each.rollout.phase for each in store.rollouts.list(None, 1)] == [Phase.TESTING]
    store.deployments.change("chat", lambda _: None)

    [known] = store.rollouts.list("chat", 10)
    assert store.rollouts.get("chat-1") == known
    assert (known.version, known.version_before) == ("yardling:1", "")
    assert (known.rollout.phase, known.rollout.reason) == (Phase.UNDONE, "taken away")
    assert store.rollouts.list("other", 10) == []
    assert store.rollouts.get("chat-2") is None


def test_a_rollout_that_nobody_goes_on_with_is_closed(store: Store) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    next_one = begin("chat-2", Plan(), candidate="green", before="blue", now=9.0)
    store.deployments.change("chat", lambda d: d and d.with_rollout(next_one))
    store.deployments.change("chat", lambda d: d and msgspec.structs.replace(d, rollout=None))

    closed = [known.rollout for known in store.rollouts.list("chat", 10)]
    assert [(each.id, each.phase, each.reason) for each in closed] == [
        ("chat-2", Phase.UNDONE, "taken away"),
        ("chat-1", Phase.UNDONE, "followed by another"),
    ]


def test_records_since_a_time_are_found_in_their_order(store: Store) -> None:
    named = [msgspec.structs.replace(record(number), model="chat") for number in (3, 1, 2)]
    store.records.add([*named, record(4)])
    found = list(store.records.since("chat", record(2).received_at))
    assert [each.request_id for each in found] == ["q2", "q3"]


def test_a_record_is_counted_once(store: Store) -> None:
    assert store.records.add([record(1), record(2), record(2)]) == (record(1), record(2))
    assert store.records.add([record(2), record(3)]) == (record(3),)
    assert store.records.add([]) == ()
    assert [r.request_id for r in store.records.newest(10)] == ["q3", "q2", "q1"]


def test_the_key_log_keeps_its_order(store: Store) -> None:
    assert store.keys.last_seq() == 0
    entries = [
        store.keys.append(lambda seq: KeyRevoked(seq=seq, at=0.0, key_id=f"k{seq}"))
        for _ in range(3)
    ]
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert store.keys.after(1) == tuple(entries[1:])
    assert store.keys.last_seq() == 3
    with pytest.raises(StorageError):
        store.keys.append(lambda _seq: entries[0])


def test_what_keys_used_is_summed_once(store: Store) -> None:
    def used(number: int, **fields: object) -> RequestRecord:
        made = {"tenant": "t", "key_id": "k", "model": "m", "prompt_tokens": 10,
                "completion_tokens": 5, "received_at": 86_400.0 * 20_000}  # fmt: skip
        return msgspec.structs.replace(record(number), **(made | fields))

    batch = [used(1), used(2, cache="hit"), used(3, outcome="failed", completion_tokens=None),
             used(4, key_id=None, tenant=None), used(5, received_at=86_400.0 * 20_001)]  # fmt: skip
    assert len(store.records.add(batch)) == 5
    assert store.records.add(batch) == ()  # sent again: not counted again
    assert len(store.records.add([used(6)])) == 1

    rows = store.usage.since(20_000, tenant="t")
    assert [(row.day, row.requests) for row in rows] == [(20_000, 4), (20_001, 1)]
    first = rows[0]
    assert (first.unsuccessful, first.cached) == (1, 1)
    assert (first.prompt_tokens, first.completion_tokens) == (30, 10)
    assert len(store.usage.since(20_000)) == 3
    assert store.records.find("q4") == batch[3]
    assert store.records.find("nothing") is None


def test_what_is_read_by_name_comes_in_the_same_order_everywhere(store: Store) -> None:
    names = ["b", "A", "a.2", "B", "a-1", "a1"]
    for name in names:
        named = msgspec.structs.replace(DEPLOYMENT, name=name, rollout=None)
        store.deployments.change(name, lambda _, named=named: named)
    store.records.add(
        [msgspec.structs.replace(record(number), tenant=name) for number, name in enumerate(names)]
    )
    assert [each.name for each in store.deployments.all()] == sorted(names)
    assert [row.tenant for row in store.usage.since(0)] == sorted(names)


def test_what_came_from_elsewhere_is_kept_whatever_it_is(store: Store) -> None:
    """A batch of records that a database refused would be sent again for ever."""
    odd = msgspec.structs.replace(record(1), model="m\0" + "x" * 500, replica="r" * 500)
    assert store.records.add([odd, record(2)]) == (odd, record(2))
    assert store.records.find("q1") == odd
    assert store.records.add([odd]) == ()
    event = Event(at=1.0, kind="k", subject="s" * 999, actor="a", message="worker said \0\n" * 99)
    store.events.append(event)
    [kept] = store.events.after(0, 9)
    assert (kept.subject, len(kept.message)) == ("s" * 256, len(event.message))


def test_readers_do_not_wait_for_a_writer_nor_see_half_of_it(store: Store) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    seen = []

    def look_meanwhile(present: Deployment | None) -> Deployment | None:
        seen.extend(store.deployments.all())
        return present and msgspec.structs.replace(present, removed=True)

    store.deployments.change("chat", look_meanwhile)
    assert seen == [DEPLOYMENT]
    assert [each.removed for each in store.deployments.all()] == [True]
