"""A live version crashes while another stands by: nobody is told, if routes put that back (D2)."""

import asyncio
import time

import httpx
import msgspec
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route
from tests.gateway.test_following import StubController, _end, _serve, controller

from modelyard.core.routes import ModelRoute, ReplicaRoute, SlotRoute

__all__ = ["controller"]
NOBODY = "http://127.0.0.1:9"


def baking(standing_by: str, *, flipped: bool = False, replicas: bool = True) -> ModelRoute:
    """Version 4 is live and dead; version 3 stands by, or is live again."""
    route = model_route([standing_by])
    green = SlotRoute(
        slot="green",
        model="weights",
        version=4,
        digest="sha256:" + "7" * 64,
        weight=0.0 if flipped else 1.0,
        operations=("chat",),
        replicas=(ReplicaRoute(id="t0", url=NOBODY),),
    )
    blue = msgspec.structs.replace(
        route.slots[0],
        weight=1.0 if flipped else 0.0,
        replicas=route.slots[0].replicas if replicas else (),
    )
    return msgspec.structs.replace(route, slots=(blue, green))


async def ask(rig: Rig, *, stream: bool = False) -> httpx.Response:
    body = chat("x [[fake: tokens=2]]") | {"stream": stream}
    return await rig.client.post("/v1/chat/completions", json=body)


async def test_requests_wait_for_the_version_that_stands_by(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    serving = await _serve(controller)
    controller.publish(1, baking(engines[0].url))
    rig: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 1)
    asked = [asyncio.create_task(ask(rig, stream=number % 2 == 0)) for number in range(12)]
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda count: count == 12)
    controller.publish(2, baking(engines[0].url, flipped=True))
    replies = await asyncio.gather(*asked)
    await _end(*serving)

    assert [reply.status_code for reply in replies] == [200] * 12
    assert {reply.headers["x-modelyard-version"] for reply in replies} == {"weights:3"}


async def test_routes_that_do_not_change_are_waited_for_a_moment_only(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(baking(engines[0].url))
    begun = time.monotonic()
    reply = await ask(rig)

    assert reply.status_code == 502
    assert 2.0 < time.monotonic() - begun < 15.0


async def test_where_nothing_stands_by_the_client_is_told_at_once(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(baking(engines[0].url, replicas=False))
    begun = time.monotonic()
    replies = [await ask(rig) for _ in range(6)]

    assert {reply.status_code for reply in replies} <= {502, 503}
    assert time.monotonic() - begun < 2.5
