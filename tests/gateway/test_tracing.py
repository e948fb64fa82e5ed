"""Traces of a gateway before fake engines and a real receiver of OTLP."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.collector import Collector as Receiver
from tests.collector import attributes, events
from tests.gateway.rig import DIGEST, Engine, Rig, StartRig, chat, eventually, model_route

from modelyard.core.cost import Price
from modelyard.core.records import RequestRecord
from modelyard.core.routes import Caching, Policy
from modelyard.core.telemetry import RequestLogOptions
from modelyard.gateway.tokens import make_token
from modelyard.observe.collectors import Collector

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "congo=t61rcWkgMzE"}
NOT_SAMPLED = SAMPLED | {"traceparent": f"00-{TRACE}-{CALLER}-00"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


async def traced(
    start_rig: StartRig, receiver: Receiver, *models: Any, sample: float = 1.0, **options: Any
) -> Rig:
    collector = Collector(url=receiver.url, sample=sample)
    rig: Rig = await start_rig(*models, collector=collector, **options)
    return rig


async def spans(receiver: Receiver, count: int) -> list[Span]:
    found: list[Span] = await eventually(
        lambda: receiver.spans, lambda spans: len(spans) >= count, 20
    )
    assert len(found) == count
    return found


async def asked(engine: Engine) -> dict[str, str]:
    """Headers of the last request that the engine got."""
    async with httpx.AsyncClient(base_url=engine.url, trust_env=False) as client:
        (*_, last) = (await client.get("/control/requests")).json()
        return {name.lower(): value for name, value in dict(last["headers"]).items()}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_span_with_its_way(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine], stream: bool
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]))

    reply = await rig.client.post(
        "/v1/chat/completions", json=chat("hello", max_tokens=5, stream=stream), headers=SAMPLED
    )

    assert reply.status_code == 200
    (span,) = await spans(receiver, 1)
    (record,) = await rig.records(1)
    assert (span.name, span.kind) == ("chat m", Span.SPAN_KIND_SERVER)
    assert span.trace_id.hex() == record.trace_id == TRACE
    assert span.parent_span_id.hex() == CALLER
    assert span.trace_state == SAMPLED["tracestate"]
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span)
    port = int(rig.url.rsplit(":", 1)[1])
    assert (
        told
        | {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "modelyard",
            "gen_ai.request.model": "m",
            "gen_ai.request.max_tokens": 5,
            "gen_ai.response.model": "weights:3",
            "gen_ai.response.finish_reasons": ["length"],
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": 5,
            "http.response.status_code": 200,
            "server.address": "127.0.0.1",
            "server.port": port,
            "modelyard.request_id": reply.headers["x-request-id"],
            "modelyard.version": 3,
            "modelyard.digest": DIGEST,
            "modelyard.slot": "blue",
            "modelyard.replica": "r0",
            "modelyard.outcome": "completed",
            "modelyard.cache": "off",
            "modelyard.attempts": 1,
            "modelyard.ttft_s": record.ttft_s,
        }
        == told
    )
    assert told.get("gen_ai.request.stream", False) is stream
    assert "error.type" not in told
    names = [name for name, _ in events(span)]
    assert names == ["admission", "choose", "attempt", "first_token", "end"]
    times = [event.time_unix_nano for event in span.events]
    assert times == sorted(times)
    assert span.start_time_unix_nano <= times[0]
    assert times[-1] == span.end_time_unix_nano
    # The engine's own span, where it makes one, is this one's child.
    assert (await asked(engines[0]))["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert (await asked(engines[0]))["tracestate"] == SAMPLED["tracestate"]


async def test_one_id_joins_all_that_is_known_of_a_request(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    """What the client was told, the record, the line of the log, the span, the explanation."""
    route = model_route([engines[0].url])
    slot = msgspec.structs.replace(route.slots[0], price=Price(output_per_million=2.0))
    rig = await traced(
        start_rig,
        receiver,
        msgspec.structs.replace(route, slots=(slot,)),
        request_log=RequestLogOptions(file="requests.jsonl"),
    )
    make_token(rig.home.gateway_token)

    reply = await rig.client.post("/v1/chat/completions", json=chat("hello", max_tokens=5))

    (record,) = await rig.records(1)
    (span,) = await spans(receiver, 1)
    (line,) = await eventually(rig.log, bool, 20)
    told = attributes(span)
    explained = await rig.admin(f"/admin/requests/{record.request_id}")
    assert record.request_id == reply.headers["x-request-id"] == told["modelyard.request_id"]
    assert line == record == msgspec.convert(explained["record"], RequestRecord)
    assert (record.version, record.digest, record.completion_tokens) == (3, DIGEST, 5)
    assert record.cost == pytest.approx(5 * 2.0 / 1e6)
    assert record.e2e_s >= (record.ttft_s or 0) > 0
    assert (told["modelyard.cost"], told["modelyard.ttft_s"]) == (record.cost, record.ttft_s)
    assert record.trace_id == span.trace_id.hex()


async def test_without_a_caller_a_new_trace_begins(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]))
    await rig.client.post("/v1/chat/completions", json=chat("hello"))
    (span,) = await spans(receiver, 1)
    (record,) = await rig.records(1)
    assert span.parent_span_id == b""
    assert span.trace_id.hex() == record.trace_id
    sent = (await asked(engines[0]))["traceparent"]
    assert sent == f"00-{record.trace_id}-{span.span_id.hex()}-01"


async def test_what_is_not_sampled_is_passed_on_and_makes_no_span(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]), sample=0.0)

    await rig.client.post("/v1/chat/completions", json=chat("a"), headers=NOT_SAMPLED)
    assert (await asked(engines[0]))["traceparent"] == NOT_SAMPLED["traceparent"]
    assert (await asked(engines[0]))["tracestate"] == NOT_SAMPLED["tracestate"]
    await rig.client.post("/v1/chat/completions", json=chat("b"))
    assert "traceparent" not in await asked(engines[0])
    await rig.client.post("/v1/chat/completions", json=chat("c"), headers=SAMPLED)

    (span,) = await spans(receiver, 1)
    assert span.parent_span_id.hex() == CALLER
    assert [record.trace_id for record in await rig.records(3)] == [TRACE, None, TRACE]


async def test_with_traces_off_the_header_goes_on_as_it_came(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]))
    await rig.client.post("/v1/chat/completions", json=chat("a"), headers=SAMPLED)
    sent = await asked(engines[0])
    assert {name: sent[name] for name in SAMPLED} == SAMPLED
    (record,) = await rig.records(1)
    assert record.trace_id == TRACE
    assert "trace_spans" not in (await rig.client.get("/metrics")).text


async def test_a_retry_and_a_failure_are_on_the_span(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engine.url for engine in engines]))
    for engine in engines:
        await engine.fault("status=500", times=1)

    reply = await rig.client.post("/v1/chat/completions", json=chat("hello"))

    assert reply.status_code == 502
    (span,) = await spans(receiver, 1)
    assert span.status.code == Status.STATUS_CODE_ERROR
    told = attributes(span)
    assert told["error.type"] == reply.json()["error"]["code"]
    assert told["modelyard.attempts"] == 2
    assert "gen_ai.response.model" not in told
    attempts = [facts for name, facts in events(span) if name == "attempt"]
    assert [facts["http.response.status_code"] for facts in attempts] == [500, 500]
    assert {facts["modelyard.replica"] for facts in attempts} == {"r0", "r1"}
    assert [name for name, _ in events(span)].count("choose") == 2


async def test_a_refusal_has_a_span_and_is_no_error_of_ours(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]))
    reply = await rig.client.post("/v1/chat/completions", json={"model": "nope"}, headers=SAMPLED)
    assert reply.status_code in (400, 404)
    (span,) = await spans(receiver, 1)
    assert span.name == "chat"  # what a client invents is no name
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span)
    assert told["error.type"] == reply.json()["error"]["code"]
    assert told["modelyard.outcome"] == "rejected"


async def test_the_simple_api_belongs_to_its_callers_trace_too(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]), sample=0.0)
    batch = [{"prompt": "a", "max_length": 1}, {"prompt": "b", "max_length": 1}]
    for path, body in (
        ("/generate", {"prompt": "x", "max_length": 1}),
        ("/generate", {"prompt": "x", "nonsense": 1}),
        ("/batch_generate", batch),
    ):
        await rig.client.post(path, json=body, headers=SAMPLED)
    found = await spans(receiver, 4)
    assert {span.parent_span_id.hex() for span in found} == {CALLER}
    assert len({span.span_id for span in found}) == 4
    assert sorted(span.name for span in found) == ["chat m", "chat m", "chat m", "request"]


async def test_the_cache_is_on_the_span(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    policy = Policy(caching=Caching(mode="all", single_flight=True))
    rig = await traced(start_rig, receiver, model_route([engines[0].url], policy=policy))
    for _ in range(2):
        await rig.client.post("/v1/chat/completions", json=chat("same"))
    miss, hit = await spans(receiver, 2)
    assert ("cache", {"modelyard.result": "miss"}) in events(miss)
    assert ("cache", {"modelyard.result": "hit", "modelyard.age_s": 0}) in events(hit)
    assert [name for name, _ in events(miss)] == [
        "admission", "cache", "choose", "attempt", "first_token", "end",
    ]  # fmt: skip
    assert "attempt" not in [name for name, _ in events(hit)]
    assert attributes(hit)["gen_ai.response.model"] == "weights:3"


async def test_the_share_holds_and_the_record_knows(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    rig = await traced(start_rig, receiver, model_route([engines[0].url]), sample=0.5)
    for _ in range(60):
        await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
    records = await rig.records(60)
    sampled = {record.trace_id for record in records if record.trace_id}
    assert 5 < len(sampled) < 55
    found = await spans(receiver, len(sampled))
    assert {span.trace_id.hex() for span in found} == sampled


async def test_a_collector_that_hangs_costs_requests_nothing(
    start_rig: StartRig, receiver: Receiver, engines: list[Engine]
) -> None:
    receiver.hanging.set()
    rig = await traced(start_rig, receiver, model_route([engines[0].url]))
    first = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
    await eventually(lambda: receiver.posts, bool, 20)  # its thread is held from here on
    replies = await asyncio.gather(
        *(rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1)) for _ in range(50))
    )
    assert {first.status_code, *(reply.status_code for reply in replies)} == {200}
    assert len(receiver.posts) == 1
    assert (await rig.client.get("/health")).status_code == 200


async def test_what_is_lost_is_on_the_metrics(start_rig: StartRig, engines: list[Engine]) -> None:
    away = Collector(url="http://127.0.0.1:9/v1/traces", sample=1.0)
    rig: Rig = await start_rig(model_route([engines[0].url]), collector=away)
    exporter = rig.service._spans
    assert exporter is not None
    exporter._bounds = type(exporter._bounds)(max_tries=1, every_s=0.01)
    await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
    dropped = 'modelyard_gateway_trace_spans_total{outcome="dropped"} 1'

    async def metrics() -> str:
        return (await rig.client.get("/metrics")).text

    await eventually(metrics, lambda text: dropped in text, 20)
    assert 'modelyard_gateway_trace_spans_total{outcome="sent"} 0' in await metrics()


# --- a process of its own ------------------------------------------------------------------------


def start(folder: Path, receiver: Receiver, engine: Engine) -> "subprocess.Popen[bytes]":
    config = {
        "listen": "127.0.0.1:0",
        "state_dir": "state",
        "models": [{"name": "m", "upstreams": [{"url": engine.url}]}],
        "telemetry": {
            "traces": {
                "endpoint": receiver.url, "sample": 1.0, "headers_env": {"x-token": "A_TOKEN"},
            }
        },
    }  # fmt: skip
    (folder / "gateway.yaml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "modelyard.gateway.main", "--home", str(folder / "home"),
             "--config", str(folder / "gateway.yaml")],
            stdout=log, stderr=log, env={**os.environ, "A_TOKEN": "Bearer hunter2"},
        )  # fmt: skip


async def test_a_gateway_of_its_own_sends_spans_until_its_end(
    tmp_path: Path, receiver: Receiver, engines: list[Engine]
) -> None:
    process = start(tmp_path, receiver, engines[0])
    try:
        record = tmp_path / "state" / "run" / "gateway.json"
        await eventually(record.exists, lambda there: there or process.poll() is not None, 30)
        assert process.poll() is None, (tmp_path / "log").read_text()
        async with httpx.AsyncClient(
            base_url=json.loads(record.read_text())["url"], trust_env=False, timeout=30
        ) as client:
            reply = await client.post("/v1/chat/completions", json=chat("x"), headers=SAMPLED)
        assert reply.status_code == 200
        process.terminate()  # at once: the span is sent on the way out
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
    (span,) = receiver.spans
    assert span.parent_span_id.hex() == CALLER
    assert receiver.posts[0][1]["x-token"] == "Bearer hunter2"
    assert receiver.resource()["service.name"] == "modelyard-gateway"
    logged = json.loads((tmp_path / "state" / "gateway" / "requests.jsonl").read_text())
    assert logged["trace_id"] == TRACE
    assert "hunter2" not in (tmp_path / "log").read_text()


def test_off_costs_no_import() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import modelyard.gateway.main, sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "modelyard.gateway.tracing" in loaded
    foreign = {name.partition(".")[0] for name in loaded} & {"opentelemetry", "google", "requests"}
    assert not foreign, sorted(name for name in loaded if name.startswith(tuple(foreign)))
    assert "modelyard.observe.otlp" not in loaded
