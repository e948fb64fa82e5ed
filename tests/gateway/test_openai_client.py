"""The `openai` package as a client, blocking and not: everything that it can ask and be told."""

import asyncio
import json
from typing import Any

import openai
import pytest
from tests.gateway.openai_clients import (
    USED,
    alone,
    alone_before,
    awaiting,
    blocking,
    delta,
    events,
)
from tests.gateway.raw_replica import SSE, Client, replica
from tests.gateway.rig import DIGEST, Engine, Rig, StartRig, eventually

from modelyard.engines.fake_server.answers import check_answer
from modelyard.engines.fake_server.replies import embedding

ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 12}


@pytest.fixture
async def gateway(start_alone: StartRig, engines: list[Engine]) -> Rig:
    """A gateway in front of both engines that serves every API."""
    started: Rig = await start_alone(alone_before(engines))
    return started


def text_of(chunks: list[Any]) -> str:
    """What the deltas of a chat add up to."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


# --- chat ----------------------------------------------------------------------------------------


async def test_a_chat_whole_and_streamed_from_threads(gateway: Rig) -> None:
    def ask() -> tuple[Any, list[Any], list[Any]]:
        with blocking(gateway) as client:
            answer = client.chat.completions.create(**ASKED)
            chunks = list(client.chat.completions.create(**ASKED, stream=True))
            with client.chat.completions.create(**ASKED, stream=True) as stream:
                within = list(stream)
        return answer, chunks, within

    answer, chunks, within = await asyncio.to_thread(ask)

    text = answer.choices[0].message.content
    check = check_answer(text, prompt="one two")
    assert check.tokens == 12
    assert not check.errors
    assert (answer.object, answer.model) == ("chat.completion", "m")
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.role == "assistant"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)
    assert text_of(chunks) == text_of(within) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    # Usage that only the gateway asked for is not told: an old client indexes choices[0] blindly.
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    records = await eventually(gateway.log, lambda found: len(found) == 3)
    assert [record.outcome for record in records] == ["completed"] * 3


async def test_a_chat_whole_and_streamed_from_a_loop(gateway: Rig) -> None:
    async with awaiting(gateway) as client:
        answer = await client.chat.completions.create(**ASKED)
        stream = await client.chat.completions.create(**ASKED, stream=True)
        chunks = [chunk async for chunk in stream]
        async with await client.chat.completions.create(**ASKED, stream=True) as opened:
            within = [chunk async for chunk in opened]

    text = answer.choices[0].message.content
    assert check_answer(text or "", prompt="one two").complete
    assert text_of(chunks) == text_of(within) == text
    records = await eventually(gateway.log, lambda found: len(found) == 3)
    assert [(r.outcome, r.prompt_tokens, r.completion_tokens) for r in records] == [
        ("completed", 2, 12)
    ] * 3
    assert [r.stream for r in records] == [False, True, True]
    assert not any(r.tokens_estimated for r in records)


async def test_usage_is_told_at_the_end_of_a_stream_that_asks_for_it(gateway: Rig) -> None:
    async with awaiting(gateway) as client:
        stream = await client.chat.completions.create(
            **ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].usage.total_tokens == 14


async def test_the_streaming_helpers_accumulate_the_answer(gateway: Rig) -> None:
    # Without a bound: the helpers raise when an answer was cut by one.
    ending = {name: value for name, value in ASKED.items() if name != "max_tokens"}

    def ask() -> tuple[str, Any]:
        with blocking(gateway) as client, client.chat.completions.stream(**ending) as stream:
            text = "".join(event.delta for event in stream if event.type == "content.delta")
            return text, stream.get_final_completion()

    text, final = await asyncio.to_thread(ask)
    async with awaiting(gateway) as client, client.chat.completions.stream(**ending) as opened:
        done = [event.content async for event in opened if event.type == "content.done"]

    assert check_answer(text, prompt="one two").complete
    assert final.choices[0].message.content == text
    assert final.choices[0].finish_reason == "stop"
    assert done == [text]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_client_that_closes_at_the_end_mark_has_its_answer(
    start_alone: StartRig, shared: bool
) -> None:
    """As the blocking client does, and the replica's end of the body may come a little later."""
    over = asyncio.Event()

    async def speak(client: Client) -> None:
        await client.request()
        await client.say(SSE + b"\r\n", events(delta(content="four"), delta("stop"), USED))
        await over.wait()

    def ask(rig: Rig) -> str:
        with blocking(rig) as client:
            return text_of(list(client.chat.completions.create(**ASKED, stream=True)))

    async with replica(speak) as url:
        caching = {"caching": {"mode": "all", "single_flight": True}} if shared else {}
        rig: Rig = await start_alone(alone(url, **caching))
        text = await asyncio.to_thread(ask, rig)
        (record,) = await eventually(rig.log, lambda found: len(found) == 1)
        if shared:
            again = await rig.client.post("/v1/chat/completions", json=ASKED)
            assert again.headers["x-modelyard-cache"] == "hit"
            assert again.json()["choices"][0]["message"]["content"] == "four"
        over.set()

    assert text == "four"
    assert (record.outcome, record.status, record.error_code) == ("completed", 200, None)
    assert [attempt.outcome for attempt in record.attempts] == ["completed"]
    assert (record.prompt_tokens, record.completion_tokens) == (30, 20)
    await rig.until_at_rest()


async def test_several_answers_a_seed_and_a_stop(gateway: Rig) -> None:
    async with awaiting(gateway) as client:
        several = await client.chat.completions.create(**ASKED, n=3)
        seeded = [
            (await client.chat.completions.create(**ASKED, seed=seed)).choices[0].message.content
            for seed in (5, 5, 6)
        ]
        stopped = await client.chat.completions.create(**ASKED, stop=[" t3:"])

    assert [choice.index for choice in several.choices] == [0, 1, 2]
    texts = {choice.message.content for choice in several.choices}
    assert len(texts) == 3
    assert all(check_answer(text or "").complete for text in texts)
    assert several.usage is not None
    assert several.usage.completion_tokens == 36
    assert seeded[0] == seeded[1] != seeded[2]
    assert stopped.choices[0].finish_reason == "stop"
    assert check_answer(stopped.choices[0].message.content or "").tokens == 3


# --- what stands beside an answer ----------------------------------------------------------------


async def test_the_answers_headers_are_there_raw(gateway: Rig, start_rig: StartRig) -> None:
    def ask() -> tuple[Any, Any]:
        with blocking(gateway) as client:
            raw = client.chat.completions.with_raw_response.create(**ASKED)
            return raw, raw.parse()

    raw, parsed = await asyncio.to_thread(ask)
    async with awaiting(gateway) as client:
        awaited = await client.chat.completions.with_raw_response.create(**ASKED, stream=True)
        chunks = [chunk async for chunk in awaited.parse()]

    assert raw.status_code == 200
    assert raw.headers["x-modelyard-digest"].startswith("remote:")
    assert raw.headers["x-modelyard-model"] == "m"
    assert raw.headers["x-modelyard-attempts"] == "1"
    assert awaited.headers["content-type"].startswith("text/event-stream")
    assert text_of(chunks) == parsed.choices[0].message.content
    records = await eventually(gateway.log, lambda found: len(found) == 2)
    assert [record.request_id for record in records] == [raw.request_id, awaited.request_id]
    assert parsed._request_id == raw.request_id


async def test_a_registered_version_is_named_in_the_headers(rig: Rig) -> None:
    async with awaiting(rig) as client:
        raw = await client.chat.completions.with_raw_response.create(**ASKED)
    assert raw.headers["x-modelyard-version"] == "weights:3"
    assert raw.headers["x-modelyard-digest"] == DIGEST


async def test_an_answer_can_be_read_line_by_line(gateway: Rig) -> None:
    def ask() -> tuple[str, list[str]]:
        with blocking(gateway) as client:
            make = client.chat.completions.with_streaming_response
            with make.create(**ASKED, stream=True) as response:
                assert response.status_code == 200
                lines = list(response.iter_lines())
            with make.create(**ASKED) as response:
                return response.parse().choices[0].message.content or "", lines

    text, lines = await asyncio.to_thread(ask)
    async with (
        awaiting(gateway) as client,
        client.chat.completions.with_streaming_response.create(**ASKED) as response,
    ):
        again = json.loads(await response.read())

    assert [line for line in lines if line][-1] == "data: [DONE]"
    deltas = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(d["choices"][0]["delta"].get("content", "") for d in deltas) == text
    assert again["choices"][0]["message"]["content"] == text


# --- the other APIs ------------------------------------------------------------------------------


async def test_completions_whole_and_streamed(gateway: Rig) -> None:
    def ask() -> tuple[Any, str]:
        with blocking(gateway) as client:
            answer = client.completions.create(model="m", prompt=["a", "b"], max_tokens=4)
            stream = client.completions.create(model="m", prompt="a", max_tokens=4, stream=True)
            return answer, "".join(chunk.choices[0].text for chunk in stream)

    answer, streamed = await asyncio.to_thread(ask)

    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice, prompt in zip(answer.choices, "ab", strict=True):
        assert check_answer(choice.text, prompt=prompt).tokens == 4
    assert streamed == answer.choices[0].text
    assert answer.usage.completion_tokens == 8


async def test_embeddings_as_the_client_asks_for_them_by_default(gateway: Rig) -> None:
    """That is base64, which it decodes; a list comes back in its order."""
    texts = ["first", "second", "third"]
    async with awaiting(gateway) as client:
        several = await client.embeddings.create(model="m", input=texts)
        floats = await client.embeddings.create(model="m", input="first", encoding_format="float")
        short = await client.embeddings.create(model="m", input="first", dimensions=4)
        raw = await client.embeddings.with_raw_response.create(
            model="m", input="first", encoding_format="base64"
        )

    assert [each.index for each in several.data] == [0, 1, 2]
    for each, text in zip(several.data, texts, strict=True):
        assert each.embedding == pytest.approx(embedding(text, 16, 0), abs=1e-6)
    assert floats.data[0].embedding == pytest.approx(several.data[0].embedding, abs=1e-6)
    assert len(short.data[0].embedding) == 4
    assert several.usage.prompt_tokens == 6
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)
    records = await eventually(gateway.log, lambda found: len(found) == 4)
    assert {record.operation for record in records} == {"embeddings"}
    assert records[0].prompt_tokens == 6


async def test_models_are_listed_and_looked_up(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_alone(alone_before(engines, names=("m", "team/large v2")))
    async with awaiting(rig) as client:
        listed = [model async for model in client.models.list()]
        found = await client.models.retrieve("team/large v2")
        with pytest.raises(openai.NotFoundError, match="models: m, team/large v2") as missing:
            await client.models.retrieve("gone")

    assert [model.id for model in listed] == ["m", "team/large v2"]
    assert (found.id, found.object, found.owned_by) == ("team/large v2", "model", "modelyard")
    assert isinstance(found.created, int)
    assert missing.value.code == "not_found"


# --- many calls ----------------------------------------------------------------------------------


async def test_many_calls_share_one_connection(gateway: Rig) -> None:
    """Whole answers, streams and refusals. (The blocking client itself closes after a stream.)"""

    async def ask(client: openai.AsyncOpenAI, number: int) -> Any:
        create = client.chat.completions.with_raw_response.create
        if number % 3 == 2:
            with pytest.raises(openai.NotFoundError) as refused:
                await create(**ASKED | {"model": "gone"})
            response = refused.value.response
        elif number % 3:
            raw = await create(**ASKED, stream=True)
            response = raw.http_response
            assert len([chunk async for chunk in raw.parse()]) > 12
        else:
            response = (await create(**ASKED)).http_response
        return response.extensions["network_stream"].get_extra_info("client_addr")

    async with awaiting(gateway) as client:
        ports = {await ask(client, number) for number in range(24)}

    assert len(ports) == 1


async def test_twenty_calls_at_once_each_get_their_own_answer(
    gateway: Rig, engines: list[Engine]
) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> int:
        text = f"caller {number} [[fake: tokens={20 + number}]]"
        question: Any = {"model": "m", "messages": [{"role": "user", "content": text}]}
        if number % 2:
            answer = await client.chat.completions.create(**question)
            given = answer.choices[0].message.content or ""
        else:
            stream = await client.chat.completions.create(**question, stream=True)
            given = text_of([chunk async for chunk in stream])
        check = check_answer(given, prompt=text)
        assert check.complete, check.errors
        return check.tokens

    async with awaiting(gateway) as client:
        tokens = await asyncio.gather(*(one(client, number) for number in range(20)))

    assert tokens == list(range(20, 40))
    assert sum([(await engine.state())["completed"] for engine in engines]) == 20
    await gateway.until_at_rest()
