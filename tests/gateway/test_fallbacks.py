"""Another model's answer (G26), and requests that are too long for their model's context (G26)."""

from typing import Any

import httpx
import pytest
from tests.gateway.raw_replica import Client, replica, whole
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually

NOBODY = "http://127.0.0.1:9"


def config(first: str, second: str, **settings: Any) -> dict[str, Any]:
    model = {"name": "m", "upstreams": [{"url": first}], "fallbacks": ["n"],
             "retries": {"max_attempts": 1}, "breaking": {"failures": 100}}  # fmt: skip
    return {"models": [model | settings, {"name": "n", "upstreams": [{"url": second}]}]}


async def ask(rig: Rig, text: str = "x", **fields: Any) -> httpx.Response:
    return await rig.client.post("/v1/chat/completions", json=chat(text, **fields))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["status=500", "refuse", "truncate_after=0", "status=429"])
async def test_when_a_model_fails_its_fallback_answers_and_is_named(
    start_alone: StartRig, engines: list[Engine], fault: str, stream: bool
) -> None:
    rig = await start_alone(config(engines[0].url, engines[1].url))
    await engines[0].fault(fault)
    reply = await ask(rig, stream=stream)
    assert reply.status_code == 200
    assert reply.headers["x-modelyard-model"] == "n"
    assert reply.headers["x-modelyard-attempts"] == "2"
    assert '"model":"n"' in reply.text, "the engine was asked by the name that it knows"
    (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert record.model == "n"
    assert [attempt.outcome for attempt in record.attempts][-1] == "completed"


async def test_a_refusal_is_an_answer_and_no_fallback_is_asked(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(engines[0].url, engines[1].url))
    assert (await ask(rig, "[[fake: status=400]]")).status_code == 400
    assert (await engines[1].state())["seen"] == 0


async def test_after_the_first_byte_there_is_no_other_model(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    """Promise G5."""
    rig = await start_alone(config(engines[0].url, engines[1].url))
    await engines[0].fault("truncate_after=3")
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(rig, stream=True)
    assert (await engines[1].state())["seen"] == 0


async def test_without_any_replica_the_fallback_answers_and_the_first_error_is_told_when_all_fail(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(config(NOBODY, engines[1].url))
    assert (await ask(rig)).headers["x-modelyard-model"] == "n"
    await engines[1].fault("status=503")
    reply = await ask(rig)
    assert reply.status_code == 502
    assert "no connection to the replica" in reply.json()["error"]["message"]


async def test_a_key_is_never_led_to_a_model_that_it_may_not_ask(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    key = {"id": "k", "secret_env": "K", "models": ["m"]}
    rig = await start_alone(config(NOBODY, engines[1].url) | {"keys": [key]}, {"K": "sk-k"})
    reply = await rig.client.post("/v1/chat/completions", json=chat("x"),
                                  headers={"authorization": "Bearer sk-k"})  # fmt: skip
    assert reply.status_code == 502
    assert (await engines[1].state())["seen"] == 0


async def test_the_fallbacks_limits_hold_and_the_first_models_are_given_back(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    limited = config(NOBODY, engines[1].url)
    limited["models"][0]["limits"] = {"requests_per_min": 10}
    limited["models"][1]["limits"] = {"requests_per_min": 2}
    rig = await start_alone(limited)
    codes = [(await ask(rig)).status_code for _ in range(3)]
    assert codes == [200, 200, 502]
    limits = (await rig.admin("/admin/limits"))["limits"]
    used = {limit["subject"]: limit["used"] for limit in limits}
    assert used == {"m": 0, "n": 2}


# --- the context ---------------------------------------------------------------------------------


def bounded(url: str, policy: str, *, context: int = 100, tokenizer: str = "content") -> Any:
    return {"models": [{"name": "m", "upstreams": [{"url": url}], "context_length": context,
                        "context_overflow": policy, "tokenizer": tokenizer}]}  # fmt: skip


LONG = "word " * 60
"""75 tokens as the fake engine counts: bytes / 4."""


@pytest.mark.parametrize("tokenizer", ["content", "messages"])
async def test_too_long_a_request_is_refused_with_the_numbers(
    start_alone: StartRig, engines: list[Engine], tokenizer: str
) -> None:
    rig = await start_alone(bounded(engines[0].url, "reject", tokenizer=tokenizer))
    assert (await ask(rig, LONG, max_tokens=20)).status_code == 200
    reply = await ask(rig, LONG, max_tokens=40)
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert "100 tokens" in error["message"]
    assert "40 of the answer" in error["message"]
    assert (await engines[0].state())["seen"] == 1


@pytest.mark.parametrize("tokenizer", ["content", "messages", "none"])
async def test_an_answer_can_be_clamped(
    start_alone: StartRig, engines: list[Engine], tokenizer: str
) -> None:
    rig = await start_alone(bounded(engines[0].url, "clamp", tokenizer=tokenizer))
    text = LONG if tokenizer != "none" else LONG[:150]
    reply = await ask(rig, f"[[fake: tokens=90]] {text}", max_tokens=90)
    assert reply.status_code == 200
    assert "clamped to" in reply.headers["x-modelyard-context"]
    made = int(reply.headers["x-modelyard-context"].rsplit(" ", 1)[1])
    assert reply.json()["usage"]["completion_tokens"] == made < 50
    assert "x-modelyard-context" not in (await ask(rig, "short", max_tokens=20)).headers


async def test_the_oldest_turns_can_be_left_out(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(bounded(engines[0].url, "truncate_oldest"))
    turn = "word " * 20
    messages = [{"role": "system", "content": "You are brief."}]
    for number in range(6):
        messages += [{"role": "user", "content": f"{number} {turn}"},
                     {"role": "assistant", "content": turn}]  # fmt: skip
    messages.append({"role": "user", "content": "the last question"})
    reply = await rig.client.post(
        "/v1/chat/completions", json={"model": "m", "messages": messages, "max_tokens": 20}
    )
    assert reply.status_code == 200
    assert reply.json()["usage"]["prompt_tokens"] <= 80
    left_out = int(reply.headers["x-modelyard-context"].split()[2])
    assert 8 <= left_out <= 12
    assert left_out % 2 == 0
    state = await engines[0].state()
    assert state["log"][-1]["prompt"] == "the last question"
    single = await ask(rig, LONG + LONG, max_tokens=20)
    assert single.status_code == 400  # there is nothing that could be left out


async def test_without_a_tokenizer_nothing_is_refused_on_a_guess(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig = await start_alone(bounded(engines[0].url, "reject", tokenizer="none"))
    assert (await ask(rig, LONG, max_tokens=40)).status_code == 200
    assert (await engines[0].state())["seen"] == 1


async def test_a_tokenizer_that_fails_costs_no_request(start_alone: StartRig) -> None:
    async def speak(client: Client) -> None:
        while True:
            body = await client.request()
            if b'"content":' in body and b"model" not in body:
                await client.say(whole(b"no", status=b"500 No"))
            else:
                await client.say(whole(b'{"choices":[{"message":{"content":"a"}}]}'))

    async with replica(speak) as url:
        rig = await start_alone(bounded(url, "reject"))
        assert (await ask(rig, LONG, max_tokens=40)).status_code == 200
