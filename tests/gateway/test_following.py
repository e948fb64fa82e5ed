"""The gateway and its controller: routes in, records out, and life without one (promise G23)."""

import asyncio

import httpx
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route

from modelyard.core.home import Home
from modelyard.core.keys import KeyLogEntry
from modelyard.core.routes import ModelRoute, RouteSnapshot, ShadowRoute
from modelyard.gateway.routes import Applied, RouteTable
from modelyard.wire.feed import FeedUpdate, GatewayReport, RecordBatch, RecordReceipt

TOKEN = "token-of-the-test"


class StubController:
    """The feed's routes over plain variables: a test decides what it says and when."""

    def __init__(self) -> None:
        self.snapshot: RouteSnapshot | None = None
        self.changed = asyncio.Event()
        self.reports: list[GatewayReport] = []
        self.records: dict[str, int] = {}
        self.refused = 0
        self.refusal: tuple[bytes, int] | None = None
        """Batches that hold these bytes are answered with this status."""
        self.polls = 0
        self.entries: list[KeyLogEntry] = []
        self.holes: set[int] = set()
        self.asked_from: list[int] = []
        self.garbled = b""
        """Said to every poll, instead of an update."""
        self.app = Starlette(
            routes=[
                Route("/feed", self.feed),
                Route("/feed/report", self.report, methods=["POST"]),
                Route("/feed/records", self.take_records, methods=["POST"]),
            ]
        )
        self.url = ""

    async def feed(self, request: Request) -> Response:
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return Response(status_code=401)
        known = int(request.query_params["routes"])
        after = int(request.query_params["keys"])
        reset = request.query_params["keys_epoch"] not in ("", "e")
        after = 0 if reset else after
        self.asked_from.append(after)
        while (self.snapshot is None or self.snapshot.version <= known) and not self._keys(after):
            self.changed.clear()
            await self.changed.wait()
        update = FeedUpdate(
            epoch="e", routes=self.snapshot, keys=self._keys(after), keys_reset=reset
        )
        self.polls += 1
        return Response(self.garbled or msgspec.json.encode(update))

    def _keys(self, after: int) -> tuple[KeyLogEntry, ...]:
        """The entries after one; a hole is there only for who has some already."""
        new = [entry for entry in self.entries if entry.seq > after]
        return tuple(entry for entry in new if after == 0 or entry.seq not in self.holes)

    def tell(self, *entries: KeyLogEntry) -> None:
        """Add to the key log."""
        self.entries += entries
        self.changed.set()

    async def report(self, request: Request) -> Response:
        self.reports.append(msgspec.json.decode(await request.body(), type=GatewayReport))
        return Response(status_code=204)

    async def take_records(self, request: Request) -> Response:
        body = await request.body()
        if self.refusal is not None and self.refusal[0] in body:
            self.refused += 1
            return Response(status_code=self.refusal[1])
        batch = msgspec.json.decode(body, type=RecordBatch)
        for record in batch.records:
            self.records[record.request_id] = self.records.get(record.request_id, 0) + 1
        return Response(
            msgspec.json.encode(RecordReceipt(accepted=len(batch.records), duplicates=0))
        )

    def publish(self, version: int, *models: ModelRoute) -> None:
        self.snapshot = RouteSnapshot(epoch="e", version=version, published_at=0, models=models)
        self.changed.set()


@pytest.fixture
def controller(home: Home, free_port: int) -> StubController:
    home.gateway_token.parent.mkdir(parents=True)
    home.gateway_token.write_text(TOKEN)
    stub = StubController()
    stub.url = f"http://127.0.0.1:{free_port}"
    return stub


async def _serve(stub: StubController) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    config = uvicorn.Config(
        stub.app, port=int(stub.url.rsplit(":", 1)[1]), log_level="critical", lifespan="off",
        timeout_graceful_shutdown=0,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, bool)
    return server, task


async def _end(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


async def test_routes_follow_the_controller_and_are_acknowledged(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    serving = await _serve(controller)
    controller.publish(7, model_route([engines[0].url]))
    rig: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 7)

    controller.publish(8, model_route([engines[0].url], name="renamed"))

    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 8)
    listed = (await rig.client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["renamed"]
    await eventually(lambda: controller.reports[-1].routes_version, lambda version: version == 8)
    await _end(*serving)


async def test_a_snapshot_that_can_not_be_enforced_changes_nothing(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    """Promise G14, as far as routes go: the old ones stay in force."""
    serving = await _serve(controller)
    rig: Rig = await start_rig(model_route([engines[0].url]), controller=controller.url)
    nowhere = msgspec.structs.replace(model_route([]), shadow=ShadowRoute(slot="green", sample=0.5))
    controller.publish(2, nowhere)
    await eventually(lambda: controller.reports, lambda reports: len(reports) > 1)

    assert await rig.metric("modelyard_gateway_routes_version") == 1
    assert (await rig.client.post("/v1/chat/completions", json=chat("x"))).status_code == 200
    await _end(*serving)


async def test_work_in_flight_is_reported_by_replica(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    serving = await _serve(controller)
    rig: Rig = await start_rig(model_route([engines[0].url]), controller=controller.url)
    asking = asyncio.create_task(
        rig.client.post("/v1/chat/completions", json=chat("[[fake: hang]]"))
    )
    await eventually(
        lambda: controller.reports[-1].in_flight if controller.reports else {},
        lambda counts: counts == {"r0": 1},
    )
    asking.cancel()
    await eventually(lambda: controller.reports[-1].in_flight, lambda counts: counts == {})
    assert controller.reports[-1].dispatched == {"r0": 1}
    await _end(*serving)


async def test_without_a_controller_traffic_goes_on_and_no_record_is_lost(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    """Promise G23: requests are served, and their records arrive when it is back."""
    serving = await _serve(controller)
    controller.publish(2, model_route([engines[0].url]))
    rig: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 2)

    async def ask() -> str:
        reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
        assert reply.status_code == 200
        return reply.headers["x-request-id"]

    before = await ask()
    await eventually(lambda: before in controller.records, bool)
    await _end(*serving)
    await eventually(
        lambda: rig.client.get("/health"), lambda reply: reply.json()["controller"] == "away"
    )

    while_away = {await ask() for _ in range(5)}
    waiting = await eventually(
        lambda: list((home.gateway / "spool").glob("*.json")), lambda files: bool(files)
    )
    assert waiting
    serving = await _serve(controller)

    await eventually(lambda: while_away <= set(controller.records), bool, within_s=10)
    assert set(controller.records.values()) == {1}
    await eventually(lambda: list((home.gateway / "spool").glob("*.json")), lambda files: not files)
    await _end(*serving)


async def test_a_gateway_started_without_a_controller_serves_from_its_last_snapshot(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    """Promise G23, its second half: what was followed is kept, and is enough to start from."""
    serving = await _serve(controller)
    controller.publish(5, model_route([engines[0].url]))
    first: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: first.metric("modelyard_gateway_routes_version"), lambda v: v == 5)
    await _end(*serving)
    kept = (home.gateway / "snapshot.json").read_bytes()

    second: Rig = await start_rig()

    assert msgspec.json.decode(kept, type=RouteSnapshot).version == 5
    assert (await second.client.get("/ready")).status_code == 200
    reply = await second.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
    assert reply.status_code == 200


@pytest.mark.parametrize("kept", [b"", b"{", b'{"format": 99}', b'{"epoch":1}'])
async def test_a_damaged_snapshot_on_disk_does_not_stop_the_start(
    start_rig: StartRig, home: Home, kept: bytes
) -> None:
    home.gateway.mkdir(parents=True)
    (home.gateway / "snapshot.json").write_bytes(kept)

    rig: Rig = await start_rig()

    ready = await rig.client.get("/ready")
    assert ready.status_code == 503
    assert (await rig.client.get("/health")).status_code == 200
    refused = await rig.client.post("/v1/chat/completions", json=chat("x"))
    # What there is, nobody can say yet: a client that is told 404 would not come again.
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_the_controllers_address_is_not_trusted_with_html(
    start_rig: StartRig, engines: list[Engine], home: Home
) -> None:
    """Something else answers at the controller's address: the routes in force stay."""
    home.gateway_token.parent.mkdir(parents=True)
    home.gateway_token.write_text(TOKEN)
    rig: Rig = await start_rig(model_route([engines[0].url]), controller=engines[1].url)

    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.post(f"{rig.url}/v1/chat/completions", json=chat("x", max_tokens=1))
    assert reply.status_code == 200


async def test_records_that_the_controller_will_never_take_hold_up_no_others(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    """Promise G23: a batch answered with 400 is set aside; one answered with 503 is sent again."""
    spool = home.gateway / "spool"
    spool.mkdir(parents=True)
    (spool / "0-old.json").write_bytes(b'{"of": "another time"}')
    controller.refusal = (b"another time", 400)
    controller.publish(2, model_route([engines[0].url]))
    serving = await _serve(controller)
    rig: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 2)
    reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))

    await eventually(lambda: reply.headers["x-request-id"] in controller.records, bool)

    assert controller.refused == 1
    assert (spool / "0-old.json.refused").exists()
    controller.refusal = (b"req-", 503)
    reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
    await eventually(lambda: controller.refused, lambda count: count >= 2)
    controller.refusal = None
    await eventually(lambda: reply.headers["x-request-id"] in controller.records, bool)
    await _end(*serving)


@pytest.mark.parametrize(
    "garbled",
    [
        b'{"epoch":"\xff"}',
        b"<html>",
        b'{"epoch":"e"}',
        b'{"epoch":"e","routes":{"format":99,"epoch":"e","version":9,"published_at":0}}',
    ],
)
async def test_following_outlives_what_the_controller_says(
    start_rig: StartRig, controller: StubController, engines: list[Engine], garbled: bytes
) -> None:
    """Garbage ends nothing, is not asked for in a rush, and what comes after it is applied."""
    serving = await _serve(controller)
    rig: Rig = await start_rig(model_route([engines[0].url]), controller=controller.url)
    controller.garbled = garbled
    controller.publish(2, model_route([engines[0].url], name="later"))
    await eventually(lambda: controller.polls, lambda count: count >= 2)
    assert controller.polls < 5

    controller.garbled = b""

    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 2)
    await _end(*serving)


async def test_a_route_that_is_no_url_changes_nothing_and_ends_nothing(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    serving = await _serve(controller)
    rig: Rig = await start_rig(model_route([engines[0].url]), controller=controller.url)
    controller.publish(2, model_route([engines[0].url, "http://127.0.0.1:99999"], name="bad"))
    await eventually(lambda: controller.polls, lambda count: count >= 1)

    assert (await rig.client.post("/v1/chat/completions", json=chat("x"))).status_code == 200
    controller.publish(3, model_route([engines[0].url], name="good"))

    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 3)
    await _end(*serving)


async def test_another_epoch_is_followed_though_its_count_is_lower(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    """A state store that was made anew counts from the beginning."""
    rig: Rig = await start_rig(model_route([engines[0].url]))
    table = rig.service.follower._routes
    table.applied = Applied("of the old store", 900)
    link = rig.service.follower

    link._apply(RouteSnapshot(epoch="new", version=1, published_at=0))

    assert table.applied == ("new", 1)


async def test_a_defect_in_following_does_not_end_it(
    start_rig: StartRig, controller: StubController, engines: list[Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    apply = RouteTable.apply
    failed = asyncio.Event()

    def fail_once(table: RouteTable, snapshot: RouteSnapshot) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a defect")
        apply(table, snapshot)

    monkeypatch.setattr(RouteTable, "apply", fail_once)
    serving = await _serve(controller)
    controller.publish(2, model_route([engines[0].url]))
    rig: Rig = await start_rig(controller=controller.url)

    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 2)
    assert failed.is_set()
    await _end(*serving)
