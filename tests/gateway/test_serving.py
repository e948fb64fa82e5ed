"""What clients get: answers, streams, identity, errors."""

import asyncio
import json

import httpx
import openai
import pytest
from tests.gateway.raw_replica import Client, replica, whole
from tests.gateway.rig import DIGEST, Engine, Rig, StartRig, chat, model_route

from modelyard.core.routes import Policy
from modelyard.engines.fake_server.answers import check_answer


async def test_an_answer_names_the_version_that_made_it(rig: Rig) -> None:
    reply = await rig.client.post("/v1/chat/completions", json=chat("hello", max_tokens=8))

    assert reply.status_code == 200
    assert reply.headers["x-modelyard-version"] == "weights:3"
    assert reply.headers["x-modelyard-digest"] == DIGEST
    assert reply.headers["x-modelyard-attempts"] == "1"
    assert reply.headers["x-modelyard-cache"] == "off"
    assert check_answer(reply.json()["choices"][0]["message"]["content"]).tokens == 8
    (record,) = await rig.records(1)
    assert record.request_id == reply.headers["x-request-id"]
    assert (record.outcome, record.status, record.version) == ("completed", 200, 3)
    assert record.completion_tokens == 8
    assert not record.tokens_estimated


async def test_openai_client_streaming_and_not(rig: Rig) -> None:
    async with openai.AsyncOpenAI(base_url=f"{rig.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "sum"}], max_tokens=12
        )
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "sum"}], max_tokens=12, stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        completion = await client.completions.create(model="m", prompt="x", max_tokens=4)

    assert "".join(parts) == whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    assert check_answer(completion.choices[0].text).tokens == 4


async def _raw_stream(url: str, body: dict[str, object]) -> bytes:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        reply = await client.post(f"{url}/v1/chat/completions", json=body)
        reply.raise_for_status()
        return reply.content


async def test_a_stream_is_relayed_byte_for_byte(rig: Rig, engines: list[Engine]) -> None:
    """Promise G10: with usage asked for by the client, nothing is added or taken."""
    body = chat("fidelity", max_tokens=20, stream=True, stream_options={"include_usage": True})
    asked = await _raw_stream(engines[0].url, body)
    relayed = await _raw_stream(rig.url, body)

    def without_ids(stream: bytes) -> list[object]:
        lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: {")]
        return [
            {key: value for key, value in json.loads(line).items() if key not in ("id", "created")}
            for line in lines
        ]

    assert without_ids(relayed) == without_ids(asked)
    assert relayed.endswith(b"data: [DONE]\n\n")
    assert relayed.count(b"\n\n") == asked.count(b"\n\n")


async def test_usage_that_only_the_gateway_asked_for_is_taken_out(rig: Rig) -> None:
    """Promise G10: the record has the engine's own count, the client the stream it asked for."""
    stream = await _raw_stream(rig.url, chat("quiet", max_tokens=7, stream=True))

    assert b'"prompt_tokens"' not in stream
    assert stream.endswith(b"data: [DONE]\n\n")
    (record,) = await rig.records(1)
    assert record.stream
    assert record.completion_tokens == 7
    assert not record.tokens_estimated
    assert record.ttft_s is not None
    assert record.itl_max_s is not None
    assert 0 < record.ttft_s < record.e2e_s


async def test_chunks_arrive_as_they_are_made(rig: Rig) -> None:
    """Promise G10: unbuffered. Of 60 tokens, 5 ms each, the first is there long before the last."""
    loop = asyncio.get_running_loop()
    times = []
    async with rig.client.stream(
        "POST", "/v1/chat/completions", json=chat("slow", max_tokens=60, stream=True)
    ) as reply:
        async for _ in reply.aiter_raw():
            times.append(loop.time())  # noqa: PERF401 - one line a chunk

    assert len(times) >= 30
    assert times[-1] - times[0] > 0.15


async def test_the_simple_api_answers_in_its_documented_form(rig: Rig) -> None:
    reply = await rig.client.post("/generate", json={"prompt": "What is 2+2?", "max_length": 6})

    assert reply.status_code == 200
    answer = reply.json()
    assert set(answer) == {
        "response", "generation_time", "tokens_generated", "model_name", "model_version",
    }  # fmt: skip
    assert answer["tokens_generated"] == 6
    assert (answer["model_name"], answer["model_version"]) == ("m", 3)
    assert 0 < answer["generation_time"] < 5
    assert reply.headers["x-modelyard-version"] == "weights:3"


@pytest.mark.parametrize("fields", [{"model_name": "m"}, {"model_name": "default"}, {"raw": True}])
async def test_the_simple_api_finds_its_model(rig: Rig, fields: dict[str, object]) -> None:
    reply = await rig.client.post("/generate", json={"prompt": "x", "max_length": 3} | fields)

    assert reply.status_code == 200
    (record,) = await rig.records(1)
    assert record.operation == ("completions" if fields.get("raw") else "chat")


async def test_the_default_model_is_asked_by_its_own_name(rig: Rig) -> None:
    """An engine that serves one model knows no other name."""
    asked = {"model": "default", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    reply = await rig.client.post("/v1/chat/completions", json=asked)

    assert (reply.status_code, reply.json()["model"]) == (200, "m")


async def test_a_batch_is_answered_in_order_each_with_its_own_parameters(rig: Rig) -> None:
    lengths = [9, 1, 30, 4]
    batch = [{"prompt": f"p{n}", "max_length": length} for n, length in enumerate(lengths)]
    batch.append({"prompt": "x", "model_name": "other"})

    reply = await rig.client.post("/batch_generate", json=batch)

    *answers, refused = reply.json()
    assert [answer["tokens_generated"] for answer in answers] == lengths
    assert refused["error"]["code"] == "not_found"
    records = await rig.records(5)
    assert sorted(record.outcome for record in records) == ["completed"] * 4 + ["rejected"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/chat/completions", "{", 400, "not JSON"),
        ("/v1/chat/completions", '{"model": "m"}', 400, "messages"),
        ("/v1/chat/completions", '{"model": "zz", "messages": [{}]}', 404, "models: m"),
        ("/v1/embeddings", '{"model": "m", "input": "x"}', 501, "chat, completions"),
        ("/generate", '{"prompt": ""}', 400, "prompt"),
        ("/generate", '{"prompt": "x", "max_length": 0}', 400, "max_length"),
        ("/generate", '{"prompt": "x", "temprature": 1}', 400, "temprature"),
        ("/batch_generate", "[]", 400, "empty"),
        ("/batch_generate", '[{"prompt": "x"}, {"prompt": "x", "top_p": 2}]', 400, "request 1"),
        ("/nothing/here", "{}", 404, "known paths"),
    ],
)
async def test_what_can_not_be_served_gets_a_clear_error(
    rig: Rig, engines: list[Engine], path: str, body: str, status: int, said: str
) -> None:
    reply = await rig.client.post(path, content=body)

    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert said in error["message"]
    assert sum([(await engine.state())["seen"] for engine in engines]) == 0


async def test_a_body_over_the_limit_is_refused_before_it_is_read(start_rig: StartRig) -> None:
    rig = await start_rig(max_body_bytes=1000)

    reply = await rig.client.post("/v1/chat/completions", content=b"x" * 2000)

    assert reply.status_code == 413
    assert reply.headers["connection"] == "close"
    assert "1000 bytes" in reply.json()["error"]["message"]


async def test_a_models_own_bound_on_the_body_holds(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(model_route([engines[0].url], policy=Policy(max_body_bytes=100)))

    reply = await rig.client.post("/v1/chat/completions", json=chat("x" * 200))

    assert reply.status_code == 413


async def test_a_large_body_on_its_way_holds_nobody_up(rig: Rig) -> None:
    """Promise G19: it is read as it comes, and others are served meanwhile."""
    body = json.dumps(chat("x" * 1_000_000, max_tokens=3)).encode()
    reader, writer = await asyncio.open_connection(*rig.url[7:].split(":"))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                 b"content-length: %d\r\n\r\n" % len(body))  # fmt: skip
    answered = 0
    for start in range(0, len(body), 100_000):
        writer.write(body[start : start + 100_000])
        await writer.drain()
        reply = await rig.client.post("/v1/chat/completions", json=chat("small", max_tokens=2))
        answered += reply.status_code == 200
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert answered == 11
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer)["usage"]["prompt_tokens"] == 250_000


async def test_what_belongs_to_one_connection_is_not_relayed(start_rig: StartRig) -> None:
    """Promise G22: RFC 9110, 7.6.1, in both directions."""
    heads: list[bytes] = []

    async def speak(client: Client) -> None:
        heads.append(await client.reader.readuntil(b"\r\n\r\n"))
        await client.say(whole(
            b'{"choices":[]}', b"content-type: application/json", b"connection: keep-alive, x-hop",
            b"keep-alive: timeout=7", b"x-hop: 1", b"proxy-authenticate: Basic", b"upgrade: h2c",
            b"trailer: x-t", b"set-cookie: a=b", b"server: theirs",
        ))  # fmt: skip

    async with replica(speak) as url:
        rig = await start_rig(model_route([url]))
        sent = {"connection": "keep-alive, x-mine", "x-mine": "1", "te": "trailers",
                "proxy-authorization": "Basic x", "keep-alive": "timeout=9",
                "cookie": "a=b", "authorization": "Bearer mine"}  # fmt: skip
        reply = await rig.client.post("/v1/chat/completions", json=chat("x"), headers=sent)

    assert reply.status_code == 200
    theirs = {"connection", "keep-alive", "x-hop", "proxy-authenticate", "upgrade", "trailer",
              "set-cookie", "server"}  # fmt: skip
    assert not theirs & set(reply.headers)
    assert not any(b"%b:" % name.encode() in heads[0].lower() for name in sent)


async def test_models_are_listed_with_their_versions(rig: Rig) -> None:
    listed = (await rig.client.get("/v1/models")).json()

    assert [model["id"] for model in listed["data"]] == ["m"]
    assert listed["data"][0]["versions"] == [{"version": 3, "digest": DIGEST, "weight": 1.0}]


async def test_health_is_free_and_tells_the_truth(rig: Rig, start_rig: StartRig) -> None:
    """Promise G20: the controller is away here, and it says so."""
    health = await rig.client.get("/health")
    assert health.status_code == 200
    assert health.json() == {
        "status": "ok", "draining": False, "controller": "away", "routes_version": 1, "models": 1,
    }  # fmt: skip
    assert (await rig.client.get("/ready")).status_code == 200
    assert (await rig.client.post("/health")).status_code == 405


async def test_metrics_do_not_grow_with_what_clients_invent(rig: Rig) -> None:
    """Promise G20: unknown models and paths fold into one label."""
    for n in range(20):
        await rig.client.post("/v1/chat/completions", json=chat("x") | {"model": f"invented-{n}"})
        await rig.client.get(f"/invented/{n}")

    text = (await rig.client.get("/metrics")).text
    assert "invented" not in text
    assert await rig.metric("modelyard_requests_total") == 20


async def test_tokens_and_times_are_measured(rig: Rig) -> None:
    await rig.client.post("/v1/chat/completions", json=chat("one two", max_tokens=5))

    assert await rig.metric("modelyard_tokens_total") >= 6
    assert await rig.metric("gen_ai_server_request_duration_seconds_count") == 1
    assert await rig.metric("gen_ai_server_time_to_first_token_seconds_count") == 1
    assert await rig.metric("modelyard_upstream_attempts_total") == 1
