"""The key log and its gateway: changes within a second, kept for life without a controller (S8)."""

import asyncio
import os

import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually, model_route, write_snapshot
from tests.gateway.test_following import StubController, _end, _serve, controller

from modelyard.core.errors import InvalidConfig
from modelyard.core.home import Home
from modelyard.core.keyring import secret_hash
from modelyard.core.keys import KeyPut, KeyRevoked, Limit

__all__ = ["controller"]


def put(seq: int, key_id: str, secret: str, **fields: object) -> KeyPut:
    return KeyPut(seq=seq, at=0.0, key_id=key_id, secret_sha256=secret_hash(secret), tenant="t",
                  **fields)  # type: ignore[arg-type]  # fmt: skip


async def ask(rig: Rig, secret: str) -> int:
    reply = await rig.client.post(
        "/v1/chat/completions", json=chat("x"), headers={"authorization": f"Bearer {secret}"}
    )
    return reply.status_code


async def start(
    start_rig: StartRig, stub: StubController, engines: list[Engine]
) -> tuple[Rig, object]:
    serving = await _serve(stub)
    stub.publish(1, model_route([engines[0].url]))
    rig: Rig = await start_rig(controller=stub.url)
    await eventually(lambda: rig.metric("modelyard_gateway_routes_version"), lambda v: v == 1)
    return rig, serving


async def test_a_new_key_is_needed_at_once_and_a_revoked_one_is_refused_within_a_second(
    start_rig: StartRig, controller: StubController, engines: list[Engine]
) -> None:
    rig, serving = await start(start_rig, controller, engines)
    assert await ask(rig, "anything") == 200  # no key exists: none is needed
    controller.tell(put(1, "a", "sk-a"), put(2, "b", "sk-b"))
    await eventually(lambda: ask(rig, "sk-a"), lambda status: status == 200)
    await eventually(lambda: ask(rig, "sk-wrong"), lambda status: status == 401)

    held = asyncio.create_task(
        rig.client.post("/v1/chat/completions", json=chat("[[fake: tokens=100]]", max_tokens=100),
                        headers={"authorization": "Bearer sk-a"})
    )  # fmt: skip
    await eventually(engines[0].state, lambda state: state["running"] == 1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    controller.tell(KeyRevoked(seq=3, at=0.0, key_id="a"))
    await eventually(lambda: ask(rig, "sk-a"), lambda status: status == 401)
    assert loop.time() - begun < 1.0
    assert await ask(rig, "sk-b") == 200
    assert (await held).status_code == 200  # what was in flight finishes
    await eventually(lambda: controller.reports[-1].keys_seq, lambda seq: seq == 3)
    await _end(*serving)  # type: ignore[misc]


async def test_a_gap_keeps_what_was_in_force_and_asks_for_the_whole_log(
    start_rig: StartRig, controller: StubController, engines: list[Engine],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    rig, serving = await start(start_rig, controller, engines)
    controller.tell(put(1, "a", "sk-a"))
    await eventually(lambda: ask(rig, "sk-wrong"), lambda status: status == 401)
    controller.holes = {2}
    controller.tell(put(2, "b", "sk-b"), put(3, "c", "sk-c"))

    await eventually(lambda: ask(rig, "sk-c"), lambda status: status == 200)
    assert await ask(rig, "sk-a") == await ask(rig, "sk-b") == 200
    assert controller.asked_from[-2:].count(0) or 0 in controller.asked_from[2:]
    assert "the key log has a gap" in caplog.text
    await _end(*serving)  # type: ignore[misc]


async def test_a_limit_that_can_not_be_held_changes_nothing_and_is_said_once(
    start_rig: StartRig, controller: StubController, engines: list[Engine],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    rig, serving = await start(start_rig, controller, engines)
    controller.tell(put(1, "a", "sk-a"))
    await eventually(lambda: ask(rig, "sk-wrong"), lambda status: status == 401)
    controller.tell(put(2, "b", "sk-b", limits=(Limit(kind="tokens_per_day", amount=0.5),)))
    await eventually(lambda: caplog.text, lambda said: "can't be enforced" in said)
    assert await ask(rig, "sk-a") == 200
    assert await ask(rig, "sk-b") == 401
    assert caplog.text.count("can't be enforced") == 1
    await _end(*serving)  # type: ignore[misc]


async def test_keys_and_limits_hold_without_a_controller(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    """Promise G23."""
    rig, serving = await start(start_rig, controller, engines)
    limits = (Limit(kind="requests_per_min", amount=3.0),)
    controller.tell(put(1, "a", "sk-a", limits=limits), put(2, "b", "sk-b"))
    await eventually(lambda: ask(rig, "sk-wrong"), lambda status: status == 401)
    await eventually((home.gateway / "keys.json").exists, bool)
    await _end(*serving)  # type: ignore[misc]
    assert [await ask(rig, "sk-a") for _ in range(2)] == [200, 200]
    rig.stop.set()
    await eventually(lambda: rig.service._counters._fd, lambda fd: fd < 0)

    again: Rig = await start_rig(controller=controller.url)
    assert await ask(again, "sk-wrong") == 401
    assert await ask(again, "sk-b") == 200
    assert [await ask(again, "sk-a") for _ in range(2)] == [200, 429]
    kept = (home.gateway / "keys.json").read_text()
    assert "sk-a" not in kept
    assert (home.gateway / "keys.json").stat().st_mode & 0o777 == 0o600


async def test_keys_that_can_not_be_read_let_nobody_in(
    start_rig: StartRig, engines: list[Engine], home: Home
) -> None:
    """An empty table would let everybody in."""
    write_snapshot(home, model_route([engines[0].url]))
    (home.gateway / "keys.json").write_text('{"epoch": "e", "seq": 1, "entri')
    with pytest.raises(InvalidConfig, match=r"keys\.json can't be used"):
        await start_rig()


async def test_another_state_brings_other_keys(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    """The kept keys are those of a controller that is no more."""
    rig, serving = await start(start_rig, controller, engines)
    controller.tell(put(1, "a", "sk-a"), put(2, "b", "sk-b"))
    await eventually((home.gateway / "keys.json").exists, bool)
    kept = (home.gateway / "keys.json").read_text().replace('"epoch":"e"', '"epoch":"older"')
    rig.stop.set()
    await eventually(lambda: rig.service._counters._fd, lambda fd: fd < 0)
    (home.gateway / "keys.json").write_text(kept)
    controller.entries = [put(1, "c", "sk-c")]

    again: Rig = await start_rig(controller=controller.url)
    await eventually(lambda: ask(again, "sk-c"), lambda status: status == 200)
    assert await ask(again, "sk-a") == 401
    assert again.service._keys.epoch == "e"
    await _end(*serving)  # type: ignore[misc]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_disk_that_refuses_costs_the_copy_only(
    start_rig: StartRig, controller: StubController, engines: list[Engine], home: Home
) -> None:
    rig, serving = await start(start_rig, controller, engines)
    home.gateway.chmod(0o555)
    try:
        controller.tell(put(1, "a", "sk-a"))
        await eventually(lambda: ask(rig, "sk-wrong"), lambda status: status == 401)
    finally:
        home.gateway.chmod(0o755)
    await _end(*serving)  # type: ignore[misc]
