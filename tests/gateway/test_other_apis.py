"""The responses and messages APIs, relayed where the engine has them: ends, usage, cut streams."""

import json
from typing import Any

import httpx
import pytest
from tests.gateway.raw_replica import SSE, Client, always, replica, whole
from tests.gateway.rig import Engine, Rig, StartRig, eventually

RESPONSES = [
    ("response.created", {"response": {"id": "r", "status": "in_progress"}}),
    ("response.output_text.delta", {"delta": "four"}),
    ("response.completed", {"response": {"id": "r", "usage": {
        "input_tokens": 7, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}}}),
]  # fmt: skip
MESSAGES = [
    ("message_start", {"message": {"id": "m", "usage": {
        "input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 0}}}),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "four"}}),
    ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    ("message_stop", {}),
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "m", "input": "What is 2+2?"},
    "/v1/messages": {"model": "m", "max_tokens": 9,
                     "messages": [{"role": "user", "content": "What is 2+2?"}]},
}  # fmt: skip
STREAMS = {"/v1/responses": RESPONSES, "/v1/messages": MESSAGES}


def told(events: list[tuple[str, dict[str, Any]]]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind} | data).encode())
        for kind, data in events
    )


def config(url: str, **settings: Any) -> dict[str, Any]:
    model = {"name": "m", "upstreams": [{"url": url}], "retries": {"max_attempts": 1}}
    return {"models": [model | settings]}


@pytest.mark.parametrize("path", sorted(STREAMS))
async def test_a_stream_is_relayed_as_it_is_and_its_usage_is_read(
    start_alone: StartRig, path: str
) -> None:
    stream = told(STREAMS[path])
    async with replica(always(SSE + b"\r\n" + stream)) as url:
        rig: Rig = await start_alone(config(url))
        reply = await rig.client.post(path, json=BODIES[path] | {"stream": True})
        assert reply.content == stream
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert record.outcome == "completed"
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (7, 2, 3)
    assert not record.tokens_estimated


@pytest.mark.parametrize("path", sorted(STREAMS))
async def test_a_stream_without_its_end_was_cut(start_alone: StartRig, path: str) -> None:
    """Promise G4: however cleanly the connection ended."""
    async with replica(always(SSE + b"\r\n" + told(STREAMS[path][:-1]))) as url:
        rig: Rig = await start_alone(config(url))
        text = b""
        async with rig.client.stream("POST", path, json=BODIES[path] | {"stream": True}) as reply:
            with pytest.raises(httpx.RemoteProtocolError):
                async for part in reply.aiter_bytes():
                    text += part
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    last = text.decode().strip().split("\n\n")[-1]
    name, data = last.splitlines()
    assert name == "event: error"  # what clients of these APIs look for
    assert json.loads(data.removeprefix("data: "))["type"] == "error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "upstream_cut"
    assert record.outcome == "failed"


@pytest.mark.parametrize("path", sorted(STREAMS))
async def test_the_usage_of_a_whole_answer_is_read(start_alone: StartRig, path: str) -> None:
    usage = {"input_tokens": 7, "output_tokens": 2}
    body = json.dumps({"id": "x", "type": "message", "usage": usage}).encode()
    async with replica(always(whole(body))) as url:
        rig: Rig = await start_alone(config(url))
        reply = await rig.client.post(path, json=BODIES[path])
        assert reply.content == body
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert (record.prompt_tokens, record.completion_tokens) == (7, 2)


@pytest.mark.parametrize("path", sorted(STREAMS))
async def test_a_whole_answer_is_put_together_where_only_streams_are_cancelled(
    start_alone: StartRig, path: str
) -> None:
    """Promise G1: the engine is asked for a stream, and the client gets the whole answer."""
    bodies = []

    async def speak(client: Client) -> None:
        bodies.append(json.loads(await client.request()))
        await client.say(SSE + b"\r\n" + told(STREAMS[path]))

    async with replica(speak) as url:
        rig: Rig = await start_alone(config(url, cancels_streams_only=True))
        reply = await rig.client.post(path, json=BODIES[path])
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert bodies == [BODIES[path] | {"stream": True}]
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json()
    if path == "/v1/responses":
        assert answer == RESPONSES[-1][1]["response"]
    else:
        assert answer["content"] == [{"type": "text", "text": "four"}]
        assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == ("end_turn", 2)
    assert (record.outcome, record.stream) == ("completed", False)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (7, 2, 3)


@pytest.mark.parametrize("path", sorted(STREAMS))
async def test_what_can_not_be_put_together_is_an_error(start_alone: StartRig, path: str) -> None:
    cut = always(SSE + b"\r\n" + told(STREAMS[path][:-1]))
    async with replica(cut) as url:
        rig: Rig = await start_alone(config(url, cancels_streams_only=True))
        reply = await rig.client.post(path, json=BODIES[path])
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_cut"


async def test_what_an_engine_has_not_is_501_in_openais_form(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    limited = config(engines[0].url)
    limited["models"][0]["operations"] = ["chat"]
    rig: Rig = await start_alone(limited)
    for path in sorted(BODIES):
        reply = await rig.client.post(path, json=BODIES[path])
        assert reply.status_code == 501
        assert reply.json()["error"]["code"] == "unsupported"
    assert (await engines[0].state())["seen"] == 0


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/messages", {"model": "m"}, "messages"),
        ("/v1/messages", {"model": "m", "messages": []}, "messages"),
        ("/v1/responses", {"input": "x"}, None),
    ],
)
async def test_what_is_missing_is_named(
    start_alone: StartRig, engines: list[Engine], path: str, body: Any, param: str | None
) -> None:
    rig: Rig = await start_alone(config(engines[0].url))
    reply = await rig.client.post(path, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
