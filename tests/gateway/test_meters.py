"""What a gateway counts: by model, version and slot, whatever is asked, and never without end."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.rig import DIGEST, Engine, Rig, StartRig, chat, model_route

from modelyard.core.metrics.catalogue import BY_SAMPLE
from modelyard.core.records import Attempt, RequestRecord
from modelyard.core.routes import ModelRoute, RouteSnapshot, SlotRoute
from modelyard.gateway import places
from modelyard.gateway.cache import AnswerCache, CacheBounds
from modelyard.gateway.connection import Connection
from modelyard.gateway.meters import STATUSES, Meters
from modelyard.gateway.routes import RouteTable

Samples = list[tuple[str, dict[str, str], float]]


def parse(text: str) -> Samples:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def value(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        each
        for called, given, each in samples
        if called == name and labels.items() <= given.items()
    )


async def scrape(rig: Rig) -> Samples:
    answer = await rig.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


async def test_requests_are_told_by_model_version_and_slot(rig: Rig) -> None:
    for _ in range(3):
        await rig.client.post("/v1/chat/completions", json=chat("one two", max_tokens=5))
    await rig.client.post(
        "/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 4, "stream": True}
    )
    await rig.client.post("/v1/chat/completions", json=chat("x") | {"model": "invented"})

    told = await scrape(rig)

    assert {name for name, _, _ in told} <= set(BY_SAMPLE)
    place = {"model": "m", "version": "weights:3", "slot": "blue"}
    ended = {"outcome": "completed", "status": "200"}
    assert value(told, "modelyard_requests_total", **place, operation="chat", **ended) == 3
    assert value(told, "modelyard_requests_total", **place, operation="completions") == 1
    unknown = {"model": "unknown", "version": "none", "slot": "none", "status": "404"}
    assert value(told, "modelyard_requests_total", **unknown) == 1
    assert value(told, "modelyard_tokens_total", **place, gen_ai_token_type="output") == 19
    assert value(told, "modelyard_request_queue_seconds_count", **place) == 4
    assert value(told, "modelyard_request_replica_seconds_total", **place) > 0
    ours = {"gen_ai_request_model": "m", "version": "weights:3", "slot": "blue"}
    for name in ("request_duration", "time_to_first_token"):
        full = f"gen_ai_server_{name}_seconds_count"
        assert value(told, full, **ours, gen_ai_operation_name="chat") == 3
        assert value(told, full, **ours, gen_ai_operation_name="text_completion") == 1
    assert value(told, "gen_ai_server_time_per_output_token_seconds_count", **ours) == 1
    assert value(told, "modelyard_build_info", part="gateway") == 1


async def test_a_gateway_that_stands_alone_tells_the_same(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(
        {"models": [{"name": "m", "upstreams": [{"url": engine.url} for engine in engines]}]}
    )
    await rig.client.post("/v1/chat/completions", json=chat("one", max_tokens=3))

    told = await scrape(rig)

    assert {name for name, _, _ in told} <= set(BY_SAMPLE)
    place = {"model": "m", "version": "remote", "slot": "blue"}
    assert value(told, "modelyard_requests_total", **place) == 1
    assert value(told, "modelyard_replica_available", **place) == 2


@pytest.mark.parametrize("name", ['a"b', "back\\slash", "模型 🚀", "{a=}"])
async def test_hostile_names_are_told_whole(
    start_rig: StartRig, engines: list[Engine], name: str
) -> None:
    rig = await start_rig(model_route([engines[0].url], name=name))
    await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=2) | {"model": name})

    told = await scrape(rig)

    assert value(told, "modelyard_requests_total", model=name, outcome="completed") == 1
    assert value(told, "modelyard_replica_available", model=name) == 1


@pytest.mark.parametrize(
    ("peer", "given", "status"),
    [
        ("127.0.0.1", b"", 200),
        ("::ffff:127.0.0.1", b"", 200),
        ("10.1.2.3", b"", 401),
        ("10.1.2.3", b"Bearer wrong", 401),
        ("10.1.2.3", b"Bearer secret", 200),
    ],
)
async def test_from_another_machine_metrics_need_their_token(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, peer: str, given: bytes, status: int
) -> None:
    rig.home.metrics_token.parent.mkdir(exist_ok=True)
    rig.home.metrics_token.write_text("secret\n")
    monkeypatch.setattr(Connection, "peer", peer)

    answer = await rig.client.get("/metrics", headers={"authorization": given.decode()})

    assert answer.status_code == status
    assert ("modelyard_requests" in answer.text) == (status == 200)
    if status == 401:
        assert "metrics.token" in answer.text


# --- without a gateway around them ---------------------------------------------------------------


class Books:
    waiting, dropped = 3, 7

    def put(self, record: RequestRecord) -> None: ...

    def flush(self) -> None: ...

    @property
    def refusing(self) -> bool:
        return False


def routed(*names: str) -> RouteSnapshot:
    slots = (
        SlotRoute(
            slot="blue", model="w", version=3, digest=DIGEST, weight=1.0, operations=("chat",)
        ),
    )
    models = tuple(
        ModelRoute(name=name, deployment=name, created_at=1, slots=slots) for name in names
    )
    return RouteSnapshot(epoch="e", version=1, published_at=0, models=models)


def make(*names: str) -> tuple[Meters, RouteTable]:
    routes = RouteTable()
    routes.apply(routed(*names))
    books: Any = Books()
    room: Any = type("Room", (), {"waiting": 0})()
    return Meters(routes, books, AnswerCache(CacheBounds()), room), routes


def record(model: str | None = "m", **changes: Any) -> RequestRecord:
    attempt = Attempt(
        replica="r", slot="blue", digest=DIGEST, outcome="completed", started_s=0, duration_s=1
    )
    fields: dict[str, Any] = {
        "request_id": "r", "gateway": "g", "received_at": 1.0, "operation": "chat",
        "stream": True, "outcome": "completed", "status": 200, "model": model, "slot": "blue",
        "version": 3, "attempts": (attempt,), "e2e_s": 0.5, "ttft_s": 0.1, "prompt_tokens": 10,
        "completion_tokens": 20, "cached_tokens": 4, "cost": 0.25, "replica_s": 0.4,
    }  # fmt: skip
    return RequestRecord(**(fields | changes))


def told_by(meters: Meters) -> Samples:
    return parse(meters.exposition().decode())


def test_cost_and_tokens_are_counted_once_for_an_answer_that_is_shared() -> None:
    meters, _ = make("m")
    meters.ended(record(), "w")
    meters.ended(record(cache="hit", attempts=(), cost=0.0), "w")

    told = told_by(meters)

    place = {"model": "m", "version": "w:3", "slot": "blue"}
    assert value(told, "modelyard_cost_total", **place) == 0.25
    assert value(told, "modelyard_cached_prompt_tokens_total", **place) == 4
    assert value(told, "modelyard_tokens_total", **place, gen_ai_token_type="input") == 10
    assert value(told, "modelyard_requests_total", **place) == 2
    assert value(told, "modelyard_cache_requests_total", model="m", result="hit") == 1
    assert value(told, "modelyard_gateway_records_dropped_total") == 7


def test_the_same_version_number_of_other_weights_is_another_version() -> None:
    meters, _ = make("m")
    meters.ended(record(), "w")
    meters.ended(record(), "v")

    told = told_by(meters)

    assert value(told, "modelyard_requests_total", version="w:3") == 1
    assert value(told, "modelyard_requests_total", version="v:3") == 1


def test_statuses_that_upstreams_invent_are_folded() -> None:
    meters, _ = make("m")
    for status in range(400, 600):
        meters.ended(record(outcome="rejected", status=status), "w")

    told = told_by(meters)

    statuses = {labels["status"] for name, labels, _ in told if name == "modelyard_requests_total"}
    assert len(statuses) <= len(STATUSES) + 2
    assert {"4xx", "5xx", "429", "503"} <= statuses
    assert value(told, "modelyard_requests_total") == 200


def test_counters_of_failures_are_there_before_any() -> None:
    """A counter that is born with its first count is seen to grow by nothing."""
    meters, _ = make("m")

    told = told_by(meters)

    begun = [labels for name, labels, each in told if name == "modelyard_requests_total"]
    for version, slot in (("w:3", "blue"), ("none", "none")):
        for status in ("502", "503", "504"):
            labels = {"version": version, "slot": slot, "outcome": "failed", "status": status}
            assert any(labels.items() <= given.items() for given in begun)


def test_what_comes_beyond_the_places_is_counted_as_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "PLACES", 10)
    names = [f"m{n}" for n in range(30)]
    meters, _ = make(*names)
    for name in names:
        meters.ended(record(name), "w")
        meters.ended(record(None, slot=None, version=None, outcome="rejected", status=404))
        meters.copied(record(name))

    told = told_by(meters)

    models = {labels["model"] for name, labels, _ in told if name == "modelyard_requests_total"}
    assert len(models) <= 12
    assert {"other", "unknown"} <= models
    assert value(told, "modelyard_requests_total", outcome="completed") == 30
    assert value(told, "modelyard_requests_total", model="unknown") == 30
    copies = {given["model"] for n, given, _ in told if n == "modelyard_shadow_requests_total"}
    assert len(copies) <= 12
    assert value(told, "modelyard_shadow_requests_total") == 30


def test_what_is_no_longer_routed_goes_when_nothing_ended_there_for_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("modelyard.gateway.meters.time.monotonic", lambda: now[0])
    meters, routes = make("m", "n")
    for name in ("m", "n"):
        meters.ended(record(name, outcome="rejected", status=429), "w")
        meters.ended(record(name), "w")
    assert value(told_by(meters), "modelyard_requests_total", model="n") == 2

    routes.apply(routed("m"))
    now[0] += 3000
    meters.ended(record("n"), "w")  # a stream that was on its way
    assert value(told_by(meters), "modelyard_requests_total", model="n") == 3
    now[0] += 3000
    assert value(told_by(meters), "modelyard_requests_total", model="n") == 3
    now[0] += 1000

    told = told_by(meters)

    assert not [labels for _, labels, _ in told if "n" in labels.values()]
    assert value(told, "modelyard_requests_total", model="m") == 2
    meters.ended(record("n"), "w")  # and it may come back
    assert value(told_by(meters), "modelyard_requests_total", model="n") == 1
