"""Keys (S8, G19) and limits (G13): who asks, and that what is let in is bounded."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually
from tests.gateway.test_leaving import _leave

ALICE, BOB = "sk-alice-secret", "sk-bob-secret"
ENVIRONMENT = {"ALICE": ALICE, "BOB": BOB}


def config(engine: Engine, *, alice: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "models": [{"name": "m", "upstreams": [{"url": engine.url}]},
                   {"name": "other", "upstreams": [{"url": engine.url}]}],
        "keys": [{"id": "alice", "secret_env": "ALICE", "tenant": "blue", **(alice or {})},
                 {"id": "bob", "secret_env": "BOB", "tenant": "red", "models": ["other"]}],
    } | more  # fmt: skip


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def ask(rig: Rig, secret: str = ALICE, text: str = "x", **fields: Any) -> httpx.Response:
    return await rig.client.post(
        "/v1/chat/completions", json=chat(text, **fields), headers=bearer(secret)
    )


async def test_a_missing_a_wrong_and_a_forbidden_key_reach_no_replica(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0]), ENVIRONMENT)

    without = await rig.client.post("/v1/chat/completions", json=chat("x"))
    wrong = await ask(rig, "sk-wrong")
    forbidden = await ask(rig, BOB)
    unknown = await ask(rig, BOB, model="nowhere")

    assert [r.status_code for r in (without, wrong, forbidden, unknown)] == [401, 401, 403, 404]
    for reply in (without, wrong, forbidden, unknown):
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert "sk-" not in reply.text
    assert "other" in unknown.json()["error"]["message"]
    assert "'m'" not in unknown.json()["error"]["message"]  # what it may not ask is not told
    assert (await engines[0].state())["seen"] == 0
    assert (await ask(rig)).status_code == 200
    records = await eventually(rig.log, lambda found: len(found) == 5)
    assert [(r.key_id, r.tenant, r.outcome) for r in records[2:]] == [
        ("bob", "red", "rejected"), ("bob", "red", "rejected"), ("alice", "blue", "completed"),
    ]  # fmt: skip


async def test_secrets_are_told_nowhere(
    start_alone: StartRig, engines: list[Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """Promise S8: not in the log, the records, the state, explanations, metrics or errors."""
    caplog.set_level(logging.DEBUG)
    vendor = {"url": engines[0].url, "api_key_env": "VENDOR"}
    secret = config(engines[0], alice={"limits": {"requests_per_min": 3}},
                    models=[{"name": "m", "upstreams": [vendor]},
                            {"name": "other", "upstreams": [vendor]}])  # fmt: skip
    rig = await start_alone(secret, ENVIRONMENT | {"VENDOR": "sk-vendor-secret"})
    await engines[0].fault("status=500", times=1)
    replies = [await ask(rig, *asked) for asked in
               [(ALICE,), (ALICE,), (ALICE,), (ALICE,), (BOB,), ("sk-wrong-secret",)]]  # fmt: skip
    assert [r.status_code for r in replies] == [502, 200, 200, 429, 403, 401]
    await eventually(rig.log, lambda found: len(found) == 6)
    told = [caplog.text, (await rig.client.get("/metrics")).text]
    told += [str(await rig.admin(f"/admin/requests/{r.headers['x-request-id']}")) for r in replies]
    told += [
        str(await rig.admin("/admin/limits?key=alice")),
        str(await rig.admin("/admin/replicas")),
    ]
    told += [reply.text + str(reply.headers) for reply in replies]
    token = rig.home.gateway_token
    files = [file for file in rig.home.root.rglob("*") if file.is_file() and file != token]
    assert any(file.name == "requests.jsonl" for file in files)
    told += [file.read_bytes().decode("latin-1") for file in files]
    for text in told:
        assert "-secret" not in text
        assert token.read_text().strip() not in text


async def test_every_route_that_asks_a_model_needs_a_key(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0]), ENVIRONMENT)
    for path, body in [
        ("/v1/completions", {"model": "m", "prompt": "x"}),
        ("/v1/embeddings", {"model": "m", "input": "x"}),
        ("/v1/responses", {"model": "m", "input": "x"}),
        ("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
        ("/generate", {"prompt": "x", "model_name": "m"}),
        ("/batch_generate", [{"prompt": "x", "model_name": "m"}]),
    ]:
        reply = await rig.client.post(path, json=body)
        assert reply.status_code == 401, path
    assert (await rig.client.get("/v1/models")).status_code == 401
    assert (await rig.client.get("/v1/models/m")).status_code == 401
    assert (await rig.client.get("/health")).status_code == 200
    listed = (await rig.client.get("/v1/models", headers=bearer(BOB))).json()
    assert [model["id"] for model in listed["data"]] == ["other"]
    generated = await rig.client.post(
        "/generate", json={"prompt": "x", "model_name": "m"}, headers={"x-api-key": ALICE}
    )
    assert generated.status_code == 200


async def test_requests_per_minute_are_never_exceeded_by_a_burst(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0], alice={"limits": {"requests_per_min": 7}}),
                            ENVIRONMENT)  # fmt: skip

    replies = await asyncio.gather(*(ask(rig) for _ in range(30)))

    codes = [reply.status_code for reply in replies]
    assert codes.count(200) == 7
    assert codes.count(429) == 23
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-modelyard-limit"] == "requests_per_min:key"
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "7 requests per min" in error["message"]
    assert (await engines[0].state())["seen"] == 7
    assert await rig.metric("modelyard_limited_requests_total") == 23
    assert (await ask(rig, BOB, model="other")).status_code == 200


async def test_tokens_are_reserved_before_and_settled_after(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """A request that could break the limit waits for nothing: it is refused before it is sent."""
    rig = await start_alone(config(engines[0], alice={"limits": {"tokens_per_min": 200}}),
                            ENVIRONMENT)  # fmt: skip

    async def used() -> int:
        limits = (await rig.admin("/admin/limits?key=alice"))["limits"]
        return int(limits[0]["used"])

    first = await ask(rig, text="[[fake: tokens=10]]", max_tokens=100)
    assert first.status_code == 200
    usage = first.json()["usage"]
    assert await used() == usage["total_tokens"]  # what was not used was given back

    running = asyncio.create_task(ask(rig, text="[[fake: hang]]", max_tokens=100))
    await eventually(used, lambda tokens: tokens > 100)
    refused = await ask(rig, max_tokens=100)
    assert refused.status_code == 429
    assert refused.headers["x-modelyard-limit"] == "tokens_per_min:key"
    running.cancel()
    too_large = await ask(rig, max_tokens=1000)
    assert too_large.status_code == 429
    assert "retry-after" not in too_large.headers
    assert "alone" in too_large.json()["error"]["message"]


async def test_tokens_admitted_at_once_never_exceed_the_limit(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G13: what each could use is held before it is sent, however many come together."""
    rig = await start_alone(config(engines[0], alice={"limits": {"tokens_per_min": 300}}),
                            ENVIRONMENT)  # fmt: skip
    for _ in range(2):  # the second time, with what the first has left
        replies = await asyncio.gather(*(ask(rig, max_tokens=40) for _ in range(25)))
        refused = [reply for reply in replies if reply.status_code == 429]
        used = (await rig.admin("/admin/limits?key=alice"))["limits"][0]["used"]
        assert used <= 300
        assert len(refused) + sum(reply.status_code == 200 for reply in replies) == 25
        for reply in refused:
            assert reply.headers["x-modelyard-limit"] == "tokens_per_min:key"
            assert 1 <= int(reply.headers["retry-after"]) <= 61
            assert "300 tokens per min" in reply.json()["error"]["message"]
    records = await eventually(rig.log, lambda found: len(found) == 50)
    made = [(r.prompt_tokens or 0) + (r.completion_tokens or 0) for r in records]
    assert 200 < sum(made) <= 300
    assert sum(made) == (await engines[0].state())["prompt_tokens"] + 40 * sum(map(bool, made))


async def test_an_answer_without_a_bound_gets_one_where_tokens_are_limited(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    more = {"models": [{"name": "m", "upstreams": [{"url": engines[0].url}],
                        "max_completion_tokens": 12}, {"name": "other",
                        "upstreams": [{"url": engines[0].url}]}]}  # fmt: skip
    rig = await start_alone(config(engines[0], **more), ENVIRONMENT)
    for fields in ({}, {"max_tokens": 500}, {"max_completion_tokens": 500}):
        reply = await ask(rig, text="[[fake: tokens=40]]", **fields)
        choice = reply.json()["choices"][0]
        assert reply.json()["usage"]["completion_tokens"] == 12
        assert choice["finish_reason"] == "length"


async def test_concurrent_requests_are_bounded_and_released_whatever_the_end(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0], alice={"limits": {"concurrent_requests": 2}}),
                            ENVIRONMENT)  # fmt: skip
    body = chat("[[fake: hang]]", max_tokens=5)
    held = [
        asyncio.create_task(_hold(rig, body)),
        asyncio.create_task(_hold(rig, body | {"stream": True})),
    ]
    await eventually(engines[0].state, lambda state: state["running"] == 2)

    refused = await ask(rig)
    assert refused.status_code == 429
    assert refused.headers["x-modelyard-limit"] == "concurrent_requests:key"
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await rig.until_at_rest()
    await engines[0].fault("status=500", times=2)
    assert (await ask(rig)).status_code == 502
    assert (await ask(rig, text="[[fake: status=400]]")).status_code in (400, 502)
    replies = await asyncio.gather(ask(rig), ask(rig))
    assert [reply.status_code for reply in replies] == [200, 200]


async def _hold(rig: Rig, body: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=30) as client:
        await client.post("/v1/chat/completions", json=body, headers=bearer(ALICE))


async def test_tenant_and_model_share_a_bound_among_keys(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    shared = config(engines[0])
    shared["keys"].append({"id": "carol", "secret_env": "CAROL", "tenant": "blue"})
    shared["tenants"] = [{"name": "blue", "limits": {"requests_per_min": 3}}, {"name": "red"}]
    shared["models"][1]["limits"] = {"requests_per_min": 2}
    rig = await start_alone(shared, ENVIRONMENT | {"CAROL": "sk-carol"})

    codes = [(await ask(rig, secret)).status_code for secret in (ALICE, "sk-carol") * 2]
    assert codes == [200, 200, 200, 429]
    codes = [(await ask(rig, BOB, model="other")).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


async def test_counters_outlive_the_process(start_alone: StartRig, engines: list[Engine]) -> None:
    """Promise G13: the file is what the kernel has at any moment, so a kill loses nothing."""
    limited = config(engines[0], alice={"limits": {"requests_per_min": 3, "tokens_per_day": 100}})
    first = await start_alone(limited, ENVIRONMENT, name="kept")
    assert [(await ask(first, max_tokens=10)).status_code for _ in range(2)] == [200, 200]
    first.stop.set()
    await eventually(lambda: first.service._counters._fd, lambda fd: fd < 0)

    again = await start_alone(limited, ENVIRONMENT, name="kept")

    limits = (await again.admin("/admin/limits?key=alice"))["limits"]
    used = {limit["kind"]: limit["used"] for limit in limits}
    assert used["requests_per_min"] == 2
    assert used["tokens_per_day"] > 20
    assert (await ask(again, max_tokens=10)).status_code == 200
    assert (await ask(again, max_tokens=10)).status_code == 429


async def test_a_budget_of_the_day_is_held(start_alone: StartRig, engines: list[Engine]) -> None:
    rig = await start_alone(config(engines[0], alice={"limits": {"tokens_per_day": 60}}),
                            ENVIRONMENT)  # fmt: skip
    codes = [(await ask(rig, max_tokens=20)).status_code for _ in range(4)]
    assert codes == [200, 200, 429, 429]
    assert int((await ask(rig, max_tokens=20)).headers["retry-after"]) <= 86_400


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_made_for_a_client_that_left_is_settled(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    """Promise G2: counted when streamed, else estimated; flagged either way."""
    rig = await start_alone(config(engines[0], alice={"limits": {"tokens_per_min": 5000}}),
                            ENVIRONMENT)  # fmt: skip
    for _ in range(3):  # how fast it answers
        await ask(rig, text="[[fake: tokens=100]]", max_tokens=100)
    body = chat("[[fake: tokens=2000]]", max_tokens=2000, stream=stream)
    leaving = asyncio.create_task(_hold(rig, body))
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    await eventually(engines[0].state, lambda state: state["generation_tokens"] > 340)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await rig.until_at_rest()

    record = (await eventually(rig.log, lambda found: len(found) == 4))[-1]
    assert (record.outcome, record.status) == ("cancelled", 499)
    assert record.tokens_estimated
    made = (await engines[0].state())["generation_tokens"] - 300
    assert record.completion_tokens is not None
    assert 0.3 * made <= record.completion_tokens <= 3 * made + 20
    assert record.prompt_tokens is not None
    limits = (await rig.admin("/admin/limits?key=alice"))["limits"]
    replies = 3 * 100 + 3 * 5
    assert limits[0]["used"] <= replies + record.prompt_tokens + record.completion_tokens + 20


async def test_a_request_that_was_never_sent_uses_nothing(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    nobody = {"models": [{"name": "m", "upstreams": [{"url": "http://127.0.0.1:9"}],
              "breaking": {"failures": 1, "open_s": 60}},
              {"name": "other", "upstreams": [{"url": engines[0].url}]}]}  # fmt: skip
    rig = await start_alone(
        config(engines[0], alice={"limits": {"requests_per_min": 100}}, **nobody), ENVIRONMENT
    )
    assert (await ask(rig)).status_code == 502  # tried
    assert (await ask(rig)).status_code == 503  # its breaker is open: not sent
    limits = (await rig.admin("/admin/limits?key=alice"))["limits"]
    assert limits[0]["used"] == 1


async def test_leaving_in_the_middle_releases_every_bound(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0], keys=[], models=[
        {"name": "m", "upstreams": [{"url": engines[0].url}],
         "limits": {"concurrent_requests": 1}}]))  # fmt: skip
    for _ in range(3):
        await _leave(rig.url, chat("[[fake: hang]]", stream=True), after_bytes=0,
                     path="/v1/chat/completions")  # fmt: skip
        await rig.until_at_rest()
    assert (await rig.client.post("/v1/chat/completions", json=chat("x"))).status_code == 200
