"""What went wrong before is history: it does not speak against what is asked now."""

import os
import signal

import pytest
from tests.control.conftest import Controller, until
from tests.control.test_rollouts import IMPOSSIBLE, WITHIN_S, bring_up, ready, until_phase, wish

from modelyard.api.messages import DeployRequest
from modelyard.core.deployments import DeploymentState
from modelyard.core.errors import LaunchFailed
from modelyard.core.rollout import Phase


def test_after_a_refused_version_the_live_one_is_asked_for_again_and_scaled(
    controller: Controller,
) -> None:
    with controller.start() as client:
        bring_up(client, wish(1))
        with pytest.raises(LaunchFailed, match="it greets"):
            bring_up(client, wish(2, smoke=[IMPOSSIBLE]))
        until_phase(client, Phase.UNDONE)

        same = client.wait_for(client.deploy(wish(1)), WITHIN_S)
        wider = wish(1).model_copy(update={"replicas": 2})
        scaled = client.wait_for(client.deploy(wider), WITHIN_S)

        assert (same.version, same.state) == (1, DeploymentState.LIVE)
        assert (scaled.version, scaled.replicas_ready) == (1, 2)
        # What is refused after that is refused for its own reason.
        with pytest.raises(LaunchFailed, match="it greets"):
            client.wait_for(client.deploy(wish(2, smoke=[IMPOSSIBLE])), WITHIN_S)


def test_a_crash_that_was_mended_does_not_speak_against_more_replicas(
    controller: Controller,
) -> None:
    with controller.start() as client:
        bring_up(client, wish(1))
        [first] = ready(client, 1)
        assert first.pid
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: [r for r in ready(client, 1) if r.id != first.id], "it is replaced")

        slow = wish(1).model_copy(update={"replicas": 2})
        scaled = client.wait_for(client.deploy(slow), WITHIN_S)

    assert scaled.replicas_ready == 2


def test_a_restart_does_not_bring_the_refusal_up_again(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client, wish(1))
        with pytest.raises(LaunchFailed, match="it greets"):
            bring_up(client, wish(2, smoke=[IMPOSSIBLE]))
        until_phase(client, Phase.UNDONE)
        [live] = ready(client, 1)
    controller.kill()
    assert live.pid
    os.kill(live.pid, signal.SIGKILL)
    with controller.start() as again:
        found = again.wait_for(again.deployment("yardling"), WITHIN_S)
    assert (found.version, found.state) == (1, DeploymentState.LIVE)


SLOW = ("--slow-start-s", "600")
CANARY = {"strategy": "canary", "steps": [{"share": 0.5, "min_s": 600}]}


@pytest.mark.parametrize(
    ("asked", "phase"),
    [
        (wish(2, extra=SLOW), Phase.LAUNCHING),
        (wish(2, **CANARY), Phase.STEPPING),
        (wish(2), Phase.BAKING),
        (wish(2, extra=SLOW, strategy="recreate"), Phase.LAUNCHING),
    ],
    ids=["launching", "stepping", "baking", "recreate"],
)
def test_a_deployment_is_taken_away_in_any_phase_and_comes_back_anew(
    controller: Controller, asked: DeployRequest, phase: Phase
) -> None:
    with controller.start() as client:
        bring_up(client, wish(1))
        client.deploy(asked)
        before = until_phase(client, phase)
        client.steer("yardling", "pause")
        client.undeploy("yardling")
        until(lambda: not client.deployments(), "it is gone")
        given_up = client.rollout("yardling-2")

        assert client.status().replicas == ()
        assert (given_up.phase, given_up.reason) == (Phase.UNDONE, "taken away")
        assert given_up.history[-1].at > before.history[-1].at
        anew = bring_up(client, wish(1)).rollout
        assert anew
        assert anew.id == "yardling-3"
