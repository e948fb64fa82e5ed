"""What gateways are told, and what they tell."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from modelyard.api import errors
from modelyard.control.feed import Feed, FeedParts
from modelyard.control.gateways import Gateways
from modelyard.control.ledger import Ledger
from modelyard.control.snapshots import Publisher
from modelyard.core.keys import KeyRevoked
from modelyard.core.records import RequestRecord
from modelyard.core.routes import ModelRoute
from modelyard.state.store import open_sqlite
from modelyard.wire.feed import FeedUpdate, GatewayReport, RecordBatch, RecordReceipt

MODEL = ModelRoute(name="chat", deployment="chat", created_at=1, slots=())


class Side:
    """The controller's side of the feed, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.woken = asyncio.Event()
        self.store = open_sqlite(folder / "state.db")
        self.epoch = self.store.meta.epoch()
        self.ledger = Ledger(self.store, lambda: self.now, self.woken.set)
        self.publisher = Publisher(self.store, self.ledger, self.epoch, lambda: self.now)
        self.gateways = Gateways(self.epoch, lambda: self.now)
        self.heard: list[RequestRecord] = []
        self.feed = Feed(
            FeedParts(
                token="the-gateway-token",
                epoch=self.epoch,
                store=self.store,
                ledger=self.ledger,
                publisher=self.publisher,
                gateways=self.gateways,
                hear=self.heard.extend,
                wake=self.woken.set,
            )
        )
        app = FastAPI()
        errors.install(app)
        app.router.routes.extend(self.feed.routes())
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": "Bearer the-gateway-token"},
        )

    async def poll(self, **query: object) -> FeedUpdate:
        asked = {"gateway": "g", "epoch": self.epoch, **query}
        answer = await self.http.get("/feed", params=asked)
        assert answer.status_code == 200
        return msgspec.json.decode(answer.content, type=FeedUpdate)

    def report(self, **changes: object) -> bytes:
        base = GatewayReport(
            gateway="g", pid=1, url="http://g", epoch=self.epoch, routes_version=0, keys_seq=0
        )
        return msgspec.json.encode(msgspec.structs.replace(base, **changes))


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    one = Side(tmp_path)
    yield one
    await one.http.aclose()
    one.ledger.close()
    one.store.close()


async def test_a_stranger_is_refused(side: Side) -> None:
    side.http.headers["Authorization"] = "Bearer nothing"
    for method, path in (("GET", "/feed"), ("POST", "/feed/report"), ("POST", "/feed/records")):
        assert (await side.http.request(method, path)).status_code == 401


async def test_a_gateway_of_another_epoch_forgets_what_it_knows(side: Side) -> None:
    update = await side.poll(epoch="", routes=9, keys=9, wait_s=30)
    assert update.routes == side.publisher.current
    assert update.keys_reset


async def test_a_poll_waits_for_the_next_snapshot(side: Side) -> None:
    waiting = asyncio.create_task(side.poll(routes=0, wait_s=30))
    await asyncio.sleep(0)
    assert await side.publisher.publish((MODEL,), "chat")
    update = await asyncio.wait_for(waiting, 5)
    assert update.routes
    assert (update.routes.version, update.routes.models) == (1, (MODEL,))
    assert not update.keys_reset


async def test_a_poll_ends_empty_in_time_and_at_the_controllers_end(side: Side) -> None:
    began = time.monotonic()
    assert (await side.poll(routes=0, wait_s=0.05)).routes is None
    waiting = asyncio.create_task(side.poll(routes=0, wait_s=30))
    await asyncio.sleep(0.05)
    side.feed.close()
    assert (await asyncio.wait_for(waiting, 5)).routes is None
    assert time.monotonic() - began < 5


async def test_keys_come_from_where_the_gateway_is(side: Side) -> None:
    entries = tuple(
        side.store.keys.append(lambda seq: KeyRevoked(seq=seq, at=0.0, key_id=f"k{seq}"))
        for _ in range(2)
    )
    assert (await side.poll(routes=0, keys=1, wait_s=30)).keys == entries[1:]
    ahead = await side.poll(routes=0, keys=7, wait_s=30)
    assert (ahead.keys_reset, ahead.keys) == (True, entries)
    # A gateway that kept its routes and lost its keys, or has those of another state.
    lost = await side.poll(routes=0, keys=0, keys_epoch="", wait_s=30)
    assert (lost.keys_reset, lost.keys) == (False, entries)
    other = await side.poll(routes=0, keys=1, keys_epoch="another", wait_s=30)
    assert (other.keys_reset, other.keys) == (True, entries)


async def test_the_same_content_is_published_once_and_counts_on_after_a_restart(
    side: Side,
) -> None:
    assert await side.publisher.publish((MODEL,), None)
    assert not await side.publisher.publish((MODEL,), None)
    assert await side.publisher.publish((), None)
    again = Publisher(side.store, side.ledger, side.epoch, lambda: 0.0)
    await again.load()
    assert again.current == side.publisher.current
    assert again.current.version == 2


async def test_reports_wake_the_loop_when_they_say_something_new(side: Side) -> None:
    assert (await side.http.post("/feed/report", content=side.report())).status_code == 204
    assert side.woken.is_set()
    side.woken.clear()
    await side.http.post("/feed/report", content=side.report())
    assert not side.woken.is_set()
    busy = side.report(in_flight={"r1": 2}, routes_version=1)
    await side.http.post("/feed/report", content=busy)
    assert side.woken.is_set()
    [known] = side.gateways.living()
    assert (known.routes_version, side.gateways.in_flight()) == (1, {"r1": 2})
    side.now += 11
    assert side.gateways.living() == ()


async def test_an_acknowledgement_of_another_epoch_counts_for_nothing(side: Side) -> None:
    await side.http.post("/feed/report", content=side.report(epoch="other", routes_version=9))
    [known] = side.gateways.living()
    assert known.routes_version == 0


async def test_each_record_is_counted_once(side: Side) -> None:
    def batch(*numbers: int) -> bytes:
        records = tuple(
            RequestRecord(
                request_id=f"q{n}",
                gateway="g",
                received_at=1.0,
                operation="chat",
                stream=False,
                outcome="completed",
                status=200,
                e2e_s=0.1,
            )
            for n in numbers
        )
        return msgspec.json.encode(RecordBatch(gateway="g", records=records))

    first = await side.http.post("/feed/records", content=batch(1, 2))
    assert msgspec.json.decode(first.content, type=RecordReceipt) == RecordReceipt(
        accepted=2, duplicates=0
    )
    second = await side.http.post("/feed/records", content=batch(2, 3))
    assert msgspec.json.decode(second.content, type=RecordReceipt) == RecordReceipt(
        accepted=1, duplicates=1
    )
    assert [record.request_id for record in side.heard] == ["q1", "q2", "q3"]


@pytest.mark.parametrize("query", [{"routes": "x"}, {"wait_s": "soon"}])
async def test_nonsense_is_named(side: Side, query: dict[str, str]) -> None:
    refused = await side.http.get("/feed", params=query)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == next(iter(query))
    broken = await side.http.post("/feed/report", content=b"{}")
    assert broken.status_code == 400
