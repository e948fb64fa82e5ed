"""The gateway before a real llama.cpp replica: every API, leaving, its own tokenizer."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engines.llamacpp_replica import Worker, worker
from tests.gateway.rig import Rig, StartRig, chat, eventually

from modelyard.forms.conversion import convert

YARDLING = Path(__file__).parents[2] / "src" / "modelyard" / "demo" / "yardling" / "1"
QUESTION = "What is 2+2?"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    gguf = tmp_path_factory.mktemp("gguf") / "yardling.gguf"
    convert(YARDLING, gguf, name="yardling")
    with worker(gguf, parallel=2) as started:
        yield started


def config(llama: Worker, **settings: Any) -> dict[str, Any]:
    upstream = {"url": f"http://127.0.0.1:{llama.port}", "model": "tiny"}
    model = {"name": "m", "upstreams": [upstream], "cancels_streams_only": True}
    return {"models": [model | settings]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(QUESTION, max_tokens=20, temperature=0)),
        ("/v1/completions", {"model": "m", "prompt": "2+2=", "max_tokens": 8, "temperature": 0}),
        ("/v1/responses", {"model": "m", "input": QUESTION, "max_output_tokens": 20}),
        ("/v1/messages", {"model": "m", "max_tokens": 20,
                          "messages": [{"role": "user", "content": QUESTION}]}),
    ],
    ids=["chat", "completions", "responses", "messages"],
)  # fmt: skip
async def test_every_api_answers_and_is_counted(
    start_alone: StartRig, llama: Worker, path: str, body: dict[str, Any], stream: bool
) -> None:
    rig: Rig = await start_alone(config(llama))
    reply = await rig.client.post(path, json=body | {"stream": stream})
    assert reply.status_code == 200, reply.text
    if "completions" not in path or "chat" in path:
        assert "4" in reply.text
    (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert record.outcome == "completed"
    assert record.prompt_tokens is not None
    assert record.prompt_tokens >= 4
    assert record.completion_tokens is not None
    assert 3 <= record.completion_tokens <= 20
    assert not record.tokens_estimated


# One that talks until it is told to stop: yardling ends by itself, so its end is ignored.
ENDLESS = {"max_tokens": 400, "ignore_eos": True}
TALKING = {
    "/v1/chat/completions": chat("Tell me all you know.", **ENDLESS),
    "/v1/completions": {"model": "m", "prompt": "All I know is", **ENDLESS},
    "/v1/responses": {"model": "m", "input": "Tell me all you know.", "max_output_tokens": 400,
                      "ignore_eos": True},
    "/v1/messages": chat("Tell me all you know.", **ENDLESS),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "shared"), [*((path, False) for path in TALKING), ("/v1/chat/completions", True)]
)
async def test_its_slots_are_idle_within_a_second_of_a_clients_leaving(
    start_alone: StartRig, llama: Worker, path: str, stream: bool, shared: bool
) -> None:
    """Promise G1, alone and as the only one in a shared flight; seen in the engine's `/slots`."""
    caching = {"caching": {"mode": "all", "single_flight": True}} if shared else {}
    rig: Rig = await start_alone(config(llama, **caching))
    body = TALKING[path] | {"stream": stream}

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=rig.url, trust_env=False, timeout=30) as client:
            await client.post(path, json=body)

    left = 0
    for _ in range(5):
        leaving = asyncio.create_task(ask())
        busy = False
        while not busy and not leaving.done():
            busy = await asyncio.to_thread(llama.busy) > 0
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        await eventually(lambda: asyncio.to_thread(llama.busy), lambda slots: slots == 0, 1.0)
        left += busy
    assert left > 0
    await rig.until_at_rest()
    records = await eventually(rig.log, lambda found: len(found) == 5)
    outcomes = [record.outcome for record in records]
    assert set(outcomes) <= {"cancelled", "completed"}
    # An answer may be over between the look at the slots and the leaving.
    assert 0 < outcomes.count("cancelled") <= left


async def test_its_own_tokenizer_counts(start_alone: StartRig, llama: Worker) -> None:
    bounded = config(llama, context_length=40, tokenizer="content", context_overflow="reject")
    rig: Rig = await start_alone(bounded)
    assert (await rig.client.post(
        "/v1/chat/completions", json=chat(QUESTION, max_tokens=20))).status_code == 200  # fmt: skip
    reply = await rig.client.post("/v1/chat/completions", json=chat(QUESTION, max_tokens=30))
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert "15 of the prompt and 30 of the answer" in error["message"]  # as its usage counts it


async def test_a_cached_answer_is_the_one_that_it_gave(
    start_alone: StartRig, llama: Worker
) -> None:
    rig: Rig = await start_alone(config(llama, caching={"mode": "deterministic"}))
    body = chat(QUESTION, max_tokens=20, temperature=0)
    first = await rig.client.post("/v1/chat/completions", json=body)
    again = await rig.client.post("/v1/chat/completions", json=body)
    streamed = await rig.client.post("/v1/chat/completions", json=body | {"stream": True})
    assert again.headers["x-modelyard-cache"] == "hit"
    assert again.content == first.content
    deltas = [json.loads(line[6:]) for line in streamed.text.splitlines() if line[:7] == "data: {"]
    text = "".join(c["delta"].get("content") or "" for event in deltas for c in event["choices"])
    assert text == first.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


@pytest.mark.parametrize(
    "said",
    [{}, {"max_tokens": -1}, {"max_tokens": 1, "n_predict": 50}, {"n_predict": -1},
     {"max_tokens": 1, "max_completion_tokens": 50}],
)  # fmt: skip
async def test_no_bound_of_its_own_lets_an_answer_grow_over_the_policys(
    start_alone: StartRig, llama: Worker, said: dict[str, int]
) -> None:
    """Promise G13: it heeds `n_predict` before max_tokens, and takes -1 for no bound."""
    rig: Rig = await start_alone(config(llama, max_completion_tokens=4))
    body = chat(QUESTION) | {"ignore_eos": True} | said

    reply = await rig.client.post("/v1/chat/completions", json=body)

    assert reply.status_code == 200, reply.text
    assert 1 <= reply.json()["usage"]["completion_tokens"] <= 4
