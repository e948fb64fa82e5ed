"""The routing policies on real engines (G11), and why a request went where it did (G25)."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually


def config(urls: list[str], balancing: str, **settings: Any) -> dict[str, Any]:
    upstreams = [{"url": url} for url in urls]
    model = {"name": "m", "balancing": balancing, "upstreams": upstreams}
    return {"models": [model | settings]}


async def ask(rig: Rig, text: str = "x", headers: Any = None, **fields: Any) -> httpx.Response:
    return await rig.client.post(
        "/v1/chat/completions", json=chat(text, **fields), headers=headers or {}
    )


async def seen(engines: list[Engine]) -> list[int]:
    return [(await engine.state())["seen"] for engine in engines]


@pytest.mark.parametrize("balancing", ["least_in_flight", "power_of_two"])
async def test_a_busy_replica_gets_less(
    start_alone: StartRig, engines: list[Engine], balancing: str
) -> None:
    rig = await start_alone(config([engine.url for engine in engines], balancing))
    held = [asyncio.create_task(ask(rig, "[[fake: hang]]")) for _ in range(4)]
    await eventually(lambda: seen(engines), lambda counts: sum(counts) == 4)
    assert await seen(engines) == [2, 2]
    for task in held:
        task.cancel()


@pytest.mark.parametrize("balancing", ["least_in_flight", "power_of_two"])
async def test_a_burst_is_spread_as_it_comes(
    start_alone: StartRig, engines: list[Engine], balancing: str
) -> None:
    """Promise G11: what was sent counts at once, not when somebody next asks the replicas."""
    rig = await start_alone(config([engine.url for engine in engines], balancing))
    held = [asyncio.create_task(ask(rig, "[[fake: hang]]")) for _ in range(40)]
    await eventually(lambda: seen(engines), lambda counts: sum(counts) == 40)
    assert await seen(engines) == [20, 20]
    for task in held:
        task.cancel()


async def test_a_session_stays_with_its_replica(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engine.url for engine in engines], "session"))
    for number in range(8):
        before = await seen(engines)
        for _ in range(4):
            await ask(rig, headers={"x-session-id": f"s{number}"})
        after = await seen(engines)
        assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 4]
    assert min(await seen(engines)) > 0


@pytest.mark.parametrize("by", ["user", "key"])
async def test_what_a_session_is_can_be_chosen(
    start_alone: StartRig, engines: list[Engine], by: str
) -> None:
    keys = [{"id": f"k{n}", "secret_env": f"K{n}"} for n in range(8)]
    secrets = {f"K{n}": f"sk-{n}" for n in range(8)}
    urls = [engine.url for engine in engines]
    rig = await start_alone(config(urls, "session", sticky_by=by) | {"keys": keys}, secrets)
    for number in range(8):
        who = {"authorization": f"Bearer sk-{number if by == 'key' else 0}"}
        before = await seen(engines)
        for _ in range(3):
            await ask(rig, headers=who, user=f"u{number}")
        after = await seen(engines)
        assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 3]
    assert min(await seen(engines)) > 0


async def test_a_prompts_beginning_finds_the_replica_that_has_it(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engine.url for engine in engines], "prefix_affinity"))
    for start in "abcdef":
        before = await seen(engines)
        for end in range(4):
            await ask(rig, start * 4000 + str(end))
        after = await seen(engines)
        assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 4]
    assert min(await seen(engines)) > 0  # cold ones are spread by chance


async def test_a_beginning_is_remembered_however_long_its_request_runs(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G12: from the moment it is sent, through its end; nothing in it ages."""
    rig = await start_alone(config([engine.url for engine in engines], "prefix_affinity"))
    text = "long" * 1000
    held = asyncio.create_task(ask(rig, text + "[[fake: hang]]"))
    await eventually(lambda: seen(engines), lambda counts: sum(counts) == 1)
    place = (await seen(engines)).index(1)
    for number in range(3):
        await ask(rig, f"{text}{number}")
    held.cancel()
    await asyncio.wait({held})
    await rig.until_at_rest()
    for number in range(3, 6):
        await ask(rig, f"{text}{number}")
    assert (await seen(engines))[place] == 7


async def test_affinity_is_for_one_tenants_prompts_alone(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G11: whom a beginning belongs to can't be told from where a request goes."""
    keys = [{"id": f"k{n}", "secret_env": f"K{n}", "tenant": f"t{n}"} for n in range(16)]
    secrets = {f"K{n}": f"sk-{n}" for n in range(16)}
    urls = [engine.url for engine in engines]
    rig = await start_alone(config(urls, "prefix_affinity") | {"keys": keys}, secrets)
    for number in range(16):
        who = {"authorization": f"Bearer sk-{number}"}
        before = await seen(engines)
        for _ in range(2):
            await ask(rig, "shared" * 800, headers=who)
        after = await seen(engines)
        assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 2]
    assert min(await seen(engines)) > 0  # each tenant's first one went where chance sent it


async def test_affinity_yields_to_load(start_alone: StartRig, engines: list[Engine]) -> None:
    rig = await start_alone(config([engine.url for engine in engines], "prefix_affinity"))
    text = "a" * 4000
    held = [asyncio.create_task(ask(rig, f"{text}{n}[[fake: hang]]")) for n in range(12)]
    await eventually(lambda: seen(engines), lambda counts: sum(counts) == 12)
    assert min(await seen(engines)) >= 3
    for task in held:
        task.cancel()


async def test_weights_are_shares(start_alone: StartRig, engines: list[Engine]) -> None:
    weighted = config([engine.url for engine in engines], "round_robin")
    weighted["models"][0]["upstreams"][0]["weight"] = 3
    rig = await start_alone(weighted)
    for _ in range(40):
        await ask(rig)
    assert await seen(engines) == [30, 10]


async def test_the_upstreams_own_model_name_and_key_are_sent(
    start_alone: StartRig, engines: list[Engine], spare_engine: Engine
) -> None:
    upstream = {"url": spare_engine.url, "model": "theirs", "api_key_env": "VENDOR"}
    rig = await start_alone(
        {"models": [{"name": "m", "upstreams": [upstream]}]}, {"VENDOR": "sk-v"}
    )
    reply = await ask(rig)
    assert reply.json()["model"] == "theirs"
    assert reply.headers["x-modelyard-model"] == "m"


async def test_any_recent_request_can_be_explained(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G25: why this replica, what the cache said, which limits, each attempt's outcome."""
    explained = config([engine.url for engine in engines], "round_robin",
                       caching={"mode": "deterministic"}, limits={"requests_per_min": 50},
                       retries={"backoff_base_s": 0.001})  # fmt: skip
    rig = await start_alone(explained)
    await engines[1].fault("status=500", times=1)
    await engines[0].fault("status=500", times=1)
    await ask(rig)
    reply = await ask(rig, temperature=0)

    told = await rig.admin(f"/admin/requests/{reply.headers['x-request-id']}")

    record = told["record"]
    assert record["cache"] == "miss"
    assert record["limits"] == ["requests_per_min:model"]
    outcomes = [attempt["outcome"] for attempt in record["attempts"]]
    assert outcomes[-1] == "completed"
    decided = [decision["decided"] for decision in told["decisions"]]
    assert decided[0] == "reserved"
    chosen = next(each for each in told["decisions"] if each["decided"] == "choose")
    assert chosen["reason"] == "round_robin"
    assert {each["replica"] for each in chosen["candidates"]} == {
        f"m/{engine.url.removeprefix('http://')}" for engine in engines
    }
    hit = await ask(rig, temperature=0)
    told = await rig.admin(f"/admin/requests/{hit.headers['x-request-id']}")
    assert told["record"]["cache"] == "hit"


async def test_the_admin_routes_are_for_the_holder_of_the_token(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config([engines[0].url], "round_robin"))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}):
        for path in ("/admin/replicas", "/admin/requests/x", "/admin/", "/admin/nothing"):
            assert (await rig.client.get(path, headers=headers)).status_code == 401
    token = rig.home.gateway_token.read_text().strip()
    good = {"authorization": f"Bearer {token}"}
    assert (await rig.client.get("/admin/requests/none", headers=good)).status_code == 404
    assert (await rig.client.post("/admin/replicas", headers=good)).status_code == 400
    assert rig.home.gateway_token.stat().st_mode & 0o777 == 0o600
