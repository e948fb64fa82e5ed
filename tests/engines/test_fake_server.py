"""The fake engine in a running loop: what it answers, when, and what it forgets."""

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from modelyard.engines.fake_server.answers import check_answer
from modelyard.engines.fake_server.server import FakeServer
from modelyard.engines.fake_server.settings import Settings

DEADLINE_S = 10.0
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def engine(**settings: Any) -> AsyncIterator[tuple[FakeServer, httpx.AsyncClient]]:
    """A server on a free port, and a client of it."""
    server = FakeServer(Settings(**settings), crash=pytest.fail)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as client:
            yield server, client
    finally:
        await server.stop()


def asked(text: str, **parameters: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **parameters}


async def state(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/control/state")).json()
    return found


async def until(
    client: httpx.AsyncClient, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Wait for the engine to be in a state; the test fails with the last one seen."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition(last := await state(client)):
        assert time.monotonic() < deadline, last
        await asyncio.sleep(0.005)
    return last


async def stream_events(client: httpx.AsyncClient, body: dict[str, Any]) -> list[str]:
    async with client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        return [line[6:] async for line in response.aiter_lines() if line.startswith("data: ")]


def text_of(events: list[str]) -> str:
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    return "".join(
        choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]
    )


async def test_a_chat_is_answered_whole_with_exact_usage() -> None:
    async with engine() as (_, client):
        body = asked("hello", max_tokens=5)
        response = await client.post(CHAT, json=body, headers={"x-request-id": "r-1"})
        answer = response.json()
        choice = answer["choices"][0]
        assert response.headers["x-request-id"] == "r-1"
        assert check_answer(choice["message"]["content"], prompt="hello").complete
        assert choice["finish_reason"] == "length"
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
        assert (answer["model"], answer["system_fingerprint"]) == ("m", "fp_fake")
        logged = (await state(client))["log"]
        assert logged == [
            {
                "id": "r-1",
                "path": CHAT,
                "prompt": "hello",
                "stream": False,
                "tokens": 5,
                "outcome": "completed",
                "status": 200,
            }
        ]


async def test_a_stream_carries_one_token_per_event_and_ends_with_usage() -> None:
    async with engine() as (_, client):
        body = asked("hi [[fake: tokens=7]]", stream=True, stream_options={"include_usage": True})
        events = await stream_events(client, body)
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["usage"]["completion_tokens"] == 7
        assert json.loads(events[-2])["choices"] == []
        assert json.loads(events[-3])["choices"][0]["finish_reason"] == "stop"
        assert len(events) == 1 + 7 + 3  # the role, the tokens, finish, usage, DONE
        assert check_answer(text_of(events), prompt="hi [[fake: tokens=7]]").tokens == 7
        assert check_answer(text_of(events)).complete


async def test_the_same_answer_is_streamed_or_not_and_seeds_change_it() -> None:
    async with engine() as (_, client):

        async def text(**parameters: Any) -> str:
            response = await client.post(CHAT, json=asked("q", **parameters))
            content: str = response.json()["choices"][0]["message"]["content"]
            return content

        assert text_of(await stream_events(client, asked("q", stream=True))) == await text()
        seeded = await text(seed=5)
        assert seeded != await text()
        assert check_answer(seeded, prompt="q", seed=5).complete


async def test_the_openai_client_reads_it() -> None:
    async with engine() as (server, _):
        openai = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
        async with openai:
            stream = await openai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True, n=2
            )
            texts = {0: "", 1: ""}
            async for chunk in stream:
                for choice in chunk.choices:
                    texts[choice.index] += choice.delta.content or ""
            assert all(check_answer(text).complete for text in texts.values())
            assert texts[0] != texts[1]
            vectors = await openai.embeddings.create(model="m", input=["a", "b", "a"])
            assert vectors.data[0].embedding == vectors.data[2].embedding
            assert vectors.data[0].embedding != vectors.data[1].embedding
            assert [model.id async for model in openai.models.list()] == ["fake"]


async def test_completions_take_several_prompts_and_stop_strings() -> None:
    async with engine() as (_, client):
        body = {"prompt": ["a", "b"], "n": 2, "max_tokens": 3}
        choices = (await client.post("/v1/completions", json=body)).json()["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert len({choice["text"] for choice in choices}) == 4
        stopping = {"prompt": "a", "max_tokens": 9, "stop": [" t2:"]}
        answer = (await client.post("/v1/completions", json=stopping)).json()
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert check_answer(answer["choices"][0]["text"]).tokens == 2
        assert answer["usage"]["completion_tokens"] == 3


async def test_an_embedding_is_a_unit_vector_in_both_encodings() -> None:
    async with engine() as (_, client):
        body = {"input": "x", "dimensions": 4}
        plain = (await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
        packed = await client.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
        raw = base64.b64decode(packed.json()["data"][0]["embedding"])
        assert struct.unpack("<4f", raw) == pytest.approx(plain)
        assert sum(value * value for value in plain) == pytest.approx(1.0)


async def test_prompts_over_the_context_are_refused_and_open_answers_end_at_it() -> None:
    async with engine(context_length=8) as (_, client):
        for body in (asked("x" * 33), asked("x", max_tokens=8)):
            refused = await client.post(CHAT, json=body)
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "context_length_exceeded"
        cut = (await client.post(CHAT, json=asked("1234"))).json()
        assert cut["usage"]["total_tokens"] == 8
        assert cut["choices"][0]["finish_reason"] == "length"


async def test_a_named_engine_serves_its_model_only() -> None:
    async with engine(model="mine") as (_, client):
        refused = await client.post(CHAT, json=asked("x"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        served = await client.post(CHAT, json=asked("x") | {"model": "mine"})
        assert served.json()["model"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b'{"messages":[]}', 400),
        ("POST", CHAT, b'{"messages":[{"role":"user","content":"[[fake: nope=1]]"}]}', 400),
        ("POST", "/v1/embeddings", b'{"input":"[[fake: stall_after=1]]"}', 400),
        ("POST", "/control/faults", b'{"script":"hang","time":1}', 400),
        ("GET", CHAT, b"", 404),
        ("GET", "/nowhere", b"", 404),
    ],
)
async def test_bad_requests_get_openai_errors(
    method: str, path: str, content: bytes, status: int
) -> None:
    async with engine() as (_, client):
        response = await client.request(method, path, content=content)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        # and the connection serves on
        assert (await client.get("/health")).json() == {"status": "ok"}


async def test_slots_queue_and_overflow() -> None:
    async with engine(parallel=1, max_waiting=1, overflow_status=429) as (_, client):
        tasks = []
        for count in (1, 2):
            tasks.append(asyncio.create_task(client.post(CHAT, json=asked("[[fake: hang]]"))))
            await until(client, lambda now, n=count: now["running"] + now["waiting"] == n)
        assert (await client.get("/slots")).json() == [{"id": 0, "is_processing": True}]
        metrics = (await client.get("/metrics")).text
        assert 'vllm:num_requests_waiting{model_name="fake"} 1' in metrics
        full = await client.post(CHAT, json=asked("x"))
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        for task in reversed(tasks):  # the one that waits leaves first
            task.cancel()
        last = await until(client, lambda now: now["cancelled"] == 2)
        assert (last["running"], last["waiting"]) == (0, 0)
        metrics = (await client.get("/metrics")).text
        assert 'fake:requests_cancelled_total{model_name="fake"} 2' in metrics


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot_for_the_next(stream: bool) -> None:
    async with engine(parallel=1, step_base_s=0.002) as (_, client):
        long = asked("[[fake: tokens=1000000]]", stream=stream)
        leaving = asyncio.create_task(client.post(CHAT, json=long))
        await until(client, lambda now: now["generation_tokens"] > 2)
        waiting = asyncio.create_task(client.post(CHAT, json=asked("next", max_tokens=2)))
        await until(client, lambda now: now["waiting"] == 1)
        leaving.cancel()
        answer = (await waiting).json()
        assert check_answer(answer["choices"][0]["message"]["content"], prompt="next").complete
        last = await state(client)
        assert (last["cancelled"], last["completed"], last["running"]) == (1, 1, 0)
        assert last["log"][0]["outcome"] == "cancelled"


async def test_tokens_come_at_the_rate_of_the_steps() -> None:
    async with engine(step_base_s=0.01, prefill_tokens_per_s=100.0) as (_, client):
        begun = time.monotonic()
        await stream_events(client, asked("x" * 40, stream=True, max_tokens=10))
        took = time.monotonic() - begun
        assert took >= 0.19  # 10 prompt tokens at 100/s, 10 steps of 10 ms
        assert took < DEADLINE_S


async def test_streams_share_the_steps() -> None:
    async with engine(step_base_s=0.01, parallel=100) as (_, client):
        begun = time.monotonic()
        bodies = [asked(f"q{number}", stream=True, max_tokens=20) for number in range(100)]
        answers = await asyncio.gather(*(stream_events(client, body) for body in bodies))
        assert time.monotonic() - begun < DEADLINE_S  # one after the other: 20 s
        for number, events in enumerate(answers):
            assert check_answer(text_of(events), prompt=f"q{number}").complete


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with engine(step_base_s=0.001) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number in range(5):
            body = json.dumps(asked(f"p{number}")).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"x-request-id: p%d\r\n\r\n" % number + body)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = (await asyncio.wait_for(reader.read(), DEADLINE_S)).split(b"HTTP/1.1 200 OK")
        assert len(answers) == 7
        for number in range(5):
            assert b"x-request-id: p%d\r\n" % number in answers[1 + number]
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_and_closed(raw: bytes) -> None:
    async with engine() as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        writer.close()
        await writer.wait_closed()


async def test_expect_continue_is_honoured() -> None:
    async with engine() as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n"
        writer.write(head + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b'{"content":"abcd"}')
        answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert answer.endswith(b'{"count":1,"max_model_len":null,"tokens":[1684234849]}')
        writer.close()
        await writer.wait_closed()


async def test_draining_finishes_what_is_open_and_takes_no_more() -> None:
    async with engine(step_base_s=0.01) as (server, client):
        open_request = asyncio.create_task(
            stream_events(client, asked("x", stream=True, max_tokens=30))
        )
        await until(client, lambda now: now["generation_tokens"] > 2)
        stopping = asyncio.create_task(server.stop(DEADLINE_S))
        events = await open_request
        assert events[-1] == "[DONE]"
        assert await stopping == 0
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")


async def test_draining_cuts_what_outlasts_it() -> None:
    async with engine() as (server, client):
        hanging = asyncio.create_task(client.post(CHAT, json=asked("[[fake: hang]]")))
        await until(client, lambda now: now["running"] == 1)
        assert await server.stop(0.05) == 1
        with pytest.raises(httpx.RemoteProtocolError):
            await hanging


async def test_it_shows_the_last_requests_as_they_came() -> None:
    async with engine() as (_, client):
        body = (
            b'{"model":"m","max_tokens":1,"x_own":1.50,"messages":[{"role":"user","content":"a"}]}'
        )
        await client.post(CHAT, content=body, headers={"X-Own": "1"})
        for _ in range(40):
            await client.post(CHAT, content=b"x" * 70_000)
        shown = (await client.get("/control/requests")).json()
        await client.post("/control/reset")
        assert (len(shown), {len(each["body"]) for each in shown}) == (32, {65_536})

        await client.post(CHAT, content=body, headers={"X-Own": "1"})
        (shown,) = (await client.get("/control/requests")).json()
    assert (shown["path"], shown["body"]) == (CHAT, body.decode())
    assert ["X-Own", "1"] in shown["headers"]


async def test_the_state_tells_what_a_client_does_not_take() -> None:
    async with engine() as (server, client):
        assert (await state(client))["unsent_bytes"] == 0
        told = f"[[fake: tokens=200000 fingerprint={'x' * 500}]]"
        body = json.dumps(asked(told, stream=True)).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(body), body)
        )
        await until(client, lambda found: found["unsent_bytes"] > 100_000)
        writer.transport.abort()
        await until(client, lambda found: found["unsent_bytes"] == 0)


async def test_all_requests_under_way_can_be_cut() -> None:
    async with engine(parallel=1) as (_, client):
        asked_for = [
            asyncio.create_task(client.post(CHAT, json=asked("[[fake: hang]]"))) for _ in range(3)
        ]
        await until(client, lambda found: (found["running"], found["waiting"]) == (1, 2))

        assert (await client.post("/control/cut")).json() == {"cut": 3}

        outcomes = await asyncio.gather(*asked_for, return_exceptions=True)
        assert all(isinstance(outcome, httpx.TransportError) for outcome in outcomes)
        found = await state(client)
        assert (found["running"], found["waiting"], found["broken"]) == (0, 0, 3)
