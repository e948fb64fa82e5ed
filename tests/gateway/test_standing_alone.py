"""The stand-alone gateway as a process: reloading, TLS, addresses, and what a kill leaves."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.certificates import make_certificate
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually

TLS = {"tls": {"cert_file": "server.crt", "key_file": "server.key"}}


class Alone:
    """A process, its configuration file and what it says on stderr."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.log = folder / "log"

    @property
    def url(self) -> str:
        record = self.folder / "state" / "run" / "gateway.json"
        return str(json.loads(record.read_text())["url"]) if record.exists() else ""

    def said(self) -> str:
        return self.log.read_text()

    async def ready(self) -> "Alone":
        def started() -> bool:
            record = self.folder / "state" / "run" / "gateway.json"
            return record.exists() and json.loads(record.read_text())["pid"] == self.process.pid

        await eventually(started, lambda yes: yes or self.process.poll() is not None, 20)
        assert self.process.poll() is None, self.said()
        return self


def write(folder: Path, config: dict[str, Any]) -> Path:
    file = folder / "gateway.yaml"
    partial = folder / "gateway.yaml.part"
    partial.write_text(json.dumps({"listen": "127.0.0.1:0", "state_dir": "state"} | config))
    partial.rename(file)
    return file


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Any]:
    """Starts gateway processes; all are ended."""
    running: list[subprocess.Popen[str]] = []

    def start(config: dict[str, Any], *flags: str, **environment: str) -> Alone:
        file = write(tmp_path, config)
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "modelyard.gateway.main", "--home", str(tmp_path / "home"),
                 "--config", str(file), *flags],
                stderr=log, text=True, env={**os.environ, **environment},
            )  # fmt: skip
        running.append(process)
        return Alone(process, tmp_path)

    yield start
    for process in running:
        process.kill()
        process.wait()


def models(engine: Engine, *names: str, **more: Any) -> dict[str, Any]:
    return {"models": [{"name": name, "upstreams": [{"url": engine.url}]} | more for name in names]}


async def names_of(url: str, **options: Any) -> list[str]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, **options) as client:
        return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def health(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        found: dict[str, Any] = (await client.get("/health")).json()
        return found


@pytest.mark.parametrize("how", ["by itself", "SIGHUP"])
async def test_a_changed_file_is_taken_up_and_a_bad_one_is_not(
    spawn: Any, tmp_path: Path, engines: list[Engine], how: str
) -> None:
    alone: Alone = await spawn(models(engines[0], "a")).ready()

    def tell() -> None:
        if how == "SIGHUP":
            alone.process.send_signal(signal.SIGHUP)

    assert await names_of(alone.url) == ["a"]
    write(tmp_path, models(engines[0], "a", "b"))
    tell()
    await eventually(lambda: names_of(alone.url), lambda names: names == ["a", "b"])

    write(tmp_path, models(engines[0], "c") | {"drian_s": 3})
    tell()
    await eventually(lambda: health(alone.url), lambda told: told["file"] == "refused")
    assert await names_of(alone.url) == ["a", "b"]
    await eventually(alone.said, lambda said: "drian_s: no such setting; did you mean" in said)
    assert alone.said().count("drian_s: no such setting") == 1  # said once, not every second

    write(tmp_path, models(engines[0], "c"))
    tell()
    await eventually(lambda: names_of(alone.url), lambda names: names == ["c"])
    assert (await health(alone.url))["file"] == "applied"


async def test_requests_in_flight_live_through_a_reload(
    spawn: Any, tmp_path: Path, engines: list[Engine]
) -> None:
    alone: Alone = await spawn(models(engines[0], "m")).ready()
    async with httpx.AsyncClient(base_url=alone.url, trust_env=False, timeout=20) as client:
        asked = asyncio.create_task(
            client.post("/v1/chat/completions", json=chat("[[fake: tokens=100]]", max_tokens=100))
        )
        await eventually(engines[0].state, lambda state: state["running"] == 1)
        write(tmp_path, models(engines[1], "n"))
        alone.process.send_signal(signal.SIGHUP)
        await eventually(lambda: names_of(alone.url), lambda names: names == ["n"])
        assert (await asked).json()["usage"]["completion_tokens"] == 100


@pytest.mark.parametrize(
    ("setting", "found", "next_step"),
    [
        ({"listn": "x"}, "listn: no such setting", "did you mean listen?"),
        ({"tenants": [{"name": "t", "limits": {"cost_per_day": 5}}]}, "needs prices",
         "remove that limit"),
    ],
)  # fmt: skip
async def test_a_file_that_can_not_be_used_starts_nothing(
    spawn: Any, engines: list[Engine], setting: dict[str, Any], found: str, next_step: str
) -> None:
    """Promise G14: a limit that can't be enforced, too."""
    alone: Alone = spawn(models(engines[0], "m") | setting)
    assert alone.process.wait(20) == 2
    said = alone.said()
    assert found in said
    assert next_step in said
    assert "Traceback" not in said


async def test_another_address_than_loopback_needs_a_key(spawn: Any, engines: list[Engine]) -> None:
    alone: Alone = spawn(models(engines[0], "m") | {"listen": "0.0.0.0:0"})
    assert alone.process.wait(20) == 2
    assert "no API key exists" in alone.said()
    keyed = models(engines[0], "m") | {"listen": "0.0.0.0:0",
                                       "keys": [{"id": "k", "secret_env": "K"}]}  # fmt: skip
    again: Alone = await spawn(keyed, K="sk-k").ready()
    url = again.url.replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/health")).status_code == 200


async def test_a_second_gateway_that_would_count_the_same_limits_does_not_start(
    spawn: Any, engines: list[Engine]
) -> None:
    """Promise G14: together they would let in twice as much."""
    limited = models(engines[0], "m", limits={"requests_per_min": 5})
    await spawn(limited).ready()
    second: Alone = spawn(limited)
    assert second.process.wait(20) == 1
    assert "another gateway counts in" in second.said()


async def test_a_killed_gateway_forgets_nothing_that_it_let_in(
    spawn: Any, engines: list[Engine]
) -> None:
    """Promise G13: SIGKILL at any moment; the counters are the kernel's."""
    limited = models(engines[0], "m", limits={"requests_per_min": 40, "tokens_per_month": 10_000})
    admitted, short = 0, chat("x", max_tokens=16)
    for _ in range(3):
        alone: Alone = await spawn(limited).ready()
        async with httpx.AsyncClient(base_url=alone.url, trust_env=False, timeout=5) as client:
            asking = [
                asyncio.create_task(client.post("/v1/chat/completions", json=short))
                for _ in range(15)
            ]
            done, rest = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            os.kill(alone.process.pid, signal.SIGKILL)
            alone.process.wait()
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert done or rest
        codes = [r.status_code for r in results if isinstance(r, httpx.Response)]
        admitted += codes.count(200)
    seen = (await engines[0].state())["seen"]
    last: Alone = await spawn(limited).ready()
    async with httpx.AsyncClient(base_url=last.url, trust_env=False) as client:
        token = (last.folder / "state" / "secrets" / "gateway.token").read_text().strip()
        limits = (
            await client.get("/admin/limits", headers={"authorization": f"Bearer {token}"})
        ).json()["limits"]
        used = {limit["kind"]: limit["used"] for limit in limits}
        assert admitted <= seen <= used["requests_per_min"] <= 45
        assert used["tokens_per_month"] >= 17 * admitted
        codes = [
            (await client.post("/v1/chat/completions", json=short)).status_code
            for _ in range(41 - used["requests_per_min"])
        ]
    assert codes[-1] == 429
    assert set(codes[:-1]) <= {200}


async def test_sigterm_drains_and_ends_with_0(spawn: Any, engines: list[Engine]) -> None:
    alone: Alone = await spawn(models(engines[0], "m")).ready()
    async with httpx.AsyncClient(base_url=alone.url, trust_env=False, timeout=20) as client:
        asked = asyncio.create_task(
            client.post("/v1/chat/completions", json=chat("[[fake: tokens=50]]", max_tokens=50))
        )
        await eventually(engines[0].state, lambda state: state["running"] == 1)
        alone.process.send_signal(signal.SIGTERM)
        assert (await asked).status_code == 200
    assert await asyncio.to_thread(alone.process.wait, 10) == 0
    assert "drained: 1 requests finished, 0 cut" in alone.said()
    assert not (alone.folder / "state" / "run" / "gateway.json").exists()
    (line,) = (alone.folder / "state" / "gateway" / "requests.jsonl").read_text().splitlines()
    assert json.loads(line)["completion_tokens"] == 50


# --- TLS -----------------------------------------------------------------------------------------


async def test_clients_see_the_certificate_and_a_new_one_without_a_restart(
    spawn: Any, tmp_path: Path, engines: list[Engine]
) -> None:
    first = make_certificate(tmp_path, "server", serial=1)
    config = models(engines[0], "m") | {
        "tls": {"cert_file": "server.crt", "key_file": "server.key"}
    }
    alone: Alone = await spawn(config).ready()
    assert alone.url.startswith("https://")
    async with httpx.AsyncClient(
        base_url=alone.url, trust_env=False, verify=ssl.create_default_context(cafile=first)
    ) as client:
        reply = await client.post("/v1/chat/completions", json=chat("x"))
        assert reply.status_code == 200
        async with client.stream(
            "POST", "/v1/chat/completions", json=chat("x", stream=True)
        ) as stream:
            assert (await stream.aread()).endswith(b"data: [DONE]\n\n")
        bad = await client.post("/v1/chat/completions", content=b"{")
        assert bad.status_code == 400

        make_certificate(tmp_path, "server", serial=2)
        await eventually(lambda: serial_at(alone.url), lambda number: number == 2)
        assert (await client.get("/health")).status_code == 200  # the old connection lives

    (tmp_path / "server.key").write_text("no key")
    await eventually(alone.said, lambda said: "can't be used" in said)
    assert await serial_at(alone.url) == 2


async def serial_at(url: str) -> int:
    """Serial number of the certificate that a new connection sees."""
    from cryptography import x509

    host, port = url.removeprefix("https://").split(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_what_is_no_tls_costs_nothing_but_its_connection(
    spawn: Any, tmp_path: Path, engines: list[Engine]
) -> None:
    make_certificate(tmp_path, "server", serial=1)
    config = models(engines[0], "m") | {
        "tls": {"cert_file": "server.crt", "key_file": "server.key"}
    }
    alone: Alone = await spawn(config).ready()
    host, port = alone.url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    context = ssl.create_default_context(cafile=tmp_path / "server.crt")
    assert await names_of(alone.url, verify=context) == ["m"]
    assert "Traceback" not in alone.said()


async def test_a_certificate_without_its_key_starts_nothing(
    spawn: Any, tmp_path: Path, engines: list[Engine]
) -> None:
    make_certificate(tmp_path, "server", serial=1)
    make_certificate(tmp_path, "other", serial=2)
    config = models(engines[0], "m") | {"tls": {"cert_file": "server.crt", "key_file": "other.key"}}
    alone: Alone = spawn(config)
    assert alone.process.wait(20) == 2
    assert "can't be used" in alone.said()


@pytest.fixture
async def https_upstream(tmp_path: Path) -> AsyncIterator[str]:
    """An upstream over TLS that wants a key."""
    make_certificate(tmp_path, "upstream", serial=9)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "upstream.crt", tmp_path / "upstream.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            known = b"authorization: Bearer sk-vendor" in head
            body = b'{"choices":[{"message":{"content":"over tls"}}]}' if known else b"{}"
            status = b"200 OK" if known else b"401 Unauthorized"
            writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_upstreams_over_tls_are_checked_and_get_their_key(
    start_alone: StartRig, https_upstream: str, tmp_path: Path
) -> None:
    upstream = {"url": https_upstream, "api_key_env": "VENDOR"}
    config = {"models": [{"name": "m", "upstreams": [upstream]}]}
    ca = {"upstream_ca_file": str(tmp_path / "upstream.crt")}
    rig: Rig = await start_alone(config | ca, {"VENDOR": "sk-vendor"})
    reply = await rig.client.post("/v1/chat/completions", json=chat("x"))
    assert reply.json()["choices"][0]["message"]["content"] == "over tls"

    doubting: Rig = await start_alone(config, {"VENDOR": "sk-vendor"}, name="doubting")
    reply = await doubting.client.post("/v1/chat/completions", json=chat("x"))
    assert reply.status_code == 502  # a certificate that nobody vouches for
    assert "certificate" in reply.json()["error"]["message"]


async def test_the_log_of_requests_is_bounded(start_alone: StartRig, engines: list[Engine]) -> None:
    records = {"max_bytes": 3000, "keep": 2}
    rig: Rig = await start_alone(models(engines[0], "m") | {"records": records})
    for _ in range(6):
        for _ in range(2):
            await rig.client.post("/v1/chat/completions", json=chat("x"))
        rig.service._requests.flush()
    files = sorted(file.name for file in rig.home.gateway.glob("requests.jsonl*"))
    assert files == ["requests.jsonl", "requests.jsonl.1", "requests.jsonl.2"]
    assert all(file.stat().st_size <= 3000 for file in rig.home.gateway.glob("requests.jsonl*"))
    assert "x" not in [json.loads(line).get("prompt") for line in
                       (rig.home.gateway / "requests.jsonl").read_text().splitlines()]  # fmt: skip
