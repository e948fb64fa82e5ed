"""GET /api/costs, and limits of money over what has a price, on a real store (O6, G14)."""

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.observe.test_costs import AT_S, DAY, ran, record

from modelyard.api.app import create_app
from modelyard.api.parts import About, ApiParts
from modelyard.control.smoke import check_schema
from modelyard.core.cost import PriceList
from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.registry.registry import Registry
from modelyard.state.store import Store

from .test_app import TOKEN, Runtime, choose, error, registry, runtime, store

__all__ = ["registry", "runtime", "store"]
PRICES = PriceList(currency="USD", replica_hour={"process": 0.12})


@pytest.fixture
async def api(
    store: Store, registry: Registry, runtime: Runtime
) -> AsyncIterator[httpx.AsyncClient]:
    """An API that knows what processes cost, and not what their accelerators or containers do."""
    app = create_app(
        ApiParts(
            token=TOKEN,
            about=About(url="", gateway_url="", pid=9, version="1", started_at=1.0, home="/home"),
            store=store,
            registry=registry,
            choose_engine=choose,
            check_schema=check_schema,
            accelerators=lambda: 0,
            refuse=runtime.refuse,
            prices=PRICES,
            runtime=runtime,
            wake=runtime.wake,
            announce_keys=runtime.announce,
            clock=lambda: AT_S,
        )
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://controller",
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as client:
        yield client


def deploy(store: Store, name: str, launcher: str = "process", accelerators: int = 0) -> None:
    spec = SlotSpec(model=name, version=1, digest="sha256:1", engine="fake", launcher=launcher,
                    accelerators_per_replica=accelerators)  # fmt: skip
    store.deployments.change(name, lambda _: Deployment(name=name, blue=spec, created_at=1.0))


async def test_costs_are_told_exactly(api: httpx.AsyncClient, store: Store) -> None:
    store.records.add([record(1), record(2, tenant="red"), record(3, tenant=None, key_id=None)])
    ran(store, 10**9)
    told = (await api.get("/api/costs", params={"days": 2, "top": 1})).json()
    assert (told["currency"], told["by"], told["since_day"]) == ("USD", "tenant", DAY - 1)
    (shown,) = told["rows"]
    assert shown["cost_nanos"] == 250_000_000
    assert told["folded_count"] == 2
    assert told["folded"]["cost_nanos"] == 500_000_000
    assert told["total"]["cost_nanos"] + told["idle_nanos"] == told["total"]["capacity_nanos"]
    names = {row["name"] for row in (await api.get("/api/costs")).json()["rows"]}
    assert names == {"blue", "red", "(no key)"}
    days = (await api.get("/api/costs", params={"by": "day"})).json()["rows"]
    assert [day["name"] for day in days] == ["2024-10-04"]


async def test_what_lacks_a_price_is_named_with_its_setting(
    api: httpx.AsyncClient, store: Store
) -> None:
    deploy(store, "m", accelerators=2)
    deploy(store, "n", launcher="docker")
    deploy(store, "priced")
    store.records.add([record(1, None), record(2, None, model="n"), record(3, model="priced"),
                       record(4, None, model="gone")])  # fmt: skip
    told = (await api.get("/api/costs", params={"by": "model"})).json()
    assert told["unpriced_models"] == ["gone", "m", "n"]
    assert told["missing_settings"] == ["cost.accelerator_hour.process", "cost.replica_hour.docker"]


@pytest.mark.parametrize("query", ["days=0", "days=x", "by=colour", "top=0", "by=version&tenant=t"])
async def test_what_can_not_be_asked_is_refused(api: httpx.AsyncClient, query: str) -> None:
    reply = await api.get(f"/api/costs?{query}")
    assert reply.status_code in (400, 422)
    assert error(reply)["message"]


async def test_money_is_limited_where_something_has_a_price(
    api: httpx.AsyncClient, store: Store
) -> None:
    deploy(store, "own")
    deploy(store, "gpu", accelerators=1)
    money = {"limits": {"cost_per_day": 5}}
    made = await api.post("/api/keys", json={"key_id": "a", **money})
    assert made.status_code == 201
    assert (await api.post("/api/keys", json={"models": ["later"], **money})).status_code == 201
    refused = await api.post("/api/keys", json={"models": ["gpu"], **money})
    assert refused.status_code == 400
    assert "cost_per_day needs prices, and 'gpu' has none" in error(refused)["message"]
    assert "set cost.accelerator_hour.process in config.yaml" in error(refused)["next_step"]
    assert (await api.put("/api/limits/gpu", json=money)).status_code == 400
    assert (await api.put("/api/limits/own", json=money)).status_code == 204
    assert (await api.put("/api/tenants/t", json=money)).status_code == 204
    by_model = {"limits_by_model": {"gpu": {"cost_per_month": 5}}}
    assert (await api.put("/api/tenants/t", json=by_model)).status_code == 400
    assert store.keys.last_seq() == 4
