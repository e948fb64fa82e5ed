"""Many writers at once: nothing is lost, counted twice, or given one number twice."""

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
from tests.postgres import PostgresServer
from tests.state.conftest import ON_POSTGRESQL
from tests.state.test_store import DEPLOYMENT, REPLICA, record

from modelyard.core.deployments import Deployment, Event
from modelyard.core.keys import KeyRevoked
from modelyard.state.store import Store

WRITERS = 4
TURNS = 12


@pytest.fixture
def stores(url: str) -> Iterator[list[Store]]:
    """As several processes have them: each with connections of its own."""
    opened = [Store(url) for _ in range(WRITERS)]
    yield opened
    for each in opened:
        each.close()


def at_once(work: Callable[[Store, int], None], stores: list[Store]) -> None:
    """Each store in a thread, all of them begun together."""
    together = threading.Barrier(len(stores))
    failures: list[BaseException] = []

    def run(store: Store, number: int) -> None:
        together.wait()
        try:
            for turn in range(TURNS):
                work(store, number * TURNS + turn)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [
        threading.Thread(target=run, args=(store, number)) for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_change_begins_with_what_the_last_one_stored(stores: list[Store]) -> None:
    stores[0].deployments.change("chat", lambda _: DEPLOYMENT)
    called: list[int] = []

    def one_more(store: Store, _: int) -> None:
        def step(present: Deployment | None) -> Deployment | None:
            called.append(1)
            return present and msgspec.structs.replace(present, generation=present.generation + 1)

        store.deployments.change("chat", step)

    at_once(one_more, stores)
    [after] = stores[0].deployments.all()
    assert after.generation == DEPLOYMENT.generation + WRITERS * TURNS
    assert len(called) == WRITERS * TURNS  # nobody's callback is called a second time


def test_numbers_of_both_logs_have_no_gap_and_no_double(stores: list[Store]) -> None:
    def write(store: Store, number: int) -> None:
        store.keys.append(lambda seq: KeyRevoked(seq=seq, at=0.0, key_id=f"k{number}"))
        store.events.append(Event(at=0.0, kind="k", subject=f"s{number}", actor="a"))

    at_once(write, stores)
    numbers = list(range(1, WRITERS * TURNS + 1))
    assert [entry.seq for entry in stores[0].keys.after(0)] == numbers
    assert [event.seq for event in stores[0].events.after(0, 999)] == numbers
    assert len({event.subject for event in stores[0].events.after(0, 999)}) == len(numbers)


def test_who_reads_the_journal_after_a_number_misses_nothing(stores: list[Store]) -> None:
    """Numbers must become visible in their order, or a reader would pass over the slow one."""
    seen: list[int] = []
    ended = threading.Event()

    def follow() -> None:
        while True:
            last_look = ended.is_set()
            seen.extend(event.seq for event in stores[0].events.after(max(seen, default=0), 999))
            if last_look:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        at_once(
            lambda store, number: store.events.append(
                Event(at=0.0, kind="k", subject=str(number), actor="a")
            ),
            stores,
        )
    finally:
        ended.set()
        reader.join()
    assert seen == list(range(1, WRITERS * TURNS + 1))


def test_records_that_come_twice_at_once_are_summed_once(stores: list[Store]) -> None:
    accepted: list[str] = []

    def send(store: Store, number: int) -> None:
        """Every writer sends the same records, in batches that overlap."""
        turn = number % TURNS
        batch = [
            msgspec.structs.replace(record(each), tenant="t", prompt_tokens=10)
            for each in range(turn, turn + 3)
        ]
        accepted.extend(taken.request_id for taken in store.records.add(batch))

    at_once(send, stores)
    assert sorted(accepted) == sorted(f"q{number}" for number in range(TURNS + 2))
    [used] = stores[0].usage.since(0)
    assert (used.requests, used.prompt_tokens) == (TURNS + 2, 10 * (TURNS + 2))


def test_an_epoch_is_made_once_and_a_replica_stored_over_itself(stores: list[Store]) -> None:
    epochs: set[str] = set()

    def write(store: Store, _: int) -> None:
        epochs.add(store.meta.epoch())
        store.replicas.put(REPLICA)

    at_once(write, stores)
    assert len(epochs) == 1
    assert stores[0].replicas.all() == [REPLICA]


@ON_POSTGRESQL
def test_it_holds_whatever_isolation_the_server_prefers(
    server: PostgresServer, database: str
) -> None:
    """With a view of before the lock, each writer would work on what another has changed."""
    with server.connect() as connection:
        sql = f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'"
        connection.execute(sql.encode())
    opened = [Store(server.url(database)) for _ in range(WRITERS)]
    try:
        test_a_change_begins_with_what_the_last_one_stored(opened)
    finally:
        for each in opened:
            each.close()


@ON_POSTGRESQL
def test_two_yards_in_two_schemas_of_one_database_do_not_meet(
    server: PostgresServer, database: str
) -> None:
    with server.connect(database) as connection:
        connection.execute("CREATE SCHEMA one")
        connection.execute("CREATE SCHEMA two")
    opened = [
        Store(f"{server.url(database)}?options=-csearch_path%3D{schema}", sole=True)
        for schema in ("one", "two")
    ]
    try:
        opened[0].deployments.change("chat", lambda _: DEPLOYMENT)
        assert opened[1].deployments.all() == []

        def write_in_the_other(present: Deployment | None) -> Deployment | None:
            opened[1].meta.set_default_model("chat")  # waits for nobody
            return present and msgspec.structs.replace(present, generation=9)

        opened[0].deployments.change("chat", write_in_the_other)
        assert opened[1].meta.default_model() == "chat"
    finally:
        for each in opened:
            each.close()
