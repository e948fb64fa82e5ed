"""Fixtures: engines, and gateways before them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
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
from modelyard.gateway.main import GatewayOptions, Service


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
async def rig(start_rig: StartRig, engines: list[Engine]) -> Rig:
    """A gateway in front of both engines."""
    started: Rig = await start_rig(model_route([engine.url for engine in engines]))
    return started
