"""Rollouts for real: a controller, gateways, fake engines, and users who never notice."""

import os
import signal
import time
from typing import Any

import httpx
import pytest
from tests.control.conftest import Controller, runs, until
from tests.control.traffic import Gateway, Load, gateways

from modelyard.api.messages import DeploymentView, DeployRequest, ReplicaView, RolloutView
from modelyard.client import Client
from modelyard.core.errors import Conflict, LaunchFailed
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase

WITHIN_S = 40.0
STEP = ("--step-base-s", "0.002")
COUNTS = {"prompt": "Count [[fake: tokens=3]]", "regex": "^t0:.*!3$"}
"""What the fake engine answers rightly."""
IMPOSSIBLE = {"name": "it greets", "prompt": "Hello", "all_of": ["good morning"]}


def wish(version: int, *, extra: tuple[str, ...] = (), **plan: Any) -> DeployRequest:
    said = {"smoke": [COUNTS], "bake_s": 600, **plan}
    return DeployRequest(
        ref=f"yardling:{version}", engine="fake", plan=said, extra_args=(*STEP, *extra)
    )


def bring_up(client: Client, asked: DeployRequest) -> DeploymentView:
    view = client.deploy(asked)
    return client.wait_until_live(view.name, view.generation, WITHIN_S)


def phase(client: Client) -> Phase:
    rollout = client.deployment("yardling").rollout
    assert rollout
    return rollout.phase


def until_phase(client: Client, *wanted: Phase) -> RolloutView:
    until(lambda: phase(client) in wanted, f"the rollout is {wanted}", WITHIN_S)
    rollout = client.deployment("yardling").rollout
    assert rollout
    return client.rollout(rollout.id)


def ready(client: Client, version: int) -> list[ReplicaView]:
    return [
        r
        for r in client.status().replicas
        if r.version == version and r.state is ReplicaState.READY
    ]


def fault(replica: ReplicaView, script: str) -> None:
    told = {"script": script}
    httpx.post(f"{replica.url}/control/faults", json=told, trust_env=False).raise_for_status()


def test_a_new_version_takes_over_without_a_lost_request_and_back_in_a_blink(
    controller: Controller,
) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url) as load:
            load.until_answered(10)
            bring_up(client, wish(2))
            load.until_answered(20)
            [old], [new] = ready(client, 1), ready(client, 2)
            assert phase(client) is Phase.BAKING
            client.steer("yardling", "rollback")
            load.until_answered(30)
            done = until_phase(client, Phase.UNDONE)
        after = ready(client, 1)

    assert load.lost == []
    assert load.order[0] == load.order[-1] == "yardling:1"
    assert load.versions["yardling:2"] > 0
    assert [r.pid for r in after] == [old.pid]  # nothing was loaded again
    assert new.pid
    assert not runs(new.pid)
    assert done.version_before == "yardling:1"
    assert "by admin" in done.reason
    assert [result.passed for result in done.smoke] == [True]


def test_the_version_before_stops_when_the_bake_is_over(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url) as load:
            bring_up(client, wish(2))
            with pytest.raises(Conflict, match="rollout yardling-2 is baking"):
                client.deploy(wish(1))
            [old] = ready(client, 1)
            client.steer("yardling", "promote")
            until_phase(client, Phase.DONE)
            load.until_answered(10)

    assert load.lost == []
    assert load.order[-1] == "yardling:2"
    assert old.pid
    assert not runs(old.pid)


def test_what_fails_its_smoke_test_never_answers_a_user(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url) as load:
            with pytest.raises(LaunchFailed, match="it greets"):
                bring_up(client, wish(2, smoke=[COUNTS, IMPOSSIBLE]))
            refused = until_phase(client, Phase.UNDONE)
            load.until_answered(10)

    assert load.lost == []
    assert set(load.versions) == {"yardling:1"}
    failed = refused.smoke[1]
    assert not failed.passed
    assert failed.answer.startswith("t0:")  # the report shows what it said instead
    assert "'good morning' is not in the answer" in refused.reason


def test_a_canary_that_does_worse_goes_back_by_itself(controller: Controller) -> None:
    canary = {
        "strategy": "canary",
        "steps": [{"share": 0.5, "min_s": 600}],
        "canary": {"min_requests": 20},
    }
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url, tokens=5) as load:
            client.deploy(wish(2, **canary))
            until_phase(client, Phase.STEPPING)
            until(lambda: load.versions["yardling:2"] > 5, "the candidate gets its share")
            [new] = ready(client, 2)
            fault(new, "status=400")
            time.sleep(0)
            fault(new, "status=500")
            undone = until_phase(client, Phase.UNDONE)
            load.until_answered(10)

    assert "more requests fail" in undone.reason
    assert undone.finding
    assert undone.finding["verdict"] == "alarm"
    assert load.order[-1] == "yardling:1"


def test_a_canary_without_requests_holds_and_says_how_many_are_needed(
    controller: Controller,
) -> None:
    canary = {"strategy": "canary", "steps": [{"share": 0.5, "min_s": 0}]}
    with controller.start() as client, gateways(controller.home, client.url):
        bring_up(client, wish(1))
        client.deploy(wish(2, **canary))
        until_phase(client, Phase.STEPPING)
        until(
            lambda: "100 more requests" in client.rollout("yardling-2").waits_for,
            "what is missing is said",
        )
        assert phase(client) is Phase.STEPPING
        client.steer("yardling", "promote")
        assert until_phase(client, Phase.BAKING).version == "yardling:2"


def test_a_candidate_that_crashes_while_it_bakes_is_taken_back(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        bring_up(client, wish(2))
        [new] = ready(client, 2)
        assert new.pid
        os.kill(new.pid, signal.SIGKILL)
        undone = until_phase(client, Phase.UNDONE)
        with Load(gateway.url) as load:
            load.until_answered(5)

    assert "crashed after it was ready" in undone.reason
    assert set(load.versions) == {"yardling:1"}
    assert load.lost == []


def test_with_one_accelerator_requests_wait_for_the_next_version(controller: Controller) -> None:
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        [old] = ready(client, 1)
        with Load(gateway.url) as load:
            load.until_answered(5)
            bring_up(client, wish(2, strategy="recreate"))
            load.until_answered(10)
            [new] = ready(client, 2)

            with pytest.raises(LaunchFailed, match="it greets"):
                bring_up(client, wish(1, strategy="recreate", smoke=[IMPOSSIBLE]))
            until_phase(client, Phase.UNDONE)
            load.until_answered(10)

    assert load.lost == []
    assert load.order[-1] == "yardling:2"
    assert old.pid
    assert not runs(old.pid)
    assert new.created_at > old.created_at


@pytest.mark.parametrize("killed_in", [Phase.LAUNCHING, Phase.STEPPING, Phase.BAKING])
def test_a_controller_killed_in_mid_rollout_goes_on_with_it(
    controller: Controller, killed_in: Phase
) -> None:
    plan: dict[str, Any] = {"bake_s": 600}
    if killed_in is Phase.STEPPING:
        plan |= {"strategy": "canary", "steps": [{"share": 0.5, "min_s": 600}]}
    slow = ("--slow-start-s", "1") if killed_in is Phase.LAUNCHING else ()
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        [old] = ready(client, 1)
        with Load(gateway.url) as load:
            client.deploy(wish(2, extra=slow, **plan))
            until_phase(client, killed_in)
            before = client.rollout("yardling-2")
            controller.kill()
            load.until_answered(10)
            gateway.close()
            with controller.start() as again, gateways_of(controller, again) as [other]:
                with Load(other.url) as second:
                    if killed_in is Phase.STEPPING:
                        until_phase(again, Phase.STEPPING)
                        again.steer("yardling", "promote")
                    after = until_phase(again, Phase.BAKING)
                    second.until_answered(10)
                [kept] = ready(again, 1)

    assert after.id == before.id == "yardling-2"
    assert after.started_at == before.started_at
    assert kept.pid == old.pid
    assert second.lost == []
    assert second.order[-1] == "yardling:2"


def gateways_of(controller: Controller, client: Client) -> Any:
    """Gateways for a controller that listens elsewhere than the one before."""
    moved = controller.home.root.parent / "after"
    moved.mkdir()
    return _gateways_at(controller, client, moved)


class _gateways_at:  # noqa: N801 - used as a function
    def __init__(self, controller: Controller, client: Client, folder: Any) -> None:
        self._gateway = Gateway(controller.home, client.url, folder / "gateway")

    def __enter__(self) -> list[Gateway]:
        models = f"{self._gateway.url}/v1/models"
        until(
            lambda: "yardling" in httpx.get(models, trust_env=False).text, "it has the routes"
        )  # before, it knows no model, and says so
        return [self._gateway]

    def __exit__(self, *_: object) -> None:
        self._gateway.close()


def test_the_switch_waits_for_each_gateway_and_names_the_one_that_lags(
    controller: Controller,
) -> None:
    with controller.start() as client, gateways(controller.home, client.url, 2) as both:
        until(lambda: len(client.status().gateway.processes) == 2, "both gateways report")
        bring_up(client, wish(1))
        client.deploy(wish(2, smoke=[]))
        until_phase(client, Phase.LAUNCHING)
        os.kill(both[1].process.pid, signal.SIGSTOP)
        until_phase(client, Phase.SWITCHING)
        until(lambda: "the gateway" in client.rollout("yardling-2").waits_for, "it is named")
        # Silent for ten seconds, it counts as dead, and holds nothing up any more.
        until_phase(client, Phase.BAKING)
        with Load(both[0].url) as load:
            load.until_answered(5)

    assert load.lost == []
    assert set(load.versions) == {"yardling:2"}
