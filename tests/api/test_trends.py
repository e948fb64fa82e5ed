"""A model's hours over the management API: named fields, points, what goes on now."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.core.test_rollups import record
from tests.state.test_store import DEPLOYMENT, REPLICA
from tests.state.test_trends import SAMPLE

from modelyard.api.app import create_app
from modelyard.api.parts import About, ApiParts
from modelyard.api.trend_messages import Figures, Live, LiveModel, Summary, VersionFigures
from modelyard.core.records import RequestRecord
from modelyard.state.store import Store

from .test_app import TOKEN, Runtime, error, registry, runtime, store

__all__ = ["registry", "runtime", "store"]
DAY_S = 86_400
NOW = 20_700 * DAY_S + 13 * 3600 + 125.0


@pytest.fixture
async def api(store: Store, registry: Any, runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    parts = ApiParts(
        token=TOKEN,
        about=About(url="", gateway_url="", pid=9, version="1", started_at=1.0, home="/home"),
        store=store,
        registry=registry,
        choose_engine=lambda facts, wanted: "",
        check_schema=lambda test: None,
        accelerators=lambda: 0,
        refuse=runtime.refuse,
        runtime=runtime,
        wake=runtime.wake,
        announce_keys=runtime.announce,
        clock=lambda: NOW,
    )
    app = create_app(parts)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


def asked(number: int, ago_s: float, **fields: Any) -> RequestRecord:
    made: dict[str, Any] = {"ttft_s": 0.1, "prompt_tokens": 10, "completion_tokens": 20,
                            "cost": 0.001, "received_at": NOW - ago_s}  # fmt: skip
    return record(number, **(made | fields))


TIMES = {"p50_s", "p95_s", "p99_s", "average_s"}
FIGURES = {
    "request_count", "completed_count", "failed_count", "cancelled_count", "rejected_count",
    "limited_count", "cached_count", "error_rate", "request_rate", "response_time",
    "time_to_first_token", "inter_token_time", "token_rate", "tokens_in", "tokens_out", "cost",
    "priced_count",
}  # fmt: skip


async def test_a_summary_has_the_promised_fields(api: httpx.AsyncClient, store: Store) -> None:
    """Dashboards and scripts of others read these: a name is not taken back."""
    store.records.add([asked(1, 30)])
    store.machines.add("here", NOW - 20, SAMPLE)
    told = (await api.get("/api/summary", params={"model": "chat", "hours": 24})).json()

    assert set(told) == FIGURES | {
        "model", "hours", "since", "until", "workers", "versions", "machines",
    }  # fmt: skip
    assert set(told["response_time"]) == set(told["time_to_first_token"]) == TIMES
    [version] = told["versions"]
    assert set(version) == FIGURES | {"version", "digest", "slot", "workers"}
    assert set(version["workers"]) == {"memory_bytes", "cpus", "gpu_memory_bytes"}
    [machine] = told["machines"]
    assert set(machine) == {
        "host", "memory_bytes", "memory_total_bytes", "cpu_share", "load_1m", "gpus",
    }  # fmt: skip
    assert set(machine["gpus"][0]) == {
        "index", "name", "busy_share", "memory_bytes", "memory_total_bytes", "power_w",
        "temperature_c",
    }  # fmt: skip
    assert set(machine["cpu_share"]) == {"average", "most"}
    for kind in (Summary, VersionFigures, Figures):
        assert set(kind.model_fields) >= FIGURES
    assert told["workers"]["memory_bytes"] == {"average": 40, "most": 40}


async def test_a_summary_adds_up_what_was_asked_in_those_hours(
    api: httpx.AsyncClient, store: Store
) -> None:
    store.records.add(
        [
            *(asked(n, 60 + n, e2e_s=1.0 + n, ttft_s=0.1 * (n + 1)) for n in range(10)),
            asked(20, 7200, outcome="failed", status=502, version=2, digest="sha256:2", cost=None),
            asked(21, 7200, outcome="cancelled", status=499),
            asked(22, 7200, outcome="rejected", status=429),
            asked(23, 3 * DAY_S),
            asked(24, 60, model="other"),
        ]
    )
    told = Summary.model_validate_json(
        (await api.get("/api/summary", params={"model": "chat", "hours": 24})).content
    )
    assert (told.request_count, told.completed_count, told.failed_count) == (13, 10, 1)
    assert (told.cancelled_count, told.rejected_count, told.limited_count) == (1, 1, 1)
    assert told.error_rate == pytest.approx(1 / 11)
    assert told.response_time.average_s == pytest.approx(5.5)
    assert told.response_time.p50_s == pytest.approx(5.0, rel=0.0201)
    assert told.response_time.p95_s == pytest.approx(10.0, rel=0.0201)
    assert told.time_to_first_token.p99_s == pytest.approx(1.0, rel=0.0201)
    assert (told.tokens_in, told.tokens_out) == (130, 260)
    assert told.cost == pytest.approx(0.012)
    assert told.until == NOW
    assert told.since == NOW - 24 * 3600 - 5
    assert told.token_rate == pytest.approx(260 / (24 * 3600 + 5))
    assert [(each.version, each.request_count) for each in told.versions] == [(2, 1), (3, 12)]
    assert told.workers is None
    assert told.machines == ()

    longer = (await api.get("/api/summary", params={"model": "chat", "hours": 24 * 30})).json()
    assert longer["request_count"] == 14


async def test_nothing_asked_yet_is_told_as_nothing(api: httpx.AsyncClient, store: Store) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    told = (await api.get("/api/summary", params={"model": "chat"})).json()
    assert (told["request_count"], told["error_rate"], told["cost"]) == (0, None, None)
    assert told["response_time"] == dict.fromkeys(TIMES)
    assert told["versions"] == []
    points = (await api.get("/api/trends", params={"model": "chat", "hours": 1})).json()["points"]
    assert [point["request_count"] for point in points] == [0] * 61


@pytest.mark.parametrize("path", ["/api/summary", "/api/trends"])
async def test_a_model_that_nobody_knows_is_refused_with_those_known(
    api: httpx.AsyncClient, store: Store, path: str
) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    store.records.add([asked(1, 9, model="gone-since"), asked(2, 9, model=None)])
    refused = await api.get(path, params={"model": "caht\0" + "x" * 500})
    assert refused.status_code == 404
    told = error(refused)
    assert "known: chat, gone-since" in told["message"]
    assert told["param"] == "model"
    assert (await api.get(path, params={"model": "gone-since"})).status_code == 200


@pytest.mark.parametrize("path", ["/api/summary", "/api/trends"])
@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "1e9", "a day"])
async def test_hours_out_of_range_are_refused(
    api: httpx.AsyncClient, store: Store, path: str, hours: str
) -> None:
    store.records.add([asked(1, 9)])
    refused = await api.get(path, params={"model": "chat", "hours": hours})
    assert refused.status_code == 400
    assert error(refused)["param"] == "hours"


@pytest.mark.parametrize(
    ("hours", "step", "words"),
    [
        (24, 61, "whole number of minutes"),
        (24, 90_000, "of days"),
        (49, 60, "kept for 48 hours"),
        (24 * 31, 900, "kept for 720 hours"),
        (24 * 366 * 10, 86_400, "the most"),
    ],
)
async def test_steps_that_make_no_sense_are_refused(
    api: httpx.AsyncClient, store: Store, hours: float, step: int, words: str
) -> None:
    store.records.add([asked(1, 9)])
    query = {"model": "chat", "hours": hours, "step": step}
    refused = await api.get("/api/trends", params=query)
    assert refused.status_code == 400
    assert words in error(refused)["message"]
    assert error(refused)["param"] == "step"


@pytest.mark.parametrize(
    ("hours", "step", "meant"),
    [(1, None, 60), (24, None, 900), (24 * 30, None, DAY_S), (24, 1800, 1800), (12, 600, 600),
     (24 * 7, 10_800, 10_800), (24 * 40, 2 * DAY_S, 2 * DAY_S)],
)  # fmt: skip
async def test_points_hold_every_request_of_their_stretch(
    api: httpx.AsyncClient, store: Store, hours: float, step: int | None, meant: int
) -> None:
    begin = int((NOW - hours * 3600) // meant) * meant
    ago = [0.5, 5.0, 59.0, 3000.0, hours * 3600 - 1, NOW - begin, NOW - begin + 1]
    store.records.add([asked(number, each) for number, each in enumerate(ago)])
    query: dict[str, Any] = {"model": "chat", "hours": hours} | ({"step": step} if step else {})
    told = (await api.get("/api/trends", params=query)).json()

    assert told["step_s"] == meant
    points = told["points"]
    assert points[0]["at"] == begin
    assert [b["at"] - a["at"] for a, b in itertools.pairwise(points)] == [meant] * (len(points) - 1)
    assert points[-1]["at"] + points[-1]["length_s"] == NOW
    assert sum(point["request_count"] for point in points) == 6  # the last one came before
    for point in points:
        meant_here = sum(0 <= NOW - each - point["at"] < meant for each in ago)
        assert point["request_count"] == meant_here


async def test_what_goes_on_now_is_one_answer(
    api: httpx.AsyncClient, store: Store, runtime: Runtime
) -> None:
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    store.replicas.put(REPLICA)
    store.machines.add("here", NOW - 20, SAMPLE)
    store.records.add(
        [
            asked(1, 2),
            asked(2, 64, outcome="failed"),
            asked(3, 66),  # before the window
            asked(4, 2, model=None, outcome="rejected"),
        ]
    )
    told = Live.model_validate_json((await api.get("/api/live")).content)

    assert (told.at, told.window_s, told.gateways) == (NOW, 65.0, 1)
    [model] = told.models
    assert set(LiveModel.model_fields) == {
        "name", "model", "version", "state", "replicas", "in_flight", "figures", "rollout",
        "message",
    }  # fmt: skip
    assert (model.name, model.model, model.version, model.in_flight) == ("chat", "yardling", 0, 3)
    assert model.replicas == {"starting": 1}
    assert (model.figures.request_count, model.figures.error_rate) == (2, 0.5)
    assert model.figures.request_rate == pytest.approx(2 / 65)
    assert model.rollout
    assert model.rollout.waits_for == "chat-1 waits"
    assert told.elsewhere.rejected_count == 1
    assert [machine.host for machine in told.machines] == ["here"]
