"""The part of a controller that gateways speak with: real feed, real state, one published model.

python -m benchmarks._observe_controller HOME PORT UPSTREAM
There is no reconcile loop, for the upstream is not a worker of ours; records are stored and summed
up as by any controller.
"""

import asyncio
import sys
import time
from hashlib import sha256
from pathlib import Path

import uvicorn
from benchmarks._canned import MODEL
from fastapi import FastAPI

from modelyard.control.feed import Feed, FeedParts
from modelyard.control.gateways import Gateways
from modelyard.control.ledger import Ledger
from modelyard.control.listening import listen
from modelyard.control.secrets import prepare_home, read_token
from modelyard.control.snapshots import Publisher
from modelyard.core.cost import Price
from modelyard.core.home import Home
from modelyard.core.keys import KeyPut, Limit
from modelyard.core.routes import ModelRoute, ReplicaRoute, SlotRoute
from modelyard.state.store import open_store

KEY = "bench-key-of-thirty-two-letters-"
MANY = 10**9
_DIGEST = "sha256:" + "5" * 64


async def serve(home: Home, port: int, upstream: str) -> None:
    """Until it is ended."""
    prepare_home(home)
    store = open_store(home, None, sole=True)
    ledger = Ledger(store, time.time, lambda: None)
    epoch = store.meta.epoch()
    publisher = Publisher(store, ledger, epoch, time.time)
    slot = SlotRoute(
        slot="blue", model=MODEL, version=1, digest=_DIGEST, weight=1.0,
        operations=("chat",), price=Price(replica_hour=2.5),
        replicas=(ReplicaRoute(id="m-blue-1", url=upstream),),
    )  # fmt: skip
    await publisher.publish(
        (ModelRoute(name=MODEL, deployment=MODEL, created_at=0, slots=(slot,)),), MODEL
    )
    limits = tuple(
        Limit(kind=kind, amount=MANY)
        for kind in ("requests_per_min", "tokens_per_min", "concurrent_requests")
    )
    store.keys.append(
        lambda seq: KeyPut(
            seq=seq, at=time.time(), key_id="bench", tenant="bench", limits=limits,
            secret_sha256=sha256(KEY.encode()).hexdigest(),
        )
    )  # fmt: skip
    feed = Feed(
        FeedParts(
            token=read_token(home.gateway_token), epoch=epoch, store=store, ledger=ledger,
            publisher=publisher, gateways=Gateways(epoch, time.time), hear=lambda _: None,
            wake=lambda: None,
        )
    )  # fmt: skip
    app = FastAPI()
    app.router.routes.extend(feed.routes())
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    await uvicorn.Server(config).serve(sockets=[listen("127.0.0.1", port, "PORT")])


if __name__ == "__main__":
    asyncio.run(serve(Home(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]))
