"""Requests that wait for a replica: bounded, by priority, gone when their client is (G9)."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually

KEYS = [{"id": name, "secret_env": name.upper(), "priority": name} for name in
        ("high", "normal", "low")]  # fmt: skip
SECRETS = {name.upper(): f"sk-{name}" for name in ("high", "normal", "low")}


def config(url: str, places: int = 1, **queueing: Any) -> dict[str, Any]:
    upstream = {"url": url, "max_concurrency": places}
    queue = {"max_waiting": 10, "deadline_s": 10} | queueing
    return {"models": [{"name": "m", "upstreams": [upstream], "queueing": queue}], "keys": KEYS}


async def _post(rig: Rig, text: str, who: str, **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=20) as client:
        return await client.post("/v1/chat/completions", json=chat(text, **fields),
                                 headers={"authorization": f"Bearer sk-{who}"})  # fmt: skip


def ask(rig: Rig, text: str = "x", who: str = "normal", **fields: Any) -> Any:
    return asyncio.create_task(_post(rig, text, who, **fields))


async def waiting(rig: Rig, count: int) -> None:
    await eventually(lambda: rig.metric("modelyard_requests_waiting"), lambda n: n == count)


async def occupy(rig: Rig, engine: Engine) -> Any:
    """A request that holds the only place until it is cancelled."""
    holder = ask(rig, "[[fake: hang]]")
    await eventually(engine.state, lambda state: state["running"] == 1)
    return holder


async def test_a_request_waits_for_a_place_and_is_served(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url), SECRETS)
    holder = await occupy(rig, engines[0])
    queued = [ask(rig) for _ in range(3)]
    await waiting(rig, 3)
    holder.cancel()

    replies = await asyncio.gather(*queued)
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert (await engines[0].state())["seen"] == 4
    records = await eventually(rig.log, lambda found: len(found) == 4)
    assert all(record.queue_s > 0 for record in records if record.outcome == "completed")
    await waiting(rig, 0)


async def test_the_queue_is_bounded_in_places_and_time(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, max_waiting=1, deadline_s=0.3), SECRETS)
    holder = await occupy(rig, engines[0])
    first = ask(rig)
    await waiting(rig, 1)

    full = await ask(rig)
    late = await first
    assert [full.status_code, late.status_code] == [503, 503]
    assert "1 requests wait for it already" in full.json()["error"]["message"]
    assert "none took it within 0.3 s" in late.json()["error"]["message"]
    assert "retry-after" in full.headers
    assert "retry-after" in late.headers
    holder.cancel()


async def test_the_higher_priority_is_served_first(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url), SECRETS)
    holder = await occupy(rig, engines[0])
    order: list[str] = []

    async def note(who: str) -> None:
        reply = await ask(rig, who, who)
        assert reply.status_code == 200
        order.append(who)

    tasks = []
    for number, who in enumerate(["low", "low", "normal", "high", "normal", "high"], 1):
        tasks.append(asyncio.create_task(note(who)))
        await waiting(rig, number)
    holder.cancel()
    await asyncio.gather(*tasks)
    assert order == ["high", "high", "normal", "normal", "low", "low"]


async def test_a_full_queue_lets_the_lowest_go(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, max_waiting=2), SECRETS)
    holder = await occupy(rig, engines[0])
    low = ask(rig, who="low")
    await waiting(rig, 1)
    normal = ask(rig)
    await waiting(rig, 2)

    high = ask(rig, who="high")
    displaced = await low
    assert displaced.status_code == 503
    assert "higher priority" in displaced.json()["error"]["message"]
    assert (await ask(rig, who="low")).status_code == 503  # nobody is below it
    holder.cancel()
    assert [reply.status_code for reply in await asyncio.gather(normal, high)] == [200, 200]


async def test_low_priority_leaves_places_free(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, places=4, max_waiting=0, reserve=0.5), SECRETS)
    holders = [ask(rig, "[[fake: hang]]", "low") for _ in range(2)]
    await eventually(engines[0].state, lambda state: state["running"] == 2)
    assert (await ask(rig, who="low")).status_code == 503
    assert (await ask(rig, who="normal")).status_code == 200
    for holder in holders:
        holder.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_while_waiting_is_leaving(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    """Promise G1: while queued. It never reaches the replica."""
    rig = await start_alone(config(engines[0].url), SECRETS)
    holder = await occupy(rig, engines[0])
    queued = ask(rig, stream=stream)
    await waiting(rig, 1)
    queued.cancel()
    await waiting(rig, 0)
    (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert (record.outcome, record.status, record.attempts) == ("cancelled", 499, ())
    assert not record.completion_tokens
    holder.cancel()
    await rig.until_at_rest()
    assert (await engines[0].state())["seen"] == 1


async def test_a_breaker_that_closes_wakes_those_who_wait(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    waits = config(engines[0].url)
    waits["models"][0] |= {"breaking": {"failures": 1, "open_s": 0.3},
                           "retries": {"max_attempts": 1}}  # fmt: skip
    rig = await start_alone(waits, SECRETS)
    await engines[0].fault("status=500", times=1)
    assert (await ask(rig)).status_code == 502
    reply = await ask(rig)
    assert reply.status_code == 200
    records = await eventually(rig.log, lambda found: len(found) == 2)
    assert 0.1 < records[-1].queue_s < 3


async def test_a_replica_that_comes_with_new_routes_takes_those_who_wait(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url), SECRETS)
    holder = await occupy(rig, engines[0])
    queued = ask(rig)
    await waiting(rig, 1)

    more = config(engines[0].url)
    more["models"][0]["upstreams"].append({"url": engines[1].url, "max_concurrency": 1})
    rig.file.write_text(json.dumps({"listen": "127.0.0.1:0", "state_dir": "alone"} | more))
    rig.service.reload()
    assert (await queued).status_code == 200
    assert (await engines[1].state())["seen"] == 1
    holder.cancel()
