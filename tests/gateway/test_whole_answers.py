"""Whole answers asked for as a stream: no difference but that a leaving is seen at once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.engines.llamacpp_replica import Worker, worker
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route

from modelyard.core.routes import Policy, Timeouts
from modelyard.engines.fake_server.answers import check_answer
from modelyard.forms.conversion import convert
from modelyard.gateway.calls import PATHS

YARDLING = Path(__file__).parents[2] / "src" / "modelyard" / "demo" / "yardling" / "1"


@pytest.fixture
async def gathering(start_rig: StartRig, engines: list[Engine]) -> Rig:
    """A gateway whose engines see only of streams that a client left."""
    rig: Rig = await start_rig(model_route([e.url for e in engines], ask_as_stream=True))
    return rig


def _comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from request to request, and without what is null."""
    for choice in answer["choices"]:
        choice.get("message", {}).pop("refusal", None)
    return {key: value for key, value in answer.items() if key not in ("id", "created")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("same", max_tokens=9)),
        ("/v1/chat/completions", chat("same", max_tokens=4, n=2)),
        ("/v1/completions", {"model": "m", "prompt": "same", "max_tokens": 5}),
    ],
)
async def test_the_answer_is_the_one_that_the_engine_gives_whole(
    gathering: Rig, engines: list[Engine], path: str, body: dict[str, object]
) -> None:
    async with httpx.AsyncClient(base_url=engines[0].url, trust_env=False) as client:
        whole = (await client.post(path, json=body)).json()

    reply = await gathering.client.post(path, json=body)

    assert reply.headers["content-type"] == "application/json"
    assert _comparable(reply.json()) == _comparable(whole)
    (record,) = await gathering.records(1)
    assert not record.stream
    assert record.completion_tokens == whole["usage"]["completion_tokens"]


async def test_an_answer_cut_short_is_asked_of_another_replica(
    gathering: Rig, engines: list[Engine]
) -> None:
    """Nothing was sent, so even in mid-answer another replica can take over (promise G5)."""
    await engines[0].fault("truncate_after=5")

    replies = [
        await gathering.client.post("/v1/chat/completions", json=chat("x", max_tokens=9))
        for _ in range(2)
    ]

    for reply in replies:
        assert reply.status_code == 200
        content = reply.json()["choices"][0]["message"]["content"]
        assert check_answer(content, prompt="x").tokens == 9
    assert sorted(reply.headers["x-modelyard-attempts"] for reply in replies) == ["1", "2"]


async def test_an_engines_refusal_is_passed_on(gathering: Rig, engines: list[Engine]) -> None:
    for engine in engines:
        await engine.fault("status=400")

    reply = await gathering.client.post("/v1/chat/completions", json=chat("x"))

    assert reply.status_code == 400


async def test_the_tokens_of_a_client_that_left_are_counted(
    gathering: Rig, engines: list[Engine]
) -> None:
    """Promise G2, for answers that are not streamed."""
    asking = asyncio.create_task(
        gathering.client.post("/v1/chat/completions", json=chat("x", max_tokens=9999))
    )
    await eventually(lambda: gathering.metric("modelyard_requests_in_flight"), lambda n: n == 1)
    await asyncio.wait({asking}, timeout=0.2)
    asking.cancel()

    (record,) = await gathering.records(1)
    assert (record.outcome, record.stream, record.tokens_estimated) == ("cancelled", False, True)
    assert record.completion_tokens
    for engine in engines:
        await engine.until_idle()


async def test_a_long_answer_is_no_late_first_token(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    """Promise G6: of an answer that is not streamed, the first byte comes with the last."""
    policy = Policy(timeouts=Timeouts(first_token_s=0.1))
    rig = await start_rig(model_route([engines[0].url], policy=policy))

    reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=60))

    assert reply.status_code == 200
    assert reply.elapsed.total_seconds() > 0.1


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A real llama.cpp worker with yardling."""
    model = tmp_path_factory.mktemp("model") / "yardling.gguf"
    convert(YARDLING, model, name="yardling")
    with worker(model, parallel=2) as running:
        yield running


ENDLESS = {"max_tokens": 900, "ignore_eos": True, "temperature": 0}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat("Hello", **ENDLESS),
    "/v1/completions": {"model": "m", "prompt": "Hello", **ENDLESS},
    "/v1/responses": {"model": "m", "input": "Hello", "max_output_tokens": 900, **ENDLESS},
    "/v1/messages": chat("Tell me all you know.", **ENDLESS),
}


@pytest.mark.parametrize("path", sorted(ASKED))
async def test_llamacpp_frees_the_slot_of_a_client_that_left_beside_a_running_stream(
    start_rig: StartRig, replica: Worker, path: str
) -> None:
    """Promise G1 on the default engine, whose slots are seen idle within a second."""
    route = model_route([f"http://127.0.0.1:{replica.port}"], ask_as_stream=True)
    every = msgspec.structs.replace(route.slots[0], operations=tuple(PATHS.values()))
    rig = await start_rig(msgspec.structs.replace(route, slots=(every,)))

    async def post(path: str, body: dict[str, Any]) -> None:
        async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=30) as client:
            await client.post(path, json=body)

    async def keep_streaming() -> None:
        while True:
            await post("/v1/chat/completions", chat("Hi", stream=True, **ENDLESS))

    async def busy() -> int:
        return await asyncio.to_thread(replica.busy)

    streaming = asyncio.create_task(keep_streaming())
    await eventually(busy, lambda slots: slots == 1)
    left = 0
    for _ in range(20):
        leaving = asyncio.create_task(post(path, ASKED[path]))
        seen = 0
        while seen < 2 and not leaving.done():
            seen = await busy()
        leaving.cancel()
        await asyncio.wait({leaving})
        await eventually(busy, lambda slots: slots <= 1, within_s=1.0)
        left += seen == 2
    streaming.cancel()
    await asyncio.wait({streaming})
    await eventually(busy, lambda slots: slots == 0, within_s=1.0)
    assert left > 0
    await rig.until_at_rest()
