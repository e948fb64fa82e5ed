"""Copies for a version on trial (D7): they arrive, and no live answer is any worse for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec
import pytest
from tests.gateway.raw_replica import END, FIRST, SSE, Client, always, replica, whole
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route
from tests.gateway.test_following import StubController, _end, _serve, controller

from modelyard.core.home import Home
from modelyard.core.records import RequestRecord
from modelyard.core.routes import (
    Breaking,
    Caching,
    ModelRoute,
    Policy,
    Queueing,
    ReplicaRoute,
    ShadowRoute,
    SlotRoute,
    Timeouts,
)
from modelyard.gateway import shadowing

__all__ = ["controller"]
TRIAL = "sha256:" + "7" * 64
DROPPED = "modelyard_shadow_requests_dropped_total"
IN_FLIGHT = "modelyard_shadow_requests_in_flight"


def shadowed(
    live: Sequence[str], trial: str, *, busy_at: int | None = None, **policy: Any
) -> ModelRoute:
    """A model whose every request is copied to version 4."""
    chosen = Policy(**{"balancing": "round_robin", **policy})
    route = model_route(list(live), policy=chosen)
    green = SlotRoute(
        slot="green",
        model="weights",
        version=4,
        digest=TRIAL,
        weight=0.0,
        operations=("chat", "completions"),
        replicas=(ReplicaRoute(id="t0", url=trial, max_concurrency=busy_at),),
    )
    return msgspec.structs.replace(
        route, slots=(*route.slots, green), shadow=ShadowRoute(slot="green", sample=1.0)
    )


async def ask(rig: Rig, text: str = "hello", **fields: Any) -> httpx.Response:
    reply = await rig.client.post("/v1/chat/completions", json=chat(text, **fields))
    assert reply.headers["x-modelyard-version"] == "weights:3"
    return reply


async def said(rig: Rig, text: str = "hello", **fields: Any) -> str:
    reply = await ask(rig, text, **fields)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


async def copies(rig: Rig, count: int = 1) -> list[RequestRecord]:
    """The copies' records, once there are so many."""

    def found(records: list[RequestRecord]) -> bool:
        return len(_copies(records)) >= count

    return _copies(await eventually(rig._records, found, within_s=20))


def _copies(records: list[RequestRecord]) -> list[RequestRecord]:
    return [record for record in records if record.shadow_of is not None]


async def dropped(rig: Rig, reason: str) -> float:
    text = (await rig.client.get("/metrics")).text
    sample = f'{DROPPED}{{model="m",reason="{reason}"}} '
    return sum(float(line.removeprefix(sample)) for line in text.splitlines() if sample in line)


async def until_no_copy(rig: Rig) -> None:
    await eventually(lambda: rig.metric(IN_FLIGHT), lambda value: value == 0, within_s=20)
    await rig.until_at_rest()


def give_token(home: Home) -> None:
    """What the controller and the admin routes are let in by."""
    home.gateway_token.parent.mkdir(parents=True, exist_ok=True)
    home.gateway_token.write_text("the-token")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_arrives_and_is_compared(
    start_rig: StartRig, engines: list[Engine], stream: bool
) -> None:
    rig = await start_rig(shadowed([engines[0].url], engines[1].url))
    reply = await ask(rig, "compare [[fake: tokens=9]]", stream=stream)
    [copy] = await copies(rig)
    records = await rig.records(2)
    [live] = [record for record in records if record.shadow_of is None]

    assert reply.status_code == 200
    assert copy.shadow_of == live.request_id == reply.headers["x-request-id"]
    assert (copy.outcome, copy.status, copy.stream) == ("completed", 200, stream)
    assert (copy.slot, copy.version, copy.digest, copy.replica) == ("green", 4, TRIAL, "t0")
    assert (live.slot, live.version) == ("blue", 3)
    assert copy.agreement == 1.0
    assert copy.completion_tokens == 9
    assert copy.finish_reason == "stop"
    assert (copy.tenant, copy.key_id, copy.limits) == (None, None, ())
    assert live.agreement is None
    assert (await engines[1].state())["completed"] == 1
    await until_no_copy(rig)
    assert await rig.metric("modelyard_requests_total") == 1
    assert await rig.metric("modelyard_shadow_requests_total") == 1
    assert await rig.metric("modelyard_upstream_attempts_total") == 1
    assert await rig.metric("modelyard_shadow_agreement_count") == 1


async def test_what_differs_is_measured(start_rig: StartRig) -> None:
    other = b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n'
    async with (
        replica(always(SSE + b"\r\n" + FIRST + FIRST + END)) as live,
        replica(always(SSE + b"\r\n" + FIRST + other + other + other + END)) as trial,
    ):
        rig = await start_rig(shadowed([live], trial))
        reply = await ask(rig, stream=True)
        [copy] = await copies(rig)

    assert '"a"' in reply.text
    assert '"b"' not in reply.text
    assert copy.agreement == 0.25


async def test_explain_tells_what_became_of_the_copy(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(shadowed([engines[0].url], engines[1].url))
    give_token(rig.home)
    reply = await ask(rig)
    [copy] = await copies(rig)

    told = await rig.admin(f"/admin/requests/{reply.headers['x-request-id']}")
    [decision] = [each for each in told["decisions"] if each["decided"] == "shadow"]
    assert decision == {
        "decided": "shadow",
        "copy": copy.request_id,
        "version": 4,
        "outcome": "completed",
        "agreement": 1.0,
    }


TROUBLES = {
    "hang": ("failed", "upstream_timeout"),
    "refuse": ("failed", "upstream_cut"),
    "status=500": ("failed", "upstream_error"),
    "status=400": ("rejected", "upstream_400"),
    "stall_after=2": ("failed", "upstream_timeout"),
    "truncate_after=2": ("failed", "upstream_cut"),
    "garbage=html": ("failed", "upstream_error"),
    "garbage=chunk": ("failed", "upstream_error"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_trouble_of_the_trial_reaches_a_client(
    start_rig: StartRig, engines: list[Engine], trouble: str, stream: bool
) -> None:
    live, trial = engines
    await trial.fault(trouble)
    impatient = Timeouts(first_token_s=0.5, gap_s=0.5, total_s=3.0)
    rig = await start_rig(shadowed([live.url], trial.url, timeouts=impatient))
    replies = [await ask(rig, "x [[fake: tokens=5]]", stream=stream) for _ in range(3)]
    made = await copies(rig, 3)

    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert all("error" not in reply.text for reply in replies)
    if stream:
        assert all(reply.text.endswith("data: [DONE]\n\n") for reply in replies)
    outcome, code = TROUBLES[trouble]
    assert {(copy.outcome, copy.error_code) for copy in made} == {(outcome, code)}
    assert all(copy.agreement is None for copy in made)
    assert all(len(copy.attempts) == 1 for copy in made)
    live_records = [record for record in await rig.records(6) if record.shadow_of is None]
    assert {record.outcome for record in live_records} == {"completed"}
    await until_no_copy(rig)


async def test_a_hanging_copy_delays_nothing(start_rig: StartRig, engines: list[Engine]) -> None:
    """The copies of all requests hang for as long as the test takes; each live answer is there."""
    live, trial = engines
    await trial.fault("hang")
    rig = await start_rig(shadowed([live.url], trial.url))
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(said(rig, f"{n}") for n in range(10)))
    await eventually(trial.state, lambda state: state["running"] == 10, within_s=20)

    assert len(answers) == 10
    assert await rig.metric(IN_FLIGHT) == 10
    assert await rig.metric("modelyard_requests_in_flight") == 0


async def test_a_trial_that_is_down_rests_and_counts_as_failing(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    breaking = Breaking(failures=2, open_s=60)
    rig = await start_rig(shadowed([engines[0].url], "http://127.0.0.1:9", breaking=breaking))
    for number in range(4):
        await said(rig)
        await copies(rig, number + 1)
    made = await copies(rig, 4)

    codes = [copy.error_code for copy in made]
    assert codes == ["upstream_unreachable", "upstream_unreachable", "no_replica", "no_replica"]
    assert {copy.outcome for copy in made} == {"failed"}
    assert {copy.digest for copy in made} == {TRIAL}


async def test_turns_of_live_replicas_are_not_taken(
    start_rig: StartRig, engines: list[Engine], spare_engine: Engine
) -> None:
    rig = await start_rig(shadowed([engine.url for engine in engines], spare_engine.url))
    for number in range(10):
        await said(rig)
        await copies(rig, number + 1)

    seen = [(await engine.state())["completed"] for engine in engines]
    assert seen == [5, 5]


# --- dropped first -------------------------------------------------------------------------------


async def test_a_busy_trial_gets_no_more(start_rig: StartRig, engines: list[Engine]) -> None:
    live, trial = engines
    await trial.fault("hang")
    rig = await start_rig(shadowed([live.url], trial.url, busy_at=1))
    for _ in range(4):
        await said(rig)

    await eventually(lambda: dropped(rig, "busy"), lambda count: count == 3)
    assert (await trial.state())["running"] == 1


async def test_a_trial_that_says_itself_that_it_is_busy_is_left_alone(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    live, trial = engines
    await trial.fault("status=429 retry_after_s=60")
    rig = await start_rig(shadowed([live.url], trial.url))
    for _ in range(3):
        await said(rig)

    await eventually(lambda: dropped(rig, "busy"), lambda count: count == 3)
    assert _copies(await rig.records(3)) == []  # it is no evidence of anything


async def test_there_are_so_many_copies_at_most(
    start_rig: StartRig, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "MAX_COPIES", 2)
    live, trial = engines
    await trial.fault("hang")
    rig = await start_rig(shadowed([live.url], trial.url))
    for _ in range(5):
        await said(rig)

    assert await dropped(rig, "too_many") == 3
    assert await rig.metric(IN_FLIGHT) == 2


async def test_copies_hold_so_much_memory_at_most(
    start_rig: StartRig, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowing, "MAX_HELD_BYTES", 10_000)
    live, trial = engines
    await trial.fault("hang")
    rig = await start_rig(shadowed([live.url], trial.url))
    for _ in range(3):
        await said(rig, "x" * 4000)

    assert await dropped(rig, "too_many") == 1
    assert await rig.metric(IN_FLIGHT) == 2


async def test_no_copy_is_made_while_live_requests_wait(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    live, trial = engines
    route = shadowed([live.url], trial.url, queueing=Queueing(max_waiting=5, deadline_s=30))
    blue = route.slots[0]
    narrow = msgspec.structs.replace(blue.replicas[0], max_concurrency=1)
    blue = msgspec.structs.replace(blue, replicas=(narrow,))
    rig = await start_rig(msgspec.structs.replace(route, slots=(blue, route.slots[1])))

    first = asyncio.create_task(said(rig, "first [[fake: tokens=3 first_token_s=60]]"))
    await eventually(live.state, lambda state: state["running"] == 1)
    await eventually(trial.state, lambda state: state["running"] == 1)
    others = [asyncio.create_task(said(rig, f"{n}")) for n in range(2)]
    await eventually(lambda: rig.metric("modelyard_requests_waiting"), lambda n: n == 2)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await asyncio.gather(*others)
    made = await copies(rig, 2)

    # The first one's client left; of the others, one was sent while the other waited behind it.
    assert [copy.outcome for copy in made] == ["cancelled", "completed"]
    assert await dropped(rig, "live_queues") == 1


async def test_what_the_trial_can_not_do_is_not_asked(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    route = shadowed([engines[0].url], engines[1].url)
    green = msgspec.structs.replace(route.slots[1], operations=("embeddings",))
    rig = await start_rig(msgspec.structs.replace(route, slots=(route.slots[0], green)))
    await said(rig)

    assert await dropped(rig, "unsupported") == 1
    assert (await engines[1].state())["seen"] == 0


async def test_a_huge_answer_is_no_evidence(start_rig: StartRig, engines: list[Engine]) -> None:
    huge = b'{"choices":[{"message":{"content":"' + b"x" * (9 * 1024 * 1024) + b'"}}]}'
    async with replica(always(whole(huge))) as trial:
        rig = await start_rig(
            shadowed([engines[0].url], trial, breaking=Breaking(failures=1, open_s=60))
        )
        await said(rig)
        await eventually(lambda: dropped(rig, "too_large"), lambda count: count == 1, 20)
        await said(rig)
        await eventually(lambda: dropped(rig, "too_large"), lambda count: count == 2, 20)

    assert _copies(await rig.records(2)) == []


# --- cache ---------------------------------------------------------------------------------------


async def test_an_answer_from_the_cache_is_not_asked_for_again(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    caching = Caching(mode="deterministic", single_flight=True)
    rig = await start_rig(shadowed([engines[0].url], engines[1].url, caching=caching))
    together = await asyncio.gather(*(said(rig, temperature=0) for _ in range(5)))
    again = await said(rig, temperature=0)
    [copy] = await copies(rig)
    await until_no_copy(rig)

    assert {*together, again} == {again}
    assert copy.cache == "off"
    assert copy.agreement == 1.0
    assert len(_copies(await rig.records(7))) == 1
    assert (await engines[1].state())["seen"] == 1


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_ends_with_its_client(
    start_rig: StartRig, engines: list[Engine], stream: bool
) -> None:
    rig = await start_rig(shadowed([engines[0].url], engines[1].url))
    asking = asyncio.create_task(ask(rig, "[[fake: tokens=100000]]", stream=stream))
    for engine in engines:
        await eventually(engine.state, lambda state: state["running"] == 1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    [copy] = await copies(rig)
    for engine in engines:
        await engine.until_idle()

    assert (copy.outcome, copy.status) == ("cancelled", 499)
    await until_no_copy(rig)


async def test_a_faster_copy_of_a_client_that_leaves_is_no_evidence_either(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    live, trial = engines
    await live.fault("hang")
    rig = await start_rig(shadowed([live.url], trial.url))
    asking = asyncio.create_task(ask(rig))
    await eventually(trial.state, lambda state: state["completed"] == 1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    [copy] = await copies(rig)

    assert copy.outcome == "cancelled"
    await until_no_copy(rig)


async def test_a_copy_outlives_a_live_request_that_fails(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    live, trial = engines
    await live.fault("status=500")
    rig = await start_rig(shadowed([live.url], trial.url))
    assert (await ask(rig)).status_code == 502
    [copy] = await copies(rig)

    assert copy.outcome == "completed"
    assert copy.agreement is None


async def test_a_drain_waits_for_no_copy(start_rig: StartRig, engines: list[Engine]) -> None:
    trial, goes_on = engines[1], asyncio.Event()
    await trial.fault("hang")

    async def when_told(client: Client) -> None:
        await client.request()
        await goes_on.wait()
        await client.say(whole(b'{"choices":[{"message":{"content":"late"}}]}'))

    async with replica(when_told) as live:
        rig = await start_rig(shadowed([live], trial.url), drain_s=600.0)
        asking = asyncio.create_task(said(rig))
        await eventually(trial.state, lambda state: state["running"] == 1)
        rig.stop.set()
        await trial.until_idle()  # while the live request is under way
        assert not asking.done()
        goes_on.set()
        assert await asking == "late"

    made = await eventually(rig._records, lambda records: len(_copies(records)) == 1, 20)
    assert [copy.outcome for copy in _copies(made)] == ["cancelled"]


@pytest.fixture
async def publisher(controller: StubController) -> AsyncIterator[StubController]:
    """A controller that says what a test wants it to."""
    serving = await _serve(controller)
    yield controller
    await _end(*serving)


async def test_copies_end_when_the_routes_want_none_any_more(
    start_rig: StartRig, publisher: StubController, engines: list[Engine]
) -> None:
    """A candidate that is taken back has not to wait for them."""
    live, trial = engines
    await trial.fault("hang")
    route = shadowed([live.url], trial.url)
    publisher.publish(2, route)
    rig = await start_rig(controller=publisher.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 2)
    await said(rig)
    await eventually(trial.state, lambda state: state["running"] == 1)

    publisher.publish(3, msgspec.structs.replace(route, shadow=None))

    await trial.until_idle()
    await until_no_copy(rig)
    await said(rig)
    assert (await trial.state())["seen"] == 1


async def test_the_smoke_tests_of_a_trial_are_not_copied(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(shadowed([engines[0].url], engines[1].url))
    give_token(rig.home)
    headers = {"authorization": "Bearer the-token", "x-modelyard-slot": "green"}
    reply = await rig.client.post("/v1/chat/completions", json=chat("x"), headers=headers)

    assert reply.headers["x-modelyard-version"] == "weights:4"
    assert (await engines[1].state())["seen"] == 1
    assert reply.headers["x-modelyard-digest"] == TRIAL
    assert await rig.metric("modelyard_shadow_requests_total") == 0
