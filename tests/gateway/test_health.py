"""Breakers, asides, outliers and probes at work (G7, G8, G9)."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually


def config(urls: list[str], **settings: Any) -> dict[str, Any]:
    model = {"name": "m", "balancing": "round_robin", "retries": {"backoff_base_s": 0.001},
             "breaking": {"failures": 3, "open_s": 0.3}}  # fmt: skip
    return {"models": [model | settings | {"upstreams": [{"url": url} for url in urls]}]}


async def ask(rig: Rig, text: str = "x", **fields: Any) -> httpx.Response:
    return await rig.client.post("/v1/chat/completions", json=chat(text, **fields))


async def states(rig: Rig) -> list[str]:
    return [each["state"] for each in (await rig.admin("/admin/replicas"))["replicas"]]


async def seen(engines: list[Engine]) -> list[int]:
    return [(await engine.state())["seen"] for engine in engines]


async def test_a_failing_replica_is_left_alone_and_comes_back(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    urls = [engine.url for engine in engines]
    rig = await start_alone(config(urls, breaking={"failures": 3, "open_s": 3}))
    await engines[0].fault("status=500")
    codes = [(await ask(rig)).status_code for _ in range(30)]

    assert codes == [200] * 30  # nobody saw it: the other replica answered
    assert (await seen(engines))[0] == 3
    assert await states(rig) == ["open", "closed"]
    assert await rig.metric("modelyard_replica_available") == 1

    async with httpx.AsyncClient(base_url=engines[0].url, trust_env=False) as control:
        await control.delete("/control/faults")
    await eventually(
        lambda: _asked_and_states(rig), lambda found: found == ["closed", "closed"], 10
    )
    before = await seen(engines)
    for _ in range(10):
        await ask(rig)
    after = await seen(engines)
    assert [b - a for a, b in zip(before, after, strict=True)] == [5, 5]


async def _asked_and_states(rig: Rig) -> list[str]:
    await ask(rig)
    return await states(rig)


@pytest.mark.parametrize("fault", ["refuse", "truncate_after=2", "garbage=html", "hang"])
async def test_every_failure_that_is_its_own_opens_the_breaker(
    start_alone: StartRig, engines: list[Engine], fault: str
) -> None:
    settings: dict[str, Any] = {"timeouts": {"first_token_s": 0.1, "total_s": 0.2}}
    settings |= {"retries": {"max_attempts": 1}, "breaking": {"failures": 3, "open_s": 30}}
    rig = await start_alone(config([engines[0].url], **settings))
    await engines[0].fault(fault)
    for _ in range(3):
        assert (await ask(rig)).status_code in (502, 504)
    reply = await ask(rig)
    assert reply.status_code == 503
    assert 25 <= int(reply.headers["retry-after"]) <= 30
    assert (await seen(engines))[0] == 3


async def test_a_stream_that_fails_after_its_head_counts_when_it_ends(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engines[0].url]))
    await engines[0].fault("truncate_after=2")
    for _ in range(3):
        async with rig.client.stream(
            "POST", "/v1/chat/completions", json=chat("x", stream=True)
        ) as reply:
            assert reply.status_code == 200
            assert await states(rig) == ["closed"]
            try:
                async for _part in reply.aiter_bytes():
                    pass
            except httpx.RemoteProtocolError:
                pass
    await eventually(lambda: states(rig), lambda found: found == ["open"])


async def test_refusals_open_and_close_nothing(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G7: a thousand bad requests take no replica out."""
    rig = await start_alone(config([engines[0].url]))
    for _ in range(10):
        assert (await ask(rig, "[[fake: status=422]]")).status_code == 422
    assert await states(rig) == ["closed"]
    await engines[0].fault("status=500", times=3)
    for _ in range(3):
        await ask(rig)
    assert await states(rig) == ["open"]
    await eventually(
        lambda: ask(rig, "[[fake: status=404]]"), lambda reply: reply.status_code == 404
    )
    assert await states(rig) == ["trial"]


async def test_leaving_clients_are_not_held_against_it(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engines[0].url]))

    async def leave() -> None:
        with pytest.raises(httpx.ReadTimeout):
            async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=0.1) as client:
                await client.post("/v1/chat/completions", json=chat("[[fake: hang]]"))

    await asyncio.gather(*(leave() for _ in range(10)))
    await rig.until_at_rest()
    assert await states(rig) == ["closed"]


async def test_a_429_puts_a_replica_aside_for_its_retry_after(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engine.url for engine in engines]))
    await engines[0].fault("status=429 retry_after_s=3600", times=1)
    codes = [(await ask(rig)).status_code for _ in range(12)]
    assert codes == [200] * 12
    assert (await seen(engines))[0] == 1
    assert await states(rig) == ["closed", "closed"]
    first = (await rig.admin("/admin/replicas"))["replicas"][0]
    assert not first["takes"]
    assert 3500 < first["back_in_s"] <= 3600


async def test_an_outlier_is_taken_out_while_others_are_better(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """It answers now and then, so that its failures never stand in a row."""
    breaking = {"failures": 1000, "outlier_ratio": 0.4, "outlier_requests": 10, "open_s": 30}
    rig = await start_alone(config([engine.url for engine in engines], breaking=breaking))
    await engines[0].fault("status=500", match="odd")
    for number in range(40):
        assert (await ask(rig, "odd" if number // 2 % 2 else "even")).status_code == 200
    assert (await states(rig))[0] == "open"


async def test_when_every_replica_is_out_it_is_said_at_once(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G9: 503 with Retry-After, never a hang."""
    breaking = {"failures": 1, "open_s": 20}
    rig = await start_alone(config([engine.url for engine in engines], breaking=breaking))
    for engine in engines:
        await engine.fault("status=500")
    await ask(rig)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reply = await ask(rig)
    assert loop.time() - begun < 1.0
    assert reply.status_code == 503
    assert 1 <= int(reply.headers["retry-after"]) <= 20
    assert reply.json()["error"]["code"] == "no_replica"
    assert "2 of 2 rest after failures" in reply.json()["error"]["message"]
    assert await seen(engines) == [1, 1]


async def test_a_retry_goes_to_a_replica_not_tried_yet_and_attempts_are_bounded(
    start_alone: StartRig, engines: list[Engine], spare_engine: Engine
) -> None:
    """Promise G8."""
    urls = [engine.url for engine in (*engines, spare_engine)]
    rig = await start_alone(config(urls, breaking={"failures": 100}))
    for engine in (*engines, spare_engine):
        await engine.fault("status=500")
    assert (await ask(rig)).status_code == 502
    assert await seen([*engines, spare_engine]) == [1, 1, 1]
    (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert len({attempt.replica for attempt in record.attempts}) == 3


async def test_retries_stay_within_their_budget(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G8: a fifth of the requests of the last 10 s, with a floor."""
    retries = {"budget_floor_per_s": 0.5, "backoff_base_s": 0.001}
    rig = await start_alone(
        config([engine.url for engine in engines], breaking={"failures": 10_000}, retries=retries)
    )
    for engine in engines:
        await engine.fault("status=500")
    for _ in range(100):
        await ask(rig)
    assert 100 + 5 <= sum(await seen(engines)) <= 100 + 20


async def test_a_probe_takes_out_and_brings_back_without_a_request(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    probing = {"path": "/health", "interval_s": 0.05, "timeout_s": 0.5}
    rig = await start_alone(config([engines[0].url], probing=probing,
                                   breaking={"failures": 2, "open_s": 60}))  # fmt: skip
    await engines[0].fault("status=503", path="/health")
    await eventually(lambda: states(rig), lambda found: found == ["open"])
    assert (await ask(rig)).status_code == 503
    async with httpx.AsyncClient(base_url=engines[0].url, trust_env=False) as control:
        await control.delete("/control/faults")
    await eventually(lambda: states(rig), lambda found: found == ["trial"])
    assert (await ask(rig)).status_code == 200
    assert await states(rig) == ["closed"]


async def test_our_own_key_that_an_upstream_refuses_is_not_the_clients_fault(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    model = {"name": "m", "retries": {"max_attempts": 1},
             "upstreams": [{"url": engines[0].url, "api_key_env": "VENDOR"}]}  # fmt: skip
    rig = await start_alone({"models": [model]}, {"VENDOR": "sk-vendor"})
    await engines[0].fault("status=401")
    reply = await ask(rig)
    assert reply.status_code == 502
    assert "sk-vendor" not in reply.text
