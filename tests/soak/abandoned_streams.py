"""Proof: clients that leave at any moment leave nothing behind (promises G1, G2, G3).

A gateway process stands before a real llama.cpp worker that serves yardling. Clients send requests,
streaming or not, and drop their connection after a random time: at once, while queued, before the
first token, in mid-stream. In the end the gateway's in-flight counts and the worker's slots are at
zero, every request has its record with one outcome, and the gateway's file descriptors are those
of before.
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.soak._proof import Proof, parse, say

from modelyard.core.home import Home
from modelyard.core.routes import ModelRoute, ReplicaRoute, RouteSnapshot, SlotRoute
from modelyard.engines.engine import EngineLaunch
from modelyard.engines.llamacpp import LlamaCpp
from modelyard.forms.forms import Forms
from modelyard.registry.registry import Registry
from modelyard.wire.feed import RecordBatch

AT_ONCE = 32
NOWHERE = "http://127.0.0.1:9"


def main(argv: Sequence[str]) -> int:
    """Run the proof; 0 when it holds."""
    proof = parse(argv, "abandoned streams", count=1000)
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        return asyncio.run(_prove(proof, Home(Path(folder))))


async def _prove(proof: Proof, home: Home) -> int:
    registry = Registry(home)
    version = registry.register("yardling", Path(str(files("modelyard.demo") / "yardling" / "1")))
    weights = Forms(registry).prepare(version.version, "gguf")
    worker_port, gateway_port = _free_port(), _free_port()
    command = LlamaCpp().command(
        EngineLaunch(
            model_path=str(weights), served_name="m", host="127.0.0.1", port=worker_port, parallel=4
        )
    )
    worker = f"http://127.0.0.1:{worker_port}"
    gateway = f"http://127.0.0.1:{gateway_port}"
    _write_snapshot(home, worker, version.version.digest)
    processes = [
        _start(list(command.argv), command.env),
        _start([sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root),
                "--listen", f"127.0.0.1:{gateway_port}", "--controller", NOWHERE], {}),
    ]  # fmt: skip
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await _until(lambda: _ok(client, f"{worker}/health"), bool, 60)
            await _until(lambda: _ok(client, f"{gateway}/ready"), bool, 20)
            return await _storm(proof, client, gateway, worker, home, processes[1].pid)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


async def _storm(
    proof: Proof, client: httpx.AsyncClient, gateway: str, worker: str, home: Home, pid: int
) -> int:
    before = _descriptors(pid)
    begun = time.monotonic()
    gate = asyncio.Semaphore(AT_ONCE)
    plans = [_plan(proof.random) for _ in range(proof.count)]

    async def one(plan: "tuple[dict[str, Any], float]") -> None:
        async with gate:
            await _abandon(gateway, *plan)

    await asyncio.gather(*(one(plan) for plan in plans))
    left = time.monotonic()
    flights = await _until(lambda: _in_flight(client, gateway), lambda count: count == 0, 10)
    gateway_rested = time.monotonic()
    slots = await _until(lambda: _busy_slots(client, worker), lambda busy: busy == 0, 30)
    rested = time.monotonic()
    records = await _until(lambda: _outcomes(home), lambda found: found.total() >= proof.count, 10)
    after = await _until(lambda: _descriptors(pid), lambda count: count <= before + 2, 10)
    say(
        f"{proof.count} clients left within {left - begun:.1f} s; at rest: the gateway "
        f"{gateway_rested - left:.2f} s later, the engine {rested - left:.2f} s later; "
        f"{flights:g} requests in flight, {slots} slots busy, {after - before:+d} descriptors; "
        f"outcomes {dict(records)}"
    )
    ok = flights == 0 and slots == 0 and records.total() == proof.count and records["failed"] == 0
    say("holds" if ok else "FAILS")
    return 0 if ok else 1


def _plan(draws: random.Random) -> tuple[dict[str, Any], float]:
    """A request, and the seconds until its client leaves."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"Count: {draws.randrange(1000)}"}],
        "max_tokens": draws.choice([1, 30, 400]),
        "stream": draws.random() < 0.7,
        "ignore_eos": True,
    }
    return body, draws.choice([0.0, draws.uniform(0, 0.05), draws.uniform(0, 0.5)])


async def _abandon(gateway: str, body: dict[str, Any], stay_s: float) -> None:
    """Send a request, read for so many seconds, and leave."""
    host, port = gateway.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    payload = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        % len(payload)
        + payload
    )
    await writer.drain()
    try:
        async with asyncio.timeout(stay_s):
            while await reader.read(65536):
                pass
    except TimeoutError:
        pass
    # An orderly close: a reset could overtake the request, and it would never have been accepted.
    writer.close()


def _write_snapshot(home: Home, worker: str, digest: str) -> None:
    slot = SlotRoute(
        slot="blue", model="yardling", version=1, digest=digest, weight=1.0, operations=("chat",),
        ask_as_stream=True,
        replicas=(ReplicaRoute(id="worker", url=worker),),
    )  # fmt: skip
    model = ModelRoute(name="m", deployment="m", created_at=0, slots=(slot,))
    snapshot = RouteSnapshot(epoch="soak", version=1, published_at=0, models=(model,))
    home.gateway.mkdir(parents=True)
    (home.gateway / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))


def _start(argv: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, env=os.environ | env, stderr=subprocess.DEVNULL)


async def _until(ask: Callable[[], Any], holds: Callable[[Any], bool], within_s: float) -> Any:
    deadline = time.monotonic() + within_s
    while True:
        found = ask()
        if asyncio.iscoroutine(found):
            found = await found
        if holds(found) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.02)


async def _ok(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _busy_slots(client: httpx.AsyncClient, worker: str) -> int:
    slots = (await client.get(f"{worker}/slots")).json()
    return sum(bool(slot["is_processing"]) for slot in slots)


async def _in_flight(client: httpx.AsyncClient, gateway: str) -> float:
    text = (await client.get(f"{gateway}/metrics")).text
    names = ("modelyard_requests_in_flight ", "modelyard_replica_requests_in_flight{")
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(names)
    )


def _outcomes(home: Home) -> Counter[str]:
    batches = [
        msgspec.json.decode(file.read_bytes(), type=RecordBatch)
        for file in (home.gateway / "spool").glob("*.json")
    ]
    return Counter(record.outcome for batch in batches for record in batch.records)


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
