"""Fixtures: engines, and gateways before them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from tests.gateway.rig import (
    NOWHERE,
    Engine,
    Rig,
    StartRig,
    end_engine,
    eventually,
    model_route,
    start_engine,
    write_snapshot,
)

from modelyard.core.home import Home
from modelyard.core.routes import (
    ModelRoute,
)
from modelyard.gateway.filesource import read_config
from modelyard.gateway.main import Service
from modelyard.gateway.options import GatewayOptions
from modelyard.gateway.tokens import make_token
from modelyard.observe.collectors import collector_of


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on: its transports pause, close and end in their own way."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def _engines() -> Iterator[list[Engine]]:
    engines = [start_engine("--step-base-s", "0.005", "--parallel", "64") for _ in range(2)]
    yield engines
    for engine in engines:
        end_engine(engine)


@pytest.fixture
async def engines(_engines: list[Engine]) -> list[Engine]:
    """Two fake engines, 5 ms a token, with no faults set and nothing remembered."""
    for engine in _engines:
        async with httpx.AsyncClient(base_url=engine.url, trust_env=False) as client:
            (await client.post("/control/reset")).raise_for_status()
    return _engines


@pytest.fixture
def spare_engine() -> Iterator[Engine]:
    """A fake engine of the test's own, which it may crash."""
    engine = start_engine("--step-base-s", "0.005")
    yield engine
    end_engine(engine)


@pytest.fixture
async def start_rig(home: Home) -> AsyncIterator[StartRig]:
    """Starts gateways over given routes; all are stopped at the end, with nothing in flight."""
    running: list[tuple[Rig, asyncio.Task[None]]] = []

    async def start(*models: ModelRoute, **options: Any) -> Rig:
        if models:
            write_snapshot(home, *models)
        chosen = {"controller": NOWHERE, "drain_s": 5.0} | options
        service = Service(GatewayOptions(home=home, host="127.0.0.1", port=0, **chosen))
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        record = home.run / "gateway.json"
        record.unlink(missing_ok=True)
        await eventually(record.exists, lambda there: there or task.done())
        if task.done():
            await task
        rig = Rig(home, service, json.loads(record.read_text())["url"])
        rig.stop = stop
        running.append((rig, task))
        return rig

    yield start
    for rig, task in running:
        await rig.client.aclose()
        rig.stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)  # lets the transports that were closed go


@pytest.fixture
async def start_alone(home: Home, tmp_path: Path) -> AsyncIterator[StartRig]:
    """Starts stand-alone gateways over a configuration given as a dict; keys of the environment
    given as `environment`. All are stopped at the end."""
    running: list[tuple[Rig, asyncio.Task[None]]] = []

    async def start(
        config: dict[str, Any], environment: dict[str, str] | None = None, name: str = "alone"
    ) -> Rig:
        file = tmp_path / f"{name}.yaml"
        place = Home(tmp_path / name)
        file.write_text(json.dumps({"listen": "127.0.0.1:0", "state_dir": name} | config))
        known = environment or {}
        found = read_config(file, known)
        options = GatewayOptions(
            home=place, host=found.host, port=found.port, cache=found.settings.cache,
            max_body_bytes=found.settings.max_body_bytes, drain_s=5.0,
            request_log=found.settings.records,
            collector=collector_of(found.settings.telemetry.traces, known),
        )  # fmt: skip
        make_token(place.gateway_token)
        service = Service(options, file, found, known)
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        await eventually(lambda: service.standing.url, lambda url: bool(url) or task.done())
        if task.done():
            await task
        rig = Rig(place, service, service.standing.url)
        rig.stop = stop
        rig.file = file
        running.append((rig, task))
        return rig

    yield start
    for rig, task in running:
        await rig.client.aclose()
        rig.stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)


@pytest.fixture
async def rig(start_rig: StartRig, engines: list[Engine]) -> Rig:
    """A gateway in front of both engines."""
    started: Rig = await start_rig(model_route([engine.url for engine in engines]))
    return started
