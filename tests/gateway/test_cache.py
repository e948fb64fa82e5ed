"""The exact cache and single flight (G15 to G18): the same answer, never somebody else's."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import msgspec
import pytest
from tests.gateway.raw_replica import END, FIRST, SSE, Client, always, replica, whole
from tests.gateway.rig import DIGEST, Engine, Rig, StartRig, chat, eventually, model_route

from modelyard.core.routes import Caching, Policy, RouteSnapshot

GREEDY = {"mode": "deterministic"}
SHARED = {"mode": "deterministic", "single_flight": True}
KEYS = [{"id": "a", "secret_env": "A", "tenant": "blue"},
        {"id": "b", "secret_env": "B", "tenant": "red"}]  # fmt: skip


def config(url: str, caching: dict[str, Any] = GREEDY, **more: Any) -> dict[str, Any]:
    return {"models": [{"name": "m", "upstreams": [{"url": url}], "caching": caching,
                        "retries": {"max_attempts": 1}}], **more}  # fmt: skip


async def ask(rig: Rig, text: str = "x", headers: Any = None, **fields: Any) -> httpx.Response:
    fields = {"temperature": 0} | fields
    return await rig.client.post(
        "/v1/chat/completions", json=chat(text, **fields), headers=headers or {}
    )


async def until_cut(rig: Rig, body: dict[str, Any]) -> tuple[int, str]:
    """Status, and what came of an answer before its connection was closed."""
    text = ""
    async with rig.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        with contextlib.suppress(httpx.RemoteProtocolError):
            async for part in reply.aiter_text():
                text += part
    return reply.status_code, text


def result(reply: httpx.Response) -> str:
    return reply.headers["x-modelyard-cache"]


def text_of(reply: httpx.Response) -> str:
    """The answer's text, streamed or not."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return str(reply.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_a_hit_is_the_same_answer_and_says_so_with_its_age(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url))
    first = await ask(rig, "[[fake: tokens=5]]", max_tokens=3)
    again = await ask(rig, "[[fake: tokens=5]]", max_tokens=3)

    assert (result(first), result(again)) == ("miss", "hit")
    assert again.content == first.content
    assert again.json()["choices"][0]["finish_reason"] == "length"
    assert again.headers["age"] == "0"
    assert "age" not in first.headers
    assert again.headers["x-modelyard-attempts"] == "0"
    assert (await engines[0].state())["seen"] == 1
    assert await rig.metric("modelyard_tokens_total") == first.json()["usage"]["total_tokens"]


@pytest.mark.parametrize("first_streams", [False, True])
@pytest.mark.parametrize("then_streams", [False, True])
@pytest.mark.parametrize("usage", [False, True])
async def test_a_hit_honours_stream_and_its_options(
    start_alone: StartRig, engines: list[Engine], first_streams: bool, then_streams: bool,
    usage: bool,
) -> None:  # fmt: skip
    rig = await start_alone(config(engines[0].url))
    options = {"stream_options": {"include_usage": True}} if usage and then_streams else {}
    first = await ask(rig, stream=first_streams)
    again = await ask(rig, stream=then_streams, **options)

    assert (result(first), result(again)) == ("miss", "hit")
    assert text_of(again) == text_of(first)
    assert (await engines[0].state())["seen"] == 1
    if then_streams:
        assert again.text.endswith("data: [DONE]\n\n")
        assert ('"usage"' in again.text) is usage
        assert '"finish_reason":"stop"' in again.text
    else:
        assert again.json()["usage"]["completion_tokens"] == 16
    if first_streams:
        assert '"usage"' not in first.text  # asked for by the gateway alone


async def test_what_can_change_the_answer_misses(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url))
    variations: list[dict[str, Any]] = [
        {}, {"max_tokens": 5}, {"seed": 1}, {"stop": ["t5"]}, {"n": 2}, {"top_p": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"logprobs": True},
    ]  # fmt: skip
    for fields in variations:
        assert result(await ask(rig, **fields)) == "miss", fields
    for fields in variations:
        assert result(await ask(rig, **fields)) == "hit", fields
    for neutral in ({"user": "u1"}, {"metadata": {"a": "b"}}, {"stream": True}):
        assert result(await ask(rig, **neutral)) == "hit", neutral


async def test_only_what_is_deterministic_or_opted_in_is_kept(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url))
    for fields, expected in [
        ({"temperature": 1}, "bypass"), ({"temperature": None}, "bypass"),
        ({"seed": 5, "temperature": None}, "miss"), ({"some_new_field": 1}, "bypass"),
    ]:  # fmt: skip
        assert result(await ask(rig, **fields)) == expected, fields
    allow = {"x-modelyard-cache": "allow"}
    assert result(await ask(rig, "y", headers=allow, temperature=1)) == "miss"
    assert result(await ask(rig, "y", headers=allow, temperature=1)) == "hit"


@pytest.mark.parametrize(("said", "results"), [
    ("no-store", ["bypass", "bypass", "miss"]), ("no-cache", ["miss", "miss", "hit"]),
    ("max-age=0, No-Store", ["bypass", "bypass", "miss"]),
])  # fmt: skip
async def test_cache_control_is_honoured(
    start_alone: StartRig, engines: list[Engine], said: str, results: list[str]
) -> None:
    rig = await start_alone(config(engines[0].url))
    told = {"cache-control": said}
    got = [result(await ask(rig, headers=told)), result(await ask(rig, headers=told)),
           result(await ask(rig))]  # fmt: skip
    assert got == results


async def test_tenants_never_see_each_others_answers(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, SHARED, keys=KEYS), {"A": "sk-a", "B": "sk-b"})
    mine, yours = {"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}
    assert [result(await ask(rig, headers=who)) for who in (mine, yours, mine, yours)] == [
        "miss", "miss", "hit", "hit",
    ]  # fmt: skip
    both = await asyncio.gather(*(ask(rig, "at once", headers=who) for who in (mine, yours)))
    assert [result(reply) for reply in both] == ["miss", "miss"]


async def test_a_new_version_is_never_answered_by_the_old_ones_answers(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    """Promise G18: the digest is in the key, so a switch and a rollback need no invalidation."""
    policy = Policy(caching=Caching(mode="deterministic"))
    old = model_route([engines[0].url], policy=policy)
    rig = await start_rig(old)
    assert result(await ask(rig)) == "miss"
    slot = msgspec.structs.replace(old.slots[0], digest=DIGEST.replace("5", "6"), version=4)
    new = msgspec.structs.replace(old, slots=(slot,))
    table = rig.service._routes
    table.apply(RouteSnapshot(epoch="test", version=2, published_at=0, models=(new,)))
    reply = await ask(rig)
    assert (result(reply), reply.headers["x-modelyard-version"]) == ("miss", "weights:4")
    table.apply(RouteSnapshot(epoch="test", version=3, published_at=0, models=(old,)))
    reply = await ask(rig)
    assert (result(reply), reply.headers["x-modelyard-version"]) == ("hit", "weights:3")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["status=500", "status=400", "truncate_after=3", "garbage=html"])
async def test_errors_and_cut_answers_are_not_kept(
    start_alone: StartRig, engines: list[Engine], fault: str, stream: bool
) -> None:
    rig = await start_alone(config(engines[0].url))
    await engines[0].fault(fault, times=1)
    status, text = await until_cut(rig, chat("x", temperature=0, stream=stream))
    good = await ask(rig, stream=stream)
    assert status >= 400 or '"error"' in text
    assert result(good) == "miss"
    assert good.status_code == 200
    assert result(await ask(rig, stream=stream)) == "hit"


async def test_an_answer_grows_old(start_alone: StartRig, engines: list[Engine]) -> None:
    rig = await start_alone(config(engines[0].url, GREEDY | {"ttl_s": 0.05}))
    await ask(rig)
    await eventually(lambda: ask(rig), lambda reply: result(reply) == "miss")
    assert (await engines[0].state())["seen"] == 2


async def test_the_cache_is_bounded_and_the_least_used_make_room(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, cache={"max_bytes": 4000}))
    for number in range(10):
        await ask(rig, f"question {number}")
        assert await rig.metric("modelyard_cache_bytes") <= 4000
    assert result(await ask(rig, "question 9")) == "hit"
    assert result(await ask(rig, "question 0")) == "miss"


@pytest.mark.parametrize("stream", [False, True])
async def test_too_large_an_answer_is_given_and_not_kept(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    rig = await start_alone(config(engines[0].url, SHARED, cache={"max_entry_bytes": 2000}))
    for _ in range(2):
        reply = await ask(rig, "[[fake: tokens=300]]", max_tokens=300, stream=stream)
        assert result(reply) == "miss"
        assert text_of(reply).count(":") == 300


# --- single flight -------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [[False] * 6, [True] * 6, [True, False] * 3, [False, True] * 3])
async def test_equal_requests_at_once_are_one_at_the_replica(
    start_alone: StartRig, engines: list[Engine], streams: list[bool]
) -> None:
    rig = await start_alone(config(engines[0].url, SHARED))
    replies = await asyncio.gather(
        *(ask(rig, "[[fake: tokens=30]]", max_tokens=30, stream=stream) for stream in streams)
    )
    assert sorted(result(reply) for reply in replies) == ["joined"] * 5 + ["miss"]
    assert len({text_of(reply) for reply in replies}) == 1
    assert text_of(replies[0]).endswith("!30")
    for reply, stream in zip(replies, streams, strict=True):
        if stream:
            assert reply.text.endswith("data: [DONE]\n\n")
            assert '"usage"' not in reply.text
    assert (await engines[0].state())["seen"] == 1
    records = await eventually(rig.log, lambda found: len(found) == 6)
    assert {record.outcome for record in records} == {"completed"}
    assert sum(len(record.attempts) for record in records) == 1
    assert await rig.metric("modelyard_tokens_total") == 30 + records[0].prompt_tokens


async def _held(rig: Rig, stream: bool, text: str) -> "asyncio.Task[httpx.Response]":
    async def hold() -> httpx.Response:
        async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=20) as client:
            fields = {"temperature": 0, "max_tokens": 400, "stream": stream}
            return await client.post("/v1/chat/completions", json=chat(text, **fields))

    return asyncio.create_task(hold())


@pytest.mark.parametrize("stream", [False, True])
async def test_the_leaders_leaving_loses_nobody(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    """Promise G17: a follower takes over, and what is made for it is made once."""
    rig = await start_alone(config(engines[0].url, SHARED))
    text = "[[fake: tokens=120]]"
    leader = await _held(rig, stream, text)
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    follower = await _held(rig, stream, text)
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda n: n == 2)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda n: n == 1)

    reply = await follower
    assert text_of(reply).endswith("!120")
    assert (await engines[0].state())["seen"] == 1
    records = {r.outcome: r for r in await eventually(rig.log, lambda found: len(found) == 2)}
    assert records["completed"].attempts
    assert records["completed"].completion_tokens == 120
    assert not records["cancelled"].attempts
    assert not records["cancelled"].completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_when_all_leave_the_replica_stops(
    start_alone: StartRig, engines: list[Engine], stream: bool
) -> None:
    rig = await start_alone(config(engines[0].url, SHARED))
    held = [await _held(rig, stream, "[[fake: hang]]") for _ in range(3)]
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda n: n == 3)
    assert (await engines[0].state())["running"] == 1
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)

    async with asyncio.timeout(1.0):
        await engines[0].until_idle()
    await rig.until_at_rest()
    assert (await engines[0].state())["cancelled"] == 1


async def test_an_error_is_nobody_elses_answer(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G17: those who joined ask for themselves."""
    rig = await start_alone(config(engines[0].url, SHARED))
    await engines[0].fault("status=500 first_token_s=0.2", times=1)
    replies = await asyncio.gather(*(ask(rig) for _ in range(4)))
    codes = sorted(reply.status_code for reply in replies)
    assert codes[-1] in (200, 502)
    assert codes.count(200) >= 3


async def test_a_stream_that_was_cut_for_one_is_cut_for_all_that_had_begun(
    start_alone: StartRig,
) -> None:
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def speak(client: Client) -> None:
        await client.request()
        await client.say(SSE + b"transfer-encoding: chunked\r\n\r\n")
        await client.say(b"%x\r\n%b\r\n" % (len(FIRST), FIRST))
        started.set()
        await go_on.wait()

    async with replica(speak) as url:
        rig = await start_alone(config(url, SHARED))
        body = chat("x", temperature=0, stream=True)
        both = [asyncio.create_task(until_cut(rig, body)) for _ in range(2)]
        await started.wait()
        await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda n: n == 2)
        go_on.set()
        replies = await asyncio.gather(*both)
    for _, text in replies:
        assert '"error"' in text
        assert "[DONE]" not in text
    outcomes = await eventually(rig.log, lambda found: len(found) == 2)
    assert [record.outcome for record in outcomes] == ["failed", "failed"]


async def test_a_slow_follower_of_a_large_answer_holds_no_memory_up(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """An answer over the bound is read from the replica at the pace of the slowest client."""
    rig = await start_alone(config(engines[0].url, SHARED, cache={"max_entry_bytes": 20_000}))
    text, fields = "[[fake: tokens=4000]]", {"temperature": 0, "max_tokens": 4000, "stream": True}
    host, port = rig.url.removeprefix("http://").split(":")
    payload = json.dumps(chat(text, **fields)).encode()
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
                 % len(payload) + payload)  # fmt: skip
    await eventually(engines[0].state, lambda state: state["generation_tokens"] > 5)
    read = 0
    while chunk := await reader.read(4096):
        read += len(chunk)
        if chunk.endswith(b"0\r\n\r\n"):
            break
    assert read > 400_000
    writer.close()
    assert await rig.metric("modelyard_cache_bytes") == 0


async def test_what_is_hashed_is_what_is_asked(start_alone: StartRig) -> None:
    """A name that stands twice is read in one way by the gateway and maybe in another by an
    engine: the engine is sent what the key was made of."""
    bodies: list[bytes] = []

    async def speak(client: Client) -> None:
        bodies.append(await client.request())
        await client.say(whole(b'{"choices":[{"message":{"content":"a"}}]}'))

    async with replica(speak) as url:
        rig = await start_alone(config(url))
        body = b'{"model":"m","temperature":0,"messages":[1],"messages":[{"role":"user"}]}'
        await rig.client.post("/v1/chat/completions", content=body)
    (sent,) = bodies
    assert sent.count(b'"messages"') == 1
    assert b"user" in sent


async def test_a_streamed_answer_is_put_together_for_the_cache(start_alone: StartRig) -> None:
    async with replica(always(SSE + b"\r\n" + FIRST + END)) as url:
        rig = await start_alone(config(url))
        first = await ask(rig, stream=True)
        again = await ask(rig)
    assert result(first) == "miss"
    assert result(again) == "hit"
    assert again.json()["choices"][0]["message"]["content"] == "a"
    assert again.json()["choices"][0]["finish_reason"] == "stop"
