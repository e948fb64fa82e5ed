"""The controller's own metrics and those of its engines, from a real one."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.engines.llamacpp_replica import free_port

from modelyard.api.messages import DeployRequest
from modelyard.client import Client
from modelyard.control import scraping
from modelyard.control.scraping import EngineScraper
from modelyard.core.deployments import Replica
from modelyard.core.metrics.catalogue import BY_SAMPLE
from modelyard.core.metrics.vocabularies import VLLM
from modelyard.core.replicas import ReplicaState
from modelyard.observe.prometheus import Exposition

from .conftest import Controller, until
from .test_controller import FAKE, QUICK, bring_up, ready

Samples = dict[str, list[tuple[dict[str, str], float]]]
Engine = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def parse(text: str) -> Samples:
    """Samples by name, read by Prometheus's own client."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def scrape(controller: Controller, client: Client) -> Samples:
    token = controller.home.metrics_token.read_text().strip()
    answer = httpx.get(
        f"{client.url}/metrics", headers={"authorization": f"Bearer {token}"}, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parse(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples with those labels; -1 when there are none."""
    found = [each for given, each in samples.get(name, ()) if labels.items() <= given.items()]
    return sum(found) if found else -1.0


def test_it_needs_the_token_for_metrics_which_opens_nothing_else(controller: Controller) -> None:
    with controller.start() as client:
        token = controller.home.metrics_token.read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        assert controller.home.metrics_token.stat().st_mode & 0o777 == 0o600
        refused = httpx.get(f"{client.url}/metrics", trust_env=False)
        assert refused.status_code == 401
        assert "metrics.token" in refused.json()["error"]["next_step"]
        assert httpx.get(f"{client.url}/metrics", headers=headers, trust_env=False).is_success
        other = httpx.get(f"{client.url}/api/status", headers=headers, trust_env=False)
        assert other.status_code == 401


def test_deployments_replicas_rollouts_and_the_state_are_told(controller: Controller) -> None:
    with controller.start() as client:
        view = bring_up(client)
        until(
            lambda: value(scrape(controller, client), "modelyard_live_replicas_ready") == 1,
            "the ready replica is told",
        )
        told = scrape(controller, client)
        assert set(told) <= set(BY_SAMPLE)
        assert value(told, "modelyard_deployments") == 1
        assert value(told, "modelyard_live_replicas_wanted", model=view.name) == 1
        place = {"model": view.name, "version": "yardling:1", "slot": "blue", "state": "ready"}
        assert value(told, "modelyard_replicas", **place) == 1
        assert value(told, "modelyard_replica_failures_total", model=view.name) == 0
        assert value(told, "modelyard_rollouts_total", outcome="undone") == 0
        assert value(told, "modelyard_store_write_seconds_count", call="write") > 0
        assert value(told, "modelyard_routes_version") >= 1
        until(
            lambda: value(scrape(controller, client), "modelyard_rollouts_total") == 1,
            "the rollout that is over is counted",
        )
        [replica] = ready(client)
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGKILL)
        until(
            lambda: value(scrape(controller, client), "modelyard_replica_failures_total") == 1,
            "the killed replica is counted",
        )
        client.undeploy(view.name)
        until(
            lambda: "modelyard_replica_failures_total" not in scrape(controller, client),
            "what was removed is told no more",
        )


@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
def test_a_real_engines_metrics_are_told_in_our_words(controller: Controller, engine: str) -> None:
    asked = FAKE if engine == "fake" else DeployRequest(ref="yardling:1", plan=QUICK)
    with controller.start() as client:
        deployed = client.deploy(asked)
        client.wait_until_live(deployed.name, deployed.generation, 60.0)
        [replica] = ready(client)
        body = {"model": deployed.name, "messages": [{"role": "user", "content": "Hi"}]}
        httpx.post(f"{replica.url}/v1/chat/completions", json=body, trust_env=False)
        labels = {"model": deployed.name, "version": "yardling:1", "slot": "blue"}

        def tokens() -> float:
            told = scrape(controller, client)
            return value(told, "modelyard_engine_completion_tokens_total", **labels)

        until(lambda: tokens() >= 2, "its tokens are told")
        told = scrape(controller, client)
        assert value(told, "modelyard_engine_up", engine=engine, replica=replica.id) == 1
        assert value(told, "modelyard_engine_metrics_unmapped", engine=engine) == 0
        assert value(told, "modelyard_engine_requests_running", **labels) == 0
        assert value(told, "modelyard_engine_prompt_tokens_total", **labels) > 0


# --- engines that misbehave ----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"vllm:num_requests_running 1\n" * 1000)
            await writer.drain()
    writer.close()


def page(body: bytes, more: bytes = b"") -> Engine:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        length = b"content-length: %d\r\n" % len(body)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + length + more + b"\r\n" + body)
        await writer.drain()
        writer.close()

    return answer


GOOD = page(b'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{a="b"} 7\n')


def replica(name: str, url: str) -> Replica:
    return Replica(
        id=name, deployment="m", slot="blue", version=3, digest="d", engine="vllm",
        launcher="process", state=ReplicaState.READY, url=url, created_at=0.0, changed_at=0.0,
    )  # fmt: skip


async def test_an_engine_that_misbehaves_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "TIMEOUT_S", 0.5)
    async with (
        serving(GOOD) as good,
        serving(hang) as hanging,
        serving(flood) as flooding,
        serving(page(b"\x00\xff nonsense {{{ 1\nvllm:num_requests_running{ x\n")) as nonsense,
        serving(page(b"x", b"content-encoding: gzip\r\n")) as packed,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        urls = {
            "good": good,
            "hanging": hanging,
            "flooding": flooding,
            "nonsense": nonsense,
            "packed": packed,
            "away": f"http://127.0.0.1:{free_port()}",
            "none": "not a url",
        }
        replicas = [replica(name, url) for name, url in urls.items()]
        scraper = EngineScraper(http, lambda: replicas, lambda _: "w:3", {"vllm": VLLM})
        async with asyncio.timeout(30):
            await scraper.look()

    exposition = Exposition()
    exposition.add(*scraper.sources())
    told = parse(exposition.text().decode())
    up = {labels["replica"]: each for labels, each in told["modelyard_engine_up"]}
    assert up == dict.fromkeys(urls, 0.0) | {"good": 1.0, "nonsense": 1.0}
    labels = {"model": "m", "version": "w:3", "slot": "blue", "replica": "good"}
    assert told["modelyard_engine_requests_running"] == [(labels, 7.0)]


async def test_one_that_is_no_longer_ready_is_told_no_more() -> None:
    replicas = []
    async with serving(GOOD) as good, httpx.AsyncClient(trust_env=False) as http:
        replicas.append(replica("good", good))
        scraper = EngineScraper(http, lambda: replicas, lambda _: "w:3", {"vllm": VLLM})
        await scraper.look()
    exposition = Exposition()
    exposition.add(*scraper.sources())
    assert b"modelyard_engine_up{" in exposition.text()

    replicas.clear()

    assert b"modelyard_engine_up{" not in exposition.text()
