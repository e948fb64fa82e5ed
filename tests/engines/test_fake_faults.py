"""Every scripted fault as a client meets it, and what the engine says of it afterwards."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from modelyard.engines.fake_server.answers import check_answer
from modelyard.engines.fake_server.server import FakeServer
from modelyard.engines.fake_server.settings import Settings

DEADLINE_S = 10.0
CHAT = "/v1/chat/completions"
FAULTS = "/control/faults"


class Crashes(list[int]):
    """Stands for the process's end: the codes that it would have ended with."""


@asynccontextmanager
async def engine(**settings: Any) -> AsyncIterator[tuple[FakeServer, httpx.AsyncClient, Crashes]]:
    """A server on a free port, a client of it, and the crashes that it would have had."""
    crashes = Crashes()
    server = FakeServer(Settings(**settings), crash=crashes.append)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as client:
            yield server, client, crashes
    finally:
        await server.stop()


def asked(text: str, **parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **parameters}


async def post(client: httpx.AsyncClient, words: str, **parameters: Any) -> httpx.Response:
    return await client.post(CHAT, json=asked(f"[[fake: {words}]]", **parameters))


async def last_logged(client: httpx.AsyncClient) -> dict[str, Any]:
    entry: dict[str, Any] = (await client.get("/control/state")).json()["log"][-1]
    return entry


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def read_stream(
    client: httpx.AsyncClient, words: str, enough: int = 1_000_000
) -> tuple[str, str]:
    """The text of a stream up to its end, its break or `enough` tokens; and how it ended."""
    text, tokens = "", 0
    body = asked(f"[[fake: {words}]]", stream=True)
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return text, "done"
                with contextlib.suppress(ValueError):
                    delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                    text += delta.get("content", "")
                    tokens += bool(delta.get("content"))
                if tokens >= enough:
                    return text, "enough"
    except httpx.RemoteProtocolError:
        return text, "cut"
    return text, "ended"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_error_status_comes_in_openai_form(status: int) -> None:
    async with engine() as (_, client, _):
        response = await post(client, f"status={status}")
        assert response.status_code == status
        assert response.json()["error"]["message"] == f"scripted error {status}"
        assert response.headers.get("retry-after") == ("1" if status == 429 else None)
        logged = await last_logged(client)
        assert (logged["outcome"], logged["status"]) == ("rejected", status)


async def test_retry_after_is_what_the_script_says() -> None:
    async with engine() as (_, client, _):
        response = await post(client, "status=503 retry_after_s=7")
        assert response.headers["retry-after"] == "7"


async def test_refuse_resets_the_connection() -> None:
    async with engine() as (server, client, _):
        body = json.dumps(asked("[[fake: refuse]]")).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)))
        writer.write(body)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
        assert (await last_logged(client))["outcome"] == "broken"


@pytest.mark.parametrize("stream", [True, False])
async def test_hang_sends_nothing_and_holds_its_slot(stream: bool) -> None:
    async with engine() as (_, client, _):
        hanging = asyncio.create_task(post(client, "hang", stream=stream))

        async def runs() -> bool:
            return bool((await client.get("/control/state")).json()["running"])

        await until(runs)
        done, _ = await asyncio.wait({hanging}, timeout=0.05)
        assert not done
        hanging.cancel()

        async def free() -> bool:
            return not await runs()

        await until(free)
        assert (await last_logged(client))["outcome"] == "cancelled"


async def test_a_stalled_stream_stays_open_until_the_client_leaves() -> None:
    async with engine() as (_, client, _):
        text, _ = await read_stream(client, "tokens=9 stall_after=4", enough=4)
        check = check_answer(text)
        assert (check.tokens, check.complete, check.errors) == (4, False, ())

        async def left() -> bool:
            return bool((await last_logged(client))["outcome"] == "cancelled")

        await until(left)
        assert (await last_logged(client))["tokens"] == 4


@pytest.mark.parametrize("after", [0, 1, 5, 8])
async def test_a_truncated_stream_never_looks_whole(after: int) -> None:
    async with engine() as (_, client, _):
        text, end = await read_stream(client, f"tokens=8 truncate_after={after}")
        assert end == "cut"
        assert check_answer(text).tokens == after
        logged = await last_logged(client)
        assert (logged["outcome"], logged["tokens"]) == ("broken", after)


async def test_a_truncated_answer_is_shorter_than_it_promised() -> None:
    async with engine() as (server, _, _):
        body = json.dumps(asked("[[fake: tokens=8 truncate_after=3]]")).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)))
        writer.write(body)
        head, _, sent = (await asyncio.wait_for(reader.read(), DEADLINE_S)).partition(b"\r\n\r\n")
        promised = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        assert len(sent) < promised
        assert check_answer(sent.decode().partition('"content":"')[2]).tokens == 3
        writer.close()
        await writer.wait_closed()


async def test_a_crash_comes_after_the_tokens_that_were_asked_for() -> None:
    async with engine() as (_, client, crashes):
        reading = asyncio.create_task(read_stream(client, "tokens=9 crash_after=3 crash_code=7", 3))
        assert check_answer((await reading)[0]).tokens == 3

        async def crashed() -> bool:
            return crashes == [7]

        await until(crashed)


async def test_a_crash_at_once_answers_nothing() -> None:
    async with engine() as (_, client, crashes):
        crashing = asyncio.create_task(post(client, "crash"))

        async def crashed() -> bool:
            return crashes == [1]

        await until(crashed)
        crashing.cancel()


async def test_a_slow_first_token_comes_late_and_the_answer_is_whole() -> None:
    async with engine() as (_, client, _):
        begun = time.monotonic()
        text, end = await read_stream(client, "tokens=3 first_token_s=0.1")
        assert time.monotonic() - begun >= 0.095
        assert check_answer(text).complete
        assert end == "done"


async def test_garbage_is_html_or_an_invalid_chunk() -> None:
    async with engine() as (_, client, _):
        page = await post(client, "garbage=html")
        assert page.status_code == 200
        assert page.text.startswith("<html>")
        with pytest.raises(httpx.RemoteProtocolError):
            await post(client, "garbage=chunk")


async def test_the_answer_can_name_another_model_and_other_weights() -> None:
    async with engine(model="right", fingerprint="fp_right") as (_, client, _):
        answer = (await post(client, "model=wrong fingerprint=fp_wrong")).json()
        assert (answer["model"], answer["system_fingerprint"]) == ("wrong", "fp_wrong")


async def test_control_rules_apply_to_the_next_requests_and_override_directives() -> None:
    async with engine() as (_, client, _):
        rule = {"script": "status=503 retry_after_s=2", "times": 2}
        assert (await client.post(FAULTS, json=rule)).json()[0]["times"] == 2
        seen = [(await post(client, "status=500")).status_code for _ in range(3)]
        assert seen == [503, 503, 500]
        assert (await client.get(FAULTS)).json() == []


async def test_a_control_rule_can_fail_the_health_check() -> None:
    async with engine() as (_, client, _):
        await client.post(FAULTS, json={"script": "status=503", "path": "/health"})
        assert (await client.get("/health")).status_code == 503
        assert (await post(client, "tokens=1")).status_code == 200
        await client.delete(FAULTS)
        assert (await client.get("/health")).status_code == 200


async def test_connections_can_be_reset_as_they_come() -> None:
    async with engine() as (server, client, _):
        rule = {"script": "refuse", "path": "accept", "times": 2}
        await client.post(FAULTS, json=rule)  # its connection stays open
        outcomes = []
        for _ in range(3):
            async with httpx.AsyncClient(base_url=server.url) as fresh:
                try:
                    outcomes.append((await fresh.get("/health")).status_code)
                except httpx.TransportError:
                    outcomes.append(0)
        assert outcomes == [0, 0, 200]


async def test_reset_forgets_rules_counts_and_log() -> None:
    async with engine() as (_, client, _):
        await post(client, "tokens=2")
        await client.post(FAULTS, json={"script": "status=500"})
        await client.post("/control/reset")
        state = (await client.get("/control/state")).json()
        assert (state["seen"], state["completed"], state["generation_tokens"]) == (0, 0, 0)
        assert (state["log"], state["faults"]) == ([], [])


async def test_while_it_loads_health_and_requests_get_503() -> None:
    async with engine(slow_start_s=3600) as (_, client, _):
        for refused in (await client.get("/health"), await post(client, "tokens=1")):
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"


async def test_once_loaded_it_serves() -> None:
    async with engine(slow_start_s=0.05) as (_, client, _):

        async def healthy() -> bool:
            return (await client.get("/health")).status_code == 200

        await until(healthy)
        assert (await post(client, "tokens=1")).status_code == 200


async def test_a_refusing_slow_start_does_not_listen_while_it_loads() -> None:
    server = FakeServer(Settings(slow_start_s=3600, slow_start="refuse"))
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0)  # it is bound now
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    starting.cancel()
    await server.stop()


async def test_a_refusing_slow_start_listens_once_loaded() -> None:
    async with engine(slow_start_s=0.05, slow_start="refuse") as (_, client, _):
        assert (await client.get("/health")).status_code == 200
