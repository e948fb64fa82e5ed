"""SIGTERM (promise G21): finish, cut with an error, exit 0; of the pages only `/ready` fails."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from tests.gateway.rig import (
    NOWHERE,
    Engine,
    Rig,
    StartRig,
    chat,
    eventually,
    model_route,
    write_snapshot,
)

from modelyard.core.home import Home


async def test_requests_in_flight_finish_and_nothing_new_comes_in(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]))
    kept = httpx.AsyncClient(base_url=rig.url, trust_env=False)
    asking = asyncio.create_task(
        rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=60, stream=True))
    )
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda count: count == 1)
    async with kept.stream("GET", "/health") as reply:
        await reply.aread()
    rig.stop.set()

    answer = await asking

    assert answer.text.endswith("data: [DONE]\n\n")
    with pytest.raises(httpx.TransportError):
        await kept.get("/health")
    await kept.aclose()


async def test_draining_fails_ready_only(start_rig: StartRig, engines: list[Engine]) -> None:
    """Promise G20."""
    rig: Rig = await start_rig(model_route([engines[0].url]))
    host, port = rig.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(chat("x", max_tokens=40)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
        + b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    await eventually(lambda: len(rig.service.accounting.open), lambda count: count == 1)
    rig.service.standing.draining = True
    answer = b""
    while answer.count(b"HTTP/1.1") < 2:
        answer += await reader.read(65536)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    rest = await reader.read()

    assert b"HTTP/1.1 503 " in answer
    assert b"HTTP/1.1 200 OK" in rest
    assert b'"draining":true' in rest
    writer.close()


async def test_what_does_not_finish_in_time_is_cut_with_an_error(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_rig(model_route([engines[0].url]), drain_s=0.2)
    hanging = asyncio.create_task(
        rig.client.post("/v1/chat/completions", json=chat("[[fake: hang]]"))
    )
    received = bytearray()

    async def read_stream() -> None:
        body = chat("[[fake: tokens=9999]]", max_tokens=9999, stream=True)
        async with rig.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for part in reply.aiter_raw():
                received.extend(part)

    streaming = asyncio.create_task(read_stream())
    await eventually(lambda: len(received), lambda count: count > 0)
    await eventually(lambda: len(rig.service.accounting.open), lambda count: count == 2)
    rig.stop.set()

    assert (await hanging).status_code == 503
    with pytest.raises(httpx.RemoteProtocolError):
        await streaming
    assert b'data: {"error":' in received
    assert b"[DONE]" not in received
    await engines[0].until_idle()


def test_the_process_ends_with_0_and_says_what_it_did(home: Home, free_port: int) -> None:
    write_snapshot(home, model_route([NOWHERE]))
    with subprocess.Popen(
        [sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
         "--listen", f"127.0.0.1:{free_port}", "--controller", NOWHERE],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "listening on" in line:
                break
        resident_kib = _resident_kib(process.pid)
        process.send_signal(signal.SIGTERM)
        seen += list(process.stderr)
        assert process.wait(10) == 0
    assert "drained: 0 requests finished, 0 cut" in "".join(seen)
    assert resident_kib < 80 * 1024
    assert not (home.run / "gateway.json").exists()


def _resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:  # noqa: PTH123 - not a real file
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("0.0.0.0:8000", "loopback"),
        ("127.0.0.1:x", "loopback"),
        ("127.0.0.1:99999", "loopback"),
        ("192.0.2.1:1", "loopback"),
    ],
)
def test_an_address_that_is_not_loopback_is_refused(home: Home, listen: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
         "--listen", listen], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_taken_port_is_named(rig: Rig, home: Home) -> None:
    port = rig.url.rsplit(":", 1)[1]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
         "--listen", f"127.0.0.1:{port}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert port in done.stderr
    assert "--gateway-port" in done.stderr


def test_a_home_that_can_not_be_written_is_said_in_one_line(home: Home, free_port: int) -> None:
    home.gateway.parent.mkdir(parents=True, exist_ok=True)
    home.gateway.write_text("not a folder")
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
         "--listen", f"127.0.0.1:{free_port}"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(home.gateway) in done.stderr
    assert "Traceback" not in done.stderr


async def test_what_came_in_whole_while_draining_is_counted_too(
    start_rig: StartRig, engines: list[Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """Promise G21: a request that was half read at SIGTERM is served, and the numbers add up."""
    caplog.set_level("INFO")
    rig: Rig = await start_rig(model_route([engines[0].url]))
    host, port = rig.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(chat("x", max_tokens=1)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body[:10])
    connection = await eventually(
        lambda: next(iter(rig.service.gateway.connections), None),
        lambda found: found is not None and found._reading,
    )
    rig.stop.set()
    await eventually(lambda: connection.closing_after, bool)
    writer.write(body[10:])

    answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    await eventually(lambda: "drained:" in caplog.text, bool)
    assert "drained: 1 requests finished, 0 cut" in caplog.text
    writer.close()
