"""The `openai` package when something fails: its exceptions, its retries, and its leaving."""

import asyncio
import contextlib
import gc
import time
from typing import Any

import openai
import pytest
from tests.gateway.openai_clients import alone, alone_before, awaiting, blocking
from tests.gateway.raw_replica import SSE, always, replica
from tests.gateway.rig import Engine, Rig, StartRig, eventually

from modelyard.engines.fake_server.answers import check_answer

KEYS: Any = {"keys": [{"id": "alice", "secret_env": "ALICE"},
                      {"id": "bob", "secret_env": "BOB", "models": []},
                      {"id": "once", "secret_env": "ONCE", "limits": {"requests_per_min": 1}},
                      {"id": "narrow", "secret_env": "NARROW",
                       "limits": {"concurrent_requests": 1}}]}  # fmt: skip
SECRETS = {name: f"sk-{name.lower()}" for name in ("ALICE", "BOB", "ONCE", "NARROW")}


def asked(text: str, **fields: Any) -> Any:
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | fields


LONG = asked("[[fake: tokens=100000]]", max_tokens=100000)


@pytest.fixture
async def gateway(start_alone: StartRig, engines: list[Engine]) -> Rig:
    """A gateway in front of one engine, that asks it once."""
    started: Rig = await start_alone(alone_before(engines[:1]))
    return started


@pytest.fixture
async def guarded(start_alone: StartRig, engines: list[Engine]) -> Rig:
    """The same, with keys."""
    started: Rig = await start_alone(alone_before(engines[:1]) | KEYS, SECRETS)
    return started


# --- exceptions ----------------------------------------------------------------------------------

REFUSALS = [
    (asked("x", messages=[]), openai.BadRequestError, "invalid_request", "messages", "is missing"),
    (asked("x", max_tokens="many"), openai.BadRequestError, "invalid_request", None, "max_tokens"),
    (asked("x", model="gone"), openai.NotFoundError, "not_found", "model", "models: m"),
    (asked("x" * 9000), openai.APIStatusError, "payload_too_large", None, "8000 bytes"),
    (asked("[[fake: status=400]]"), openai.BadRequestError, "invalid_request", None, "400"),
    (asked("[[fake: status=422]]"), openai.UnprocessableEntityError, "invalid_request", None, ""),
    (asked("[[fake: status=500]]"), openai.InternalServerError, "upstream_error", None, "500"),
    (asked("[[fake: refuse]]"), openai.InternalServerError, "upstream_cut", None, "closed"),
    (asked("[[fake: hang]]"), openai.InternalServerError, "upstream_timeout", None, "total_s"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "kind", "code", "param", "said"),
    REFUSALS,
    ids=[f"{row[2]} {row[4]}" for row in REFUSALS],
)
async def test_an_error_is_the_exception_that_it_means(
    start_alone: StartRig, engines: list[Engine], body: Any, kind: type[openai.APIStatusError],
    code: str, param: str | None, said: str, stream: bool,
) -> None:  # fmt: skip
    timeouts = {"first_token_s": 0.5, "total_s": 0.5} if code == "upstream_timeout" else {}
    rig: Rig = await start_alone(alone_before(engines[:1], max_body_bytes=8000, timeouts=timeouts))
    async with awaiting(rig) as client:
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(**body, stream=stream)

    error = raised.value
    assert (error.code, error.param) == (code, param)
    assert said in error.message
    assert isinstance(error.type, str)
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.request_id is not None
    assert error.request_id.startswith("req-")
    await rig.until_at_rest()


async def test_keys_that_are_wrong_forbidden_and_used_up(
    guarded: Rig, engines: list[Engine]
) -> None:
    async def failure(secret: str) -> openai.APIStatusError:
        async with awaiting(guarded, api_key=secret) as client:
            with pytest.raises(openai.APIStatusError) as raised:
                await client.chat.completions.create(**asked("x"))
        assert "sk-" not in raised.value.message
        return raised.value

    unknown, forbidden = await failure("sk-nobody"), await failure("sk-bob")
    async with awaiting(guarded, api_key="sk-once") as client:
        await client.chat.completions.create(**asked("x"))
    used_up = await failure("sk-once")

    assert isinstance(unknown, openai.AuthenticationError)
    assert (unknown.code, unknown.type) == ("invalid_api_key", "authentication_error")
    assert isinstance(forbidden, openai.PermissionDeniedError)
    assert (forbidden.code, forbidden.type, forbidden.param) == (
        "forbidden", "permission_error", "model")  # fmt: skip
    assert isinstance(used_up, openai.RateLimitError)
    assert (used_up.code, used_up.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert "key 'once' may use 1 requests per min" in used_up.message
    assert used_up.response.headers["x-modelyard-limit"] == "requests_per_min:key"
    assert 1 <= int(used_up.response.headers["retry-after"]) <= 61
    assert (await engines[0].state())["seen"] == 1


async def test_what_is_not_there_and_not_done_is_said(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_alone(alone_before(engines[:1], operations=["chat"]))
    async with awaiting(rig) as client:
        with pytest.raises(openai.NotFoundError, match=r"known paths: .*/v1/chat/completions"):
            await client.images.generate(model="m", prompt="a yard")
        with pytest.raises(openai.InternalServerError, match="it does: chat") as not_done:
            await client.embeddings.create(model="m", input="x")
    assert (not_done.value.status_code, not_done.value.code) == (501, "unsupported")
    assert (await engines[0].state())["seen"] == 0


@pytest.mark.parametrize("fault", ["truncate_after=5", "stall_after=5"])
async def test_a_stream_that_is_cut_raises_in_mid_stream(
    start_alone: StartRig, engines: list[Engine], fault: str
) -> None:
    """Promise G4: what came is given, then the exception; never an end that looks whole."""
    rig: Rig = await start_alone(alone_before(engines, timeouts={"gap_s": 0.5}))
    body = asked(f"cut [[fake: tokens=20 {fault}]]")
    code = "upstream_cut" if "truncate" in fault else "upstream_timeout"

    def ask() -> tuple[str, openai.APIError]:
        text = ""
        with blocking(rig) as client, pytest.raises(openai.APIError) as raised:
            for chunk in client.chat.completions.create(**body, stream=True):
                text += chunk.choices[0].delta.content or ""
        return text, raised.value

    text, error = await asyncio.to_thread(ask)
    awaited = ""
    async with awaiting(rig) as client:
        with pytest.raises(openai.APIError) as raised:
            async for chunk in await client.chat.completions.create(**body, stream=True):
                awaited += chunk.choices[0].delta.content or ""

    assert text.rstrip() == awaited.rstrip()
    check = check_answer(text.rstrip(), prompt=body["messages"][0]["content"])
    assert (check.tokens, check.complete) == (5, False)
    assert not check.errors
    for each in (error, raised.value):
        assert not isinstance(each, openai.APIStatusError | openai.APIConnectionError)
        assert (each.code, each.type) == (code, "upstream_error")
    records = await eventually(rig.log, lambda found: len(found) == 2)
    assert {record.outcome for record in records} == {"failed"}
    assert [len(record.attempts) for record in records] == [1, 1]


async def test_a_cut_stream_of_the_responses_api_raises_too(start_alone: StartRig) -> None:
    begun = b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n'
    async with replica(always(SSE + b"\r\n" + begun)) as url:
        rig: Rig = await start_alone(alone(url))
        async with awaiting(rig) as client:
            stream = await client.responses.create(model="m", input="x", stream=True)
            first = await anext(stream)
            with pytest.raises(openai.APIError, match="end mark") as raised:
                await anext(stream)
    assert first.type == "response.created"
    assert raised.value.code == "upstream_cut"


# --- its own retries -----------------------------------------------------------------------------


async def test_a_busy_replica_is_asked_again_when_it_said(
    gateway: Rig, engines: list[Engine]
) -> None:
    """503 with Retry-After: the client's own pause would be half a second at most."""
    await engines[0].fault("status=429 retry_after_s=2", times=1)
    begun = time.monotonic()
    async with awaiting(gateway, max_retries=1) as client:
        raw = await client.chat.completions.with_raw_response.create(**asked("x", max_tokens=3))

    assert raw.retries_taken == 1
    assert time.monotonic() - begun >= 1.9
    assert check_answer(raw.parse().choices[0].message.content or "").tokens == 3
    records = await eventually(gateway.log, lambda found: len(found) == 2)
    assert [(r.outcome, r.status) for r in records] == [("failed", 503), ("completed", 200)]


async def test_a_failing_replica_is_asked_again(gateway: Rig, engines: list[Engine]) -> None:
    await engines[0].fault("status=500", times=2)

    def ask() -> Any:
        with blocking(gateway, max_retries=2) as client:
            return client.chat.completions.with_raw_response.create(**asked("x"))

    raw = await asyncio.to_thread(ask)

    assert raw.retries_taken == 2
    assert raw.headers["x-modelyard-attempts"] == "1"
    assert (await engines[0].state())["seen"] == 3


async def test_a_limit_that_was_reached_is_waited_for(guarded: Rig) -> None:
    async with awaiting(guarded, api_key="sk-narrow", max_retries=1) as client:
        holding = await client.chat.completions.create(**LONG, stream=True)
        begun = time.monotonic()
        asking = asyncio.create_task(client.chat.completions.with_raw_response.create(**asked("x")))
        await eventually(
            lambda: guarded.metric("modelyard_limited_requests_total"), lambda value: value == 1
        )
        await holding.close()
        raw = await asking

    assert raw.retries_taken == 1
    assert time.monotonic() - begun >= 0.9
    assert raw.parse().choices[0].finish_reason == "stop"


async def test_a_request_that_fits_no_limit_is_not_repeated(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_alone(alone_before(engines[:1], limits={"tokens_per_min": 50}))
    async with awaiting(rig, max_retries=2) as client:
        with pytest.raises(openai.RateLimitError, match="this request alone needs") as refused:
            await client.chat.completions.create(**asked("x", max_tokens=100))

    assert await rig.metric("modelyard_limited_requests_total") == 1
    assert "retry-after" not in refused.value.response.headers
    assert refused.value.response.headers["x-modelyard-limit"] == "tokens_per_min:model"


# --- its leaving (promises G1, G2, G3) -----------------------------------------------------------


async def _cancelled(rig: Rig, engine: Engine, count: int = 1) -> None:
    """The engine has stopped, the gateway knows why, and nothing is left in flight."""
    async with asyncio.timeout(5):
        state = await engine.until_idle()
    assert state["cancelled"] == state["seen"] == count
    records = await eventually(rig.log, lambda found: len(found) == count)
    for record in records:
        assert (record.outcome, record.status) == ("cancelled", 499)
        assert record.tokens_estimated
    await rig.until_at_rest()


@pytest.mark.parametrize("stream", [False, True])
async def test_its_timeout_cancels_the_generation(
    gateway: Rig, engines: list[Engine], stream: bool
) -> None:
    body = asked("[[fake: hang]]")

    def ask() -> None:
        with blocking(gateway) as client:
            client.chat.completions.create(**body, stream=stream, timeout=1.0)

    with pytest.raises(openai.APITimeoutError):
        await asyncio.to_thread(ask)
    async with awaiting(gateway, timeout=1.0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(**body, stream=stream)
    await _cancelled(gateway, engines[0], 2)


async def test_a_stream_that_is_closed_early_cancels_the_generation(
    gateway: Rig, engines: list[Engine]
) -> None:
    def ask() -> str:
        with blocking(gateway) as client:
            with client.chat.completions.create(**LONG, stream=True) as within:
                first = next(iter(within))
            closed = client.chat.completions.create(**LONG, stream=True)
            next(closed)
            closed.close()
            with client.chat.completions.stream(**LONG) as helper:
                next(iter(helper))
            return first.object

    assert await asyncio.to_thread(ask) == "chat.completion.chunk"
    async with awaiting(gateway) as client:
        stream = await client.chat.completions.create(**LONG, stream=True)
        async for _chunk in stream:
            break
        await stream.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for _chunk in await client.chat.completions.create(**LONG, stream=True):
                    pass
    await _cancelled(gateway, engines[0], 5)


async def test_a_stream_that_nobody_holds_any_more_cancels_the_generation(
    gateway: Rig, engines: list[Engine]
) -> None:
    def ask(client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(**LONG, stream=True)
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        del stream, chunk
        gc.collect()

    with blocking(gateway) as client:
        await asyncio.to_thread(ask, client)
        await _cancelled(gateway, engines[0])  # while the client itself lives on
        again = await asyncio.to_thread(client.models.list)
    assert [model.id for model in again.data] == ["m"]


async def test_a_cancelled_task_cancels_the_generation(gateway: Rig, engines: list[Engine]) -> None:
    async with awaiting(gateway) as client:
        asking = asyncio.create_task(client.chat.completions.create(**LONG))
        await eventually(engines[0].state, lambda state: state["running"] == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await _cancelled(gateway, engines[0])
