"""Who gets which version while a canary's share grows (D6): nobody goes back and forth."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route
from tests.gateway.test_following import StubController, _end, _serve, controller
from tests.gateway.test_following_keys import put

from modelyard.core.routes import ModelRoute, Policy, ReplicaRoute, SlotRoute, StickyBy

__all__ = ["controller"]
SHARES = (0.2, 0.5, 0.8, 1.0)
LIVE, TRIAL = "weights:3", "weights:4"
Serve = Callable[[float, StickyBy], Awaitable[None]]


def canary(urls: list[str], share: float, sticky_by: StickyBy = "none") -> ModelRoute:
    """Two replicas of version 3, and a share of the requests for version 4."""
    route = model_route(urls, policy=Policy(balancing="round_robin", sticky_by=sticky_by))
    green = SlotRoute(
        slot="green",
        model="weights",
        version=4,
        digest="sha256:" + "7" * 64,
        weight=share,
        operations=("chat",),
        replicas=(ReplicaRoute(id="t0", url=urls[0]),),
    )
    blue = msgspec.structs.replace(route.slots[0], weight=1 - share)
    return msgspec.structs.replace(route, slots=(blue, green))


@pytest.fixture
async def served(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> AsyncIterator[tuple[Rig, Serve]]:
    """A gateway, and what publishes the next share to it."""
    serving = await _serve(controller)
    urls = [engine.url for engine in engines]
    controller.publish(1, canary(urls, 0.5))
    rig: Rig = await start_rig(controller=controller.url)
    version = 1

    async def serve(share: float, sticky_by: StickyBy = "none") -> None:
        nonlocal version
        version += 1
        controller.publish(version, canary(urls, share, sticky_by))
        shown = "modelyard_gateway_routes_version"
        await eventually(lambda: rig.metric(shown), lambda found: found == version, within_s=20)

    yield rig, serve
    await _end(*serving)


async def version_for(rig: Rig, *, user: str = "", session: str = "", key: str = "") -> str:
    headers = {"x-session-id": session} if session else {}
    if key:
        headers["authorization"] = f"Bearer {key}"
    body = chat("x [[fake: tokens=1]]") | ({"user": user} if user else {})
    reply = await rig.client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-modelyard-version"])


async def until_keys_are_needed(rig: Rig) -> None:
    await eventually(lambda: rig.client.get("/v1/models"), lambda reply: reply.status_code == 401)


async def test_nobody_goes_back_while_the_share_grows(served: tuple[Rig, Serve]) -> None:
    rig, serve = served
    users = [f"user-{number}" for number in range(30)]
    seen: dict[str, list[str]] = {user: [] for user in users}
    for share in SHARES:
        await serve(share, "none")
        for user in users * 2:
            seen[user].append(await version_for(rig, user=user))

    for user, versions in seen.items():
        assert versions == sorted(versions), f"{user} went back: {versions}"
    assert {versions[-1] for versions in seen.values()} == {TRIAL}
    first = Counter(versions[0] for versions in seen.values())
    assert 0 < first[TRIAL] < 20  # 6 of 30, were the share exact


@pytest.mark.parametrize("named_by", ["key", "user", "session"])
async def test_whoever_is_named_stays(
    served: tuple[Rig, Serve], controller: StubController, named_by: str
) -> None:
    rig, serve = served
    names = [f"sk-{number}" for number in range(24)]
    if named_by == "key":  # by itself, only where the policy says so
        await serve(0.5, "key")
        controller.tell(*(put(n, name, name) for n, name in enumerate(names, 1)))
        await until_keys_are_needed(rig)
    asked = [[await version_for(rig, **{named_by: name}) for _ in range(3)] for name in names]

    assert all(len(set(versions)) == 1 for versions in asked)
    assert {versions[0] for versions in asked} == {LIVE, TRIAL}


async def test_users_of_one_key_are_told_apart_unless_the_policy_says_otherwise(
    served: tuple[Rig, Serve], controller: StubController
) -> None:
    """One key may be a whole application: its users must not all get what is new at once."""
    rig, serve = served
    controller.tell(put(1, "app", "sk-app"))
    await until_keys_are_needed(rig)
    users = [f"user-{number}" for number in range(24)]
    apart = {await version_for(rig, user=user, key="sk-app") for user in users}
    await serve(0.5, "key")
    together = {await version_for(rig, user=user, key="sk-app") for user in users}

    assert apart == {LIVE, TRIAL}
    assert len(together) == 1


async def test_who_is_not_named_may_get_either(served: tuple[Rig, Serve]) -> None:
    rig, _ = served
    versions = Counter([await version_for(rig) for _ in range(40)])

    assert versions.keys() == {LIVE, TRIAL}


async def test_the_version_is_held_and_not_the_replica(
    served: tuple[Rig, Serve], engines: list[Engine]
) -> None:
    rig, serve = served
    await serve(0.0, "none")
    for _ in range(6):
        assert await version_for(rig, user="one") == LIVE

    assert [(await engine.state())["completed"] for engine in engines] == [3, 3]
