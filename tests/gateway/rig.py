"""A real gateway in the test's event loop, before fake engines in processes of their own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from modelyard.core.home import Home
from modelyard.core.records import RequestRecord
from modelyard.core.routes import (
    ModelRoute,
    Policy,
    ReplicaRoute,
    Retries,
    RouteSnapshot,
    SlotRoute,
)
from modelyard.gateway.main import Service
from modelyard.wire.feed import RecordBatch

DIGEST = "sha256:" + "5" * 64
NOWHERE = "http://127.0.0.1:9"
"""A controller that is not there."""


class Engine:
    """A fake engine's process, and its control routes."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url

    async def state(self) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            answer: dict[str, Any] = (await client.get("/control/state")).json()
            return answer

    async def fault(self, script: str, **rule: Any) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            reply = await client.post("/control/faults", json={"script": script, **rule})
            reply.raise_for_status()

    async def until_idle(self) -> dict[str, Any]:
        return await eventually(self.state, lambda state: state["running"] + state["waiting"] == 0)


async def eventually(
    ask: Callable[[], Any], holds: Callable[[Any], bool], within_s: float = 5
) -> Any:
    """Ask again until the answer holds; fail with the last one when the time is over."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = ask()
        if asyncio.iscoroutine(found):
            found = await found
        if holds(found):
            return found
        assert asyncio.get_running_loop().time() < deadline, f"still {found!r} after {within_s} s"
        await asyncio.sleep(0.01)


def start_engine(*flags: str) -> Engine:
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard.engines.fake", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return Engine(process, json.loads(process.stdout.readline())["url"])


def end_engine(engine: Engine) -> None:
    engine.process.kill()
    engine.process.wait()
    assert engine.process.stdout is not None
    engine.process.stdout.close()


class Rig:
    """A gateway that serves one model from `replicas`, without a controller."""

    def __init__(self, home: Home, service: Service, url: str) -> None:
        self.home = home
        self.service = service
        self.url = url
        self.stop = asyncio.Event()
        self.file = Path()
        """The configuration, of one that stands alone."""
        self.client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=20)

    async def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        text = (await self.client.get("/metrics")).text
        samples = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples)

    async def admin(self, path: str) -> Any:
        """What an admin route says."""
        token = self.home.gateway_token.read_text().strip()
        reply = await self.client.get(path, headers={"authorization": f"Bearer {token}"})
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def until_at_rest(self) -> None:
        """Wait until no request is in flight, here or at any replica (promise G3)."""
        for name in ("modelyard_requests_in_flight", "modelyard_replica_requests_in_flight"):
            await eventually(lambda name=name: self.metric(name), lambda value: value == 0)

    async def records(self, count: int) -> list[RequestRecord]:
        """The records so far, once there are so many of them."""
        return await eventually(self._records, lambda records: len(records) >= count)  # type: ignore[no-any-return]

    def log(self) -> list[RequestRecord]:
        """The records so far of a gateway that stands alone."""
        file = self.home.gateway / "requests.jsonl"
        lines = file.read_bytes().splitlines() if file.exists() else []
        return [msgspec.json.decode(line, type=RequestRecord) for line in lines]

    def _records(self) -> list[RequestRecord]:
        files = sorted((self.home.gateway / "spool").glob("*.json"))
        batches = [msgspec.json.decode(file.read_bytes(), type=RecordBatch) for file in files]
        return [record for batch in batches for record in batch.records]


def model_route(
    urls: list[str],
    name: str = "m",
    policy: Policy | None = None,
    *,
    ask_as_stream: bool = False,
) -> ModelRoute:
    """One model, version 3 of `weights`, live in the blue slot."""
    replicas = tuple(ReplicaRoute(id=f"r{n}", url=url) for n, url in enumerate(urls))
    slot = SlotRoute(
        slot="blue",
        model="weights",
        version=3,
        digest=DIGEST,
        weight=1.0,
        operations=("chat", "completions"),
        ask_as_stream=ask_as_stream,
        replicas=replicas,
    )
    fast = Policy(balancing="round_robin", retries=Retries(backoff_base_s=0.001))
    return ModelRoute(
        name=name, deployment=name, created_at=1, slots=(slot,), policy=policy or fast
    )


def write_snapshot(home: Home, *models: ModelRoute, version: int = 1) -> None:
    """Put a snapshot where a gateway keeps it."""
    home.gateway.mkdir(parents=True, exist_ok=True)
    snapshot = RouteSnapshot(epoch="test", version=version, published_at=0, models=models)
    (home.gateway / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))


StartRig = Callable[..., Any]


StartRig = Callable[..., Any]
"""Starts a gateway over given routes."""


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
