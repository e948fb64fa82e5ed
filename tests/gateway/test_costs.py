"""What requests cost (O6), and limits of money (G13): held before, settled after, kept."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually
from tests.gateway.test_keys_and_limits import ALICE, BOB, ENVIRONMENT, bearer

from modelyard.core.records import RequestRecord

OWN = {"replica_hour": 3600.0}
"""One a second."""
TABLE = {"input_per_million": 1_000_000.0, "output_per_million": 2_000_000.0}
"""One for a token that is read, two for one that is made."""


def config(*models: dict[str, Any], limits: dict[str, float] | None = None) -> dict[str, Any]:
    keys = [{"id": "alice", "secret_env": "ALICE", "tenant": "blue", "limits": limits or {}},
            {"id": "bob", "secret_env": "BOB", "tenant": "red"}]  # fmt: skip
    return {"models": list(models), "keys": keys}


def model(engine: Engine, name: str = "m", **more: Any) -> dict[str, Any]:
    return {"name": name, "upstreams": [{"url": engine.url}]} | more


async def ask(
    rig: Rig, text: str = "x", secret: str = ALICE, *, tokens: int = 5, **fields: Any
) -> httpx.Response:
    body = chat(text, max_tokens=tokens, **fields)
    return await rig.client.post("/v1/chat/completions", json=body, headers=bearer(secret))


async def logged(rig: Rig, count: int) -> list[RequestRecord]:
    return await eventually(rig.log, lambda found: len(found) >= count)  # type: ignore[no-any-return]


async def used(rig: Rig, kind: str = "cost_per_day") -> float:
    limits = (await rig.admin("/admin/limits?key=alice"))["limits"]
    return float(next(limit["used"] for limit in limits if limit["kind"] == kind))


# --- what a request costs ------------------------------------------------------------------------


async def test_tokens_of_a_remote_are_paid_for_by_its_table(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(model(engines[0], price=TABLE)), ENVIRONMENT)
    reply = await ask(rig, "four", tokens=7)
    await ask(rig, "four", tokens=7, stream=True)
    told = reply.json()["usage"]
    for record in await logged(rig, 2):
        assert record.cost == told["prompt_tokens"] + 2 * 7


async def test_time_of_an_own_replica_is_shared_and_adds_up(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(model(engines[0], price=OWN)), ENVIRONMENT)
    clock = asyncio.get_running_loop().time
    begun = clock()
    await asyncio.gather(*(ask(rig, tokens=20 + 7 * number) for number in range(8)))
    busy_s = clock() - begun
    records = await logged(rig, 8)

    assert all(record.outcome == "completed" for record in records)
    for record in records:
        assert record.replica_s is not None
        assert record.cost == pytest.approx(record.replica_s)
        assert record.replica_s < record.e2e_s
    total = sum(record.cost or 0 for record in records)
    # They were together there for as long as the longest was, whatever each of them waited.
    assert 0.9 * max(record.e2e_s for record in records) - 0.1 <= total <= busy_s


async def test_without_a_price_a_cost_is_unknown_and_never_nothing(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    caching = {"mode": "all"}
    rig = await start_alone(
        config(
            model(engines[0], "m", price=TABLE, caching=caching),
            model(engines[0], "unknown", caching=caching),
            model(engines[0], "free", price={}),
        ),
        ENVIRONMENT,
    )
    for name in ("m", "m", "unknown", "unknown", "free"):
        assert (await ask(rig, "same", model=name)).status_code == 200
    records = await logged(rig, 5)
    assert [(r.cache, r.cost is None) for r in records[2:4]] == [("miss", True), ("hit", True)]
    assert records[0].cost
    assert (records[1].cache, records[1].cost) == ("hit", 0.0)
    assert records[4].cost == 0.0  # said to be free


async def test_one_that_shares_an_answer_pays_nothing_for_it(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    caching = {"mode": "all", "single_flight": True}
    rig = await start_alone(config(model(engines[0], price=OWN, caching=caching)), ENVIRONMENT)
    first = asyncio.create_task(ask(rig, "[[fake: first_token_s=0.3]]", tokens=20))
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    await asyncio.gather(first, *(ask(rig, "[[fake: first_token_s=0.3]]", tokens=20)
                                  for _ in range(3)))  # fmt: skip
    records = await logged(rig, 4)
    paid = [record for record in records if record.cost]
    assert sorted(record.cache for record in records) == ["joined", "joined", "joined", "miss"]
    assert [record.cache for record in paid] == ["miss"]
    assert paid[0].cost == pytest.approx(paid[0].replica_s)


async def test_every_attempt_is_paid_for_at_its_own_price(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    dear, cheap = {"replica_hour": 3600.0 * 100}, {"replica_hour": 3600.0}
    both = {
        "name": "m",
        "upstreams": [
            {"url": engines[0].url, "price": dear},
            {"url": engines[1].url, "price": cheap},
        ],
        "balancing": "round_robin",
    }
    rig = await start_alone(config(both), ENVIRONMENT)
    await engines[0].fault("truncate_after=8")
    for _ in range(2):
        assert (await ask(rig, tokens=10)).status_code == 200
    records = await logged(rig, 2)
    (once,) = (record for record in records if len(record.attempts) == 1)
    (twice,) = (record for record in records if len(record.attempts) == 2)
    assert once.cost == pytest.approx(once.replica_s)
    failed_s, answered_s = (attempt.duration_s for attempt in twice.attempts)
    assert twice.cost == pytest.approx(100 * failed_s + answered_s, rel=0.1)


async def test_one_that_leaves_or_fails_pays_for_the_time_it_had(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(
        config(model(engines[0], price=OWN, retries={"max_attempts": 1})), ENVIRONMENT
    )
    leaving = asyncio.create_task(ask(rig, "[[fake: hang]]"))
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    await asyncio.sleep(0.1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await rig.until_at_rest()
    assert (await ask(rig, "[[fake: tokens=80 truncate_after=30]]", tokens=80)).status_code == 502
    assert (await rig.client.post("/v1/chat/completions", json=chat("x"))).status_code == 401
    left, failed, refused = await logged(rig, 3)
    assert (left.outcome, failed.outcome, refused.outcome) == ("cancelled", "failed", "rejected")
    for record in (left, failed):
        assert record.cost is not None
        assert 0.08 < record.cost == pytest.approx(record.replica_s)
    assert refused.cost is None


# --- limits of money -----------------------------------------------------------------------------


async def test_a_budget_of_money_stops_a_key_and_no_other(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    asked = config(model(engines[0], price=TABLE), limits={"cost_per_day": 40})
    rig = await start_alone(asked, ENVIRONMENT)
    replies = [await ask(rig) for _ in range(5)]

    paid = [reply for reply in replies if reply.status_code == 200]
    assert len(paid) >= 1
    spent = sum(r.json()["usage"]["prompt_tokens"] + 2 * 5 for r in paid)
    assert spent <= 40
    assert await used(rig) == spent
    refused = replies[-1]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["x-modelyard-limit"] == "cost_per_day:key"
    told = refused.json()["error"]
    assert told["code"] == "rate_limit_exceeded"
    assert f"may spend 40 per day; {spent} are used" in told["message"]
    assert (await ask(rig, secret=BOB)).status_code == 200
    assert (await engines[0].state())["seen"] == len(paid) + 1


async def test_requests_at_once_never_spend_more_than_the_limit(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    asked = config(model(engines[0], price=TABLE), limits={"cost_per_month": 100})
    rig = await start_alone(asked, ENVIRONMENT)
    replies = await asyncio.gather(*(ask(rig) for _ in range(40)))
    codes = [reply.status_code for reply in replies]
    assert set(codes) == {200, 429}
    assert await used(rig, "cost_per_month") <= 100


async def test_what_an_own_replica_will_take_is_learnt_and_settled(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """At first a token is reckoned at 50 ms, and one that is asked for alone must fit."""
    asked = config(model(engines[0], price=OWN), limits={"cost_per_day": 3.0})
    rig = await start_alone(asked, ENVIRONMENT)
    assert (await ask(rig, tokens=200)).status_code == 429  # 10 s
    alone = (await ask(rig, tokens=200)).json()["error"]["message"]
    assert "this request alone needs" in alone
    for _ in range(30):
        assert (await ask(rig, secret=BOB, tokens=20)).status_code == 200
    assert (await ask(rig, tokens=50)).status_code == 200
    (record,) = [r for r in await logged(rig, 33) if r.key_id == "alice" and r.cost]
    assert await used(rig) == pytest.approx(record.cost, abs=1e-8)


async def test_what_was_spent_outlives_the_gateway(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    asked = config(model(engines[0], price=TABLE), limits={"cost_per_day": 26})
    first = await start_alone(asked, ENVIRONMENT, name="kept")
    assert (await ask(first)).status_code == 200
    spent = await used(first)
    first.stop.set()
    await eventually(lambda: first.service._counters._fd, lambda fd: fd < 0)

    again = await start_alone(asked, ENVIRONMENT, name="kept")

    assert await used(again) == spent
    assert (await ask(again)).status_code == 429


async def test_under_a_limit_of_money_a_model_without_a_price_is_refused(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    priced = model(engines[0], "m", price=TABLE, fallbacks=["unknown"],
                   retries={"max_attempts": 1})  # fmt: skip
    asked = config(priced, model(engines[1], "unknown"), limits={"cost_per_day": 1000})
    rig = await start_alone(asked, ENVIRONMENT)
    refused = await ask(rig, model="unknown")
    assert refused.status_code == 403
    assert "'unknown' has no price" in refused.json()["error"]["message"]
    assert (await ask(rig, secret=BOB, model="unknown")).status_code == 200
    # Nor is it fallen back on by those who may not ask it.
    await engines[0].fault("status=500")
    assert (await ask(rig)).status_code == 502
    assert (await ask(rig, secret=BOB)).status_code == 200


async def test_a_new_price_is_for_new_requests(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(model(engines[0], price=OWN)), ENVIRONMENT)
    old = asyncio.create_task(ask(rig, "[[fake: first_token_s=1]]", tokens=1))
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    text = rig.file.read_text()
    assert "3600.0" in text
    rig.file.write_text(text.replace("3600.0", "360000.0"))

    def price() -> float:
        (route,) = rig.service._routes.models
        found = route.slots[0].price
        assert found is not None
        return found.replica_hour

    await eventually(price, lambda found: found == 360000.0, within_s=15)
    assert (await old).status_code == 200
    assert (await ask(rig, tokens=5)).status_code == 200
    first, second = await logged(rig, 2)
    assert first.cost == pytest.approx(first.replica_s)
    assert second.cost == pytest.approx(100 * (second.replica_s or 0))
