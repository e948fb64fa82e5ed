"""What the `openai` package sends for the replica reaches it unchanged, and nothing else does."""

import json
from typing import Any

import pytest
from pydantic import BaseModel
from tests.gateway.openai_clients import USED, alone, awaiting, delta, events, recorded
from tests.gateway.rig import Rig, StartRig, eventually

ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 12}
WEATHER: Any = [{
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}]  # fmt: skip
CALLS = [("call_1", "weather", '{"city":"Oslo"}'), ("call_2", "weather", '{"city":"Lima"}')]


def _call(at: int, **fields: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": at, **fields}])


def _calling() -> bytes:
    """A stream that calls two tools, the arguments in pieces, as engines send it."""
    parts = [delta(role="assistant", content=None)]
    for at, (call_id, name, arguments) in enumerate(CALLS):
        parts.append(
            _call(at, id=call_id, type="function", function={"name": name, "arguments": ""})
        )
        pieces = (arguments[:5], arguments[5:9], arguments[9:])
        parts += [_call(at, function={"arguments": piece}) for piece in pieces]
    return events(*parts, delta("tool_calls"), USED)


def _called() -> bytes:
    """The same as a whole answer."""
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, name, arguments in CALLS
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return json.dumps(USED | {"object": "chat.completion", "choices": [choice]}).encode()


def told_calls(message: Any) -> list[tuple[str, str, str]]:
    return [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls]


@pytest.mark.parametrize("as_stream", [False, True], ids=["as asked", "put together"])
async def test_tools_are_asked_and_called(start_alone: StartRig, as_stream: bool) -> None:
    """Also of an engine that is asked for a stream where the client did not ask for one."""
    question: Any = ASKED | {
        "tools": WEATHER, "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": True,
    }  # fmt: skip
    async with recorded(_called(), _calling()) as (url, sent):
        rig: Rig = await start_alone(alone(url, cancels_streams_only=as_stream))
        async with awaiting(rig) as client:
            answer = await client.chat.completions.create(**question)
            chunks = [
                c async for c in await client.chat.completions.create(**question, stream=True)
            ]
            async with client.chat.completions.stream(**question) as stream:
                final = await stream.get_final_completion()
            reply: Any = [
                *question["messages"], answer.choices[0].message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            ]  # fmt: skip
            await client.chat.completions.create(**question | {"messages": reply})
        records = await eventually(rig.log, lambda found: len(found) == 4)

    assert answer.choices[0].finish_reason == "tool_calls"
    assert told_calls(answer.choices[0].message) == CALLS
    assert told_calls(final.choices[0].message) == CALLS
    pieces = [c for chunk in chunks for choice in chunk.choices
              for c in choice.delta.tool_calls or []]  # fmt: skip
    assert [piece.index for piece in pieces] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert sent[0].body["stream"] if as_stream else "stream" not in sent[0].body
    for request in sent:
        assert request.body["tools"] == WEATHER
        assert request.body["tool_choice"] == question["tool_choice"]
        assert request.body["parallel_tool_calls"] is True
    assert [m["role"] for m in sent[3].body["messages"]] == ["user", "assistant", "tool"]
    assert sent[3].body["messages"][1]["tool_calls"][1]["id"] == "call_2"
    assert [r.finish_reason for r in records] == ["tool_calls"] * 4
    assert [(r.prompt_tokens, r.completion_tokens) for r in records] == [(30, 20)] * 4


async def test_what_the_gateway_does_not_know_goes_through_unchanged(start_alone: StartRig) -> None:
    class City(BaseModel):
        name: str
        people: int

    said = json.loads(_called())
    message = {"role": "assistant", "content": '{"name":"Oslo","people":7}'}
    said["choices"][0] |= {"finish_reason": "stop", "message": message}
    async with recorded(json.dumps(said).encode()) as (url, sent):
        rig: Rig = await start_alone(alone(url))
        async with awaiting(rig) as client:
            await client.chat.completions.create(
                **ASKED, user="u-1", logit_bias={"7": -100}, metadata={"job": "nightly"},
                extra_body={"top_k": 3, "chat_template_kwargs": {"enable_thinking": False}},
            )  # fmt: skip
            parsed = await client.chat.completions.parse(**ASKED, response_format=City)

    assert parsed.choices[0].message.parsed == City(name="Oslo", people=7)
    assert sent[0].body == ASKED | {
        "user": "u-1", "logit_bias": {"7": -100}, "metadata": {"job": "nightly"}, "top_k": 3,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    form = sent[1].body["response_format"]
    assert form["type"] == "json_schema"
    assert set(form["json_schema"]["schema"]["properties"]) == {"name", "people"}


async def test_a_clients_headers_are_the_gateways_to_read(start_alone: StartRig) -> None:
    """Organisation, project and key are not the replica's business; a trace goes on to it."""
    trace = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"
    async with recorded(_called()) as (url, sent):
        rig: Rig = await start_alone(alone(url, caching={"mode": "all"}))
        async with awaiting(
            rig, api_key="sk-clients-own", organization="org-1", project="proj-1",
            default_headers={"x-team": "blue", "traceparent": trace},
        ) as client:  # fmt: skip
            raw = client.chat.completions.with_raw_response
            kept = [(await raw.create(**ASKED)).headers["x-modelyard-cache"] for _ in range(2)]
            asked_anew = await raw.create(**ASKED, extra_headers={"cache-control": "no-store"})
            queried = await raw.create(**ASKED, extra_query={"api-version": "1"})
        records = await eventually(rig.log, lambda found: len(found) == 4)

    assert kept == ["miss", "hit"]
    assert asked_anew.headers["x-modelyard-cache"] == "bypass"
    assert queried.headers["x-modelyard-cache"] == "hit"  # what the path means is in the path
    assert len(sent) == 2
    for request in sent:
        assert request.target == "/v1/chat/completions"
        assert request.headers["traceparent"] == trace
        assert not {"authorization", "openai-organization", "openai-project", "x-team",
                    "user-agent"} & set(request.headers)  # fmt: skip
        assert not any("sk-clients-own" in value for value in request.headers.values())
    assert {record.trace_id for record in records} == {"a1" * 16}


# --- the responses API ----------------------------------------------------------------------------


def _response(status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": "four", "annotations": []}
    message = {"type": "message", "id": "msg", "role": "assistant", "status": "completed",
               "content": [part]}  # fmt: skip
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9,
             "input_tokens_details": {"cached_tokens": 3},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    ended = status == "completed"
    return {"id": "resp", "object": "response", "created_at": 1, "model": "m", "status": status,
            "output": [message] if ended else [], "usage": usage if ended else None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip


def _responding() -> bytes:
    at = {"item_id": "msg", "output_index": 0, "content_index": 0}
    ended = _response("completed")
    message = ended["output"][0]
    empty = {"type": "output_text", "text": "", "annotations": []}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0,
         "item": message | {"content": [], "status": "in_progress"}},
        {"type": "response.content_part.added", "part": empty, **at},
        {"type": "response.output_text.delta", "delta": "fo", "logprobs": [], **at},
        {"type": "response.output_text.delta", "delta": "ur", "logprobs": [], **at},
        {"type": "response.output_text.done", "text": "four", "logprobs": [], **at},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.completed", "response": ended},
    ]  # fmt: skip
    numbered = [event | {"sequence_number": number} for number, event in enumerate(told)]
    return events(*numbered, named=True, done=False)


async def test_responses_whole_and_streamed(start_alone: StartRig) -> None:
    answer = json.dumps(_response("completed")).encode()
    async with recorded(answer, _responding()) as (url, sent):
        rig: Rig = await start_alone(alone(url))
        async with awaiting(rig) as client:
            given = await client.responses.create(model="m", input="What is 2+2?")
            stream = await client.responses.create(model="m", input="What is 2+2?", stream=True)
            types = [event.type async for event in stream]
            async with client.responses.stream(model="m", input="What is 2+2?") as helper:
                texts = [e.delta async for e in helper if e.type == "response.output_text.delta"]
                final = await helper.get_final_response()
        records = await eventually(rig.log, lambda found: len(found) == 3)

    assert given.output_text == final.output_text == "".join(texts) == "four"
    assert given.usage is not None
    assert given.usage.input_tokens_details.cached_tokens == 3
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert [request.target for request in sent] == ["/v1/responses"] * 3
    assert sent[0].body["input"] == "What is 2+2?"
    assert [(r.operation, r.prompt_tokens, r.completion_tokens) for r in records] == [
        ("responses", 7, 2)
    ] * 3
