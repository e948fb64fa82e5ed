"""Replicas that break HTTP, the API or their own streams: nobody hangs, nothing is invented."""

import asyncio
import json

import httpx
import pytest
from tests.gateway.raw_replica import END, FIRST, OK, SSE, Client, always, replica, whole
from tests.gateway.rig import Rig, StartRig, chat, model_route

from modelyard.core.routes import Policy, Retries, RouteSnapshot, Timeouts
from modelyard.wire.openai import read_answer

ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":%b}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
ONE_S = Policy(balancing="round_robin", timeouts=Timeouts(first_token_s=1, gap_s=1, total_s=3))


async def ask(rig: Rig, **fields: object) -> httpx.Response:
    return await rig.client.post("/v1/chat/completions", json=chat("x", **fields))


async def test_a_connection_that_was_paused_carries_the_next_answer(start_rig: StartRig) -> None:
    """The client's buffer may fill up with the very last bytes of a replica's answer."""
    connections = 0

    async def speak(client: Client) -> None:
        nonlocal connections
        connections += 1
        while True:
            await client.request()
            big = FIRST.replace(b'"a"', b'"' + b"a" * 8_000_000 + b'"') + END
            await client.say(SSE + b"content-length: %d\r\n\r\n" % (len(FIRST + big)) + FIRST, big)

    async with replica(speak) as url:
        rig = await start_rig(model_route([url], policy=ONE_S))
        for _ in range(3):
            reply = await ask(rig, stream=True)
            assert reply.text.endswith("data: [DONE]\n\n")
    assert connections == 1


@pytest.mark.parametrize(
    "usage",
    [b'{"prompt_tokens":-5,"completion_tokens":1}', b'{"completion_tokens":1%b}' % (b"0" * 40)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_impossible_token_counts_are_not_believed(
    start_rig: StartRig, usage: bytes, stream: bool
) -> None:
    """They once cost the record, the answer, and with it the following of the controller."""
    event = b'data: {"choices":[],"usage":%b}\n\n' % usage
    answer = SSE + b"\r\n" + FIRST + event + END if stream else whole(ANSWER % usage)
    async with replica(always(answer)) as url:
        rig = await start_rig(model_route([url]))

        reply = await ask(rig, stream=stream)

    assert reply.status_code == 200
    (record,) = await rig.records(1)
    assert record.outcome == "completed"
    assert (record.prompt_tokens is None) is not stream
    assert record.tokens_estimated is stream


@pytest.mark.parametrize(
    "end",
    [
        b"data:[DONE]\n\n",
        b": bye\ndata: [DONE]\n\n",
        b"data: [DONE]\r\n\r\n",
        b"data: [DONE]\n",
        b"data: [DONE]",
        b"event: end\ndata: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("asks_usage", [False, True])
async def test_an_end_mark_is_known_however_it_is_written(
    start_rig: StartRig, end: bytes, asks_usage: bool
) -> None:
    async with replica(always(SSE + b"\r\n: ping\n\n" + FIRST + end)) as url:
        rig = await start_rig(model_route([url]))

        reply = await ask(rig, stream=True, stream_options={"include_usage": asks_usage})

    assert reply.content == b": ping\n\n" + FIRST + end
    (record,) = await rig.records(1)
    assert record.outcome == "completed"


@pytest.mark.parametrize("cut_at", [5, 40, len(FIRST) + 3, len(FIRST) + len(USAGE) + 2])
async def test_usage_is_taken_out_wherever_the_stream_is_cut_into_chunks(
    start_rig: StartRig, cut_at: int
) -> None:
    """Promise G10. Usage beside content is the engine's own, and stays."""
    beside = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":3}}\n\n'
    stream = FIRST + USAGE + beside + END

    async def speak(client: Client) -> None:
        await client.request()
        await client.say(SSE + b"\r\n" + stream[:cut_at], stream[cut_at:])

    async with replica(speak) as url:
        rig = await start_rig(model_route([url]))
        reply = await ask(rig, stream=True)

    assert reply.content == FIRST + beside + END


async def test_a_stream_cut_within_an_event_ends_with_a_whole_one(start_rig: StartRig) -> None:
    """Promise G4: the error is an event of its own, not the end of half of another."""
    async with replica(always(SSE + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % 999 + FIRST
                              + b'data: {"choices":[{"del')) as url:  # fmt: skip
        rig = await start_rig(model_route([url]))
        received = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with rig.client.stream(
                "POST", "/v1/chat/completions",
                json=chat("x", stream=True, stream_options={"include_usage": True}),
            ) as reply:  # fmt: skip
                async for part in reply.aiter_raw():
                    received += part

    first, error, nothing = received.split(b"\n\n")
    assert first + b"\n\n" == FIRST
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
    assert nothing == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        OK + b"content-le",
        OK + b"content-length: 100\r\n\r\n{}",
        OK + b"transfer-encoding: Chunked\r\n\r\n3\r\n{}",
        whole(b'{"error":{"message":"out of memory"}}'),
        whole(b"", status=b"204 No Content"),
        whole(b"", status=b"304 Not Modified"),
        whole(b"", b"location: /", status=b"302 Found"),
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        OK + b"a: " + b"b" * 300_000 + b"\r\n\r\n",
        b"\x00\x01\x02",
        SSE + b'\r\ndata: {"error":{"message":"out of memory"}}\n\n',
        SSE + b"\r\n: ping\n\n",
        SSE + b"\r\ndata: [DONE]\n\n",
    ],
)
async def test_what_is_no_answer_fails_over(start_rig: StartRig, answer: bytes) -> None:
    """Promise G5: until the first event every failure is another replica's chance."""
    good = SSE + b"\r\n" + FIRST + END
    async with replica(always(answer)) as bad_url, replica(always(good)) as url:
        rig = await start_rig(model_route([url, bad_url], policy=ONE_S))

        replies = [await ask(rig, stream=True) for _ in range(2)]

    assert [reply.content for reply in replies] == [FIRST + END] * 2
    assert sorted(reply.headers["x-modelyard-attempts"] for reply in replies) == ["1", "2"]
    await rig.until_at_rest()


async def test_interim_answers_extra_bytes_and_two_in_one_read(start_rig: StartRig) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    good = whole(ANSWER % b"null")
    async with replica(always(interim + good + whole(b'{"choices":"mixed"}'))) as url:
        rig = await start_rig(model_route([url]))

        replies = [await ask(rig) for _ in range(3)]

    assert {reply.text for reply in replies} == {(ANSWER % b"null").decode()}


async def test_an_answer_before_its_request_was_sent_spoils_no_other(start_rig: StartRig) -> None:
    """The rest of the refused request must not be read as the beginning of the next one."""

    async def speak(client: Client) -> None:
        await client.reader.readuntil(b"\r\n\r\n")
        await client.say(whole(b'{"error":{"message":"too long"}}', status=b"400 Bad Request"))
        await client.request()
        await client.say(whole(ANSWER % b"null"))

    async with replica(speak) as url:
        rig = await start_rig(model_route([url], policy=ONE_S))
        body = chat("x" * (7 << 20))
        refused = await rig.client.post("/v1/chat/completions", json=body)
        connection_kept = bool(rig.service._routes.replicas[0].pool._idle)

    assert refused.status_code == 400
    assert not connection_kept


async def test_a_retry_after_without_measure_is_told_within_measure(start_rig: StartRig) -> None:
    busy = whole(b"{}", b"retry-after: " + b"9" * 400, status=b"429 Too Many Requests")
    async with replica(always(busy)) as url:
        rig = await start_rig(model_route([url]))

        reply = await ask(rig)

    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "86400"


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
        b'{"choices":[{"message":{"content":5}}]}',
        b'{"choices":[{"message":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/batch_generate"])
async def test_an_answer_without_text_is_said_and_recorded_so(
    start_rig: StartRig, body: bytes, path: str
) -> None:
    """The record says what the client was told; one bad answer spoils no batch."""
    assert read_answer(b'{"choices":[]}') is not None
    one = {"prompt": "x"}
    async with replica(always(whole(body))) as url:
        rig = await start_rig(model_route([url]))

        reply = await rig.client.post(path, json=[one, one] if path == "/batch_generate" else one)

    answers = reply.json()
    first = answers[0] if isinstance(answers, list) else answers
    assert first["error"]["type"] == "upstream_error"
    assert reply.status_code == (200 if path == "/batch_generate" else 502)
    records = await rig.records(1)
    assert {(record.outcome, record.status) for record in records} == {("failed", 502)}


async def test_a_retry_finds_its_way_when_the_routes_have_changed(
    start_rig: StartRig,
) -> None:
    """A dead replica leaves the routes while its requests are on their way to another."""
    asked = asyncio.Event()
    fail = asyncio.Event()

    async def dying(client: Client) -> None:
        await client.request()
        asked.set()
        await fail.wait()

    async with replica(dying) as dead, replica(always(whole(ANSWER % b"null"))) as url:
        route = model_route([url, dead])
        rig = await start_rig(route)
        asking = asyncio.create_task(ask(rig))
        await asyncio.wait({asking}, timeout=0.1)
        if asking.done():
            asking = asyncio.create_task(ask(rig))
        await asked.wait()
        left = model_route([url])
        table = rig.service._routes
        table.apply(RouteSnapshot(epoch="test", version=2, published_at=0, models=(left,)))
        fail.set()
        reply = await asking

    assert reply.status_code == 200
    assert reply.headers["x-modelyard-attempts"] == "2"


async def test_no_connection_in_time_is_retried_elsewhere(
    start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise G5, G6: nothing was asked of a host that swallows connections."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def swallow(factory: object, host: str, port: int, **options: object) -> object:
        if port == 9:
            await asyncio.Event().wait()
        return await connect(factory, host, port, **options)  # type: ignore[call-overload]

    policy = Policy(balancing="round_robin", timeouts=Timeouts(connect_s=0.1))
    async with replica(always(whole(ANSWER % b"null"))) as url:
        rig = await start_rig(model_route([url, "http://127.0.0.1:9"], policy=policy))
        monkeypatch.setattr(loop, "create_connection", swallow)
        replies = [await ask(rig) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 200]


async def test_turns_of_one_model_are_not_taken_by_another(start_rig: StartRig) -> None:
    """Two models asked in turn: each still goes round all of its replicas."""
    async with replica(always(whole(ANSWER % b"null"))) as url:
        rig = await start_rig(model_route([url, url]), model_route([url], name="other"))
        for _ in range(4):
            await ask(rig)
            await rig.client.post("/v1/chat/completions", json=chat("x") | {"model": "other"})

    records = [record for record in await rig.records(8) if record.model == "m"]
    assert sorted(record.replica for record in records if record.replica) == ["r0"] * 2 + ["r1"] * 2


async def test_a_failing_replica_does_not_get_every_first_try(start_rig: StartRig) -> None:
    policy = Policy(balancing="round_robin", retries=Retries(backoff_base_s=0.001))
    async with replica(always(b"")) as bad, replica(always(whole(ANSWER % b"null"))) as url:
        rig = await start_rig(model_route([url, bad], policy=policy))
        replies = [await ask(rig) for _ in range(4)]

    attempts = [reply.headers["x-modelyard-attempts"] for reply in replies]
    assert sorted(attempts) == ["1", "1", "2", "2"]


async def test_what_a_failed_attempt_said_is_not_counted(start_rig: StartRig) -> None:
    """Promise G2: tokens that never reached the client are not billed."""
    failing = SSE + b"\r\n" + FIRST * 20 + b'data: {"error":"out of memory"}\n\n'
    async with replica(always(failing)) as bad, replica(always(SSE + b"\r\n" + FIRST + END)) as url:
        rig = await start_rig(model_route([url, bad]))
        for _ in range(2):
            assert (await ask(rig, stream=True)).status_code == 200

    assert [record.completion_tokens for record in await rig.records(2)] == [2, 2]
