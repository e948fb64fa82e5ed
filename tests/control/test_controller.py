"""The controller as a process, with fake engines as workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.api.messages import DeploymentView, DeployRequest, ReplicaView
from modelyard.client import Client
from modelyard.core.deployments import DeploymentState
from modelyard.core.errors import Conflict, LaunchFailed, NotFound
from modelyard.core.home import Home
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase

from .conftest import Controller, Follower, runs, until

QUICK: dict[str, Any] = {"smoke": [], "bake_s": 0}
"""The followers here answer nobody, so nothing can be asked through them."""
FAKE = DeployRequest(ref="yardling:1", engine="fake", plan=QUICK)


Follow = Callable[[Client], Follower]


def bring_up(client: Client, request: DeployRequest = FAKE) -> DeploymentView:
    asked = client.deploy(request)
    return client.wait_until_live(asked.name, asked.generation, 20.0)


def ready(client: Client) -> list[ReplicaView]:
    return [r for r in client.status().replicas if r.state is ReplicaState.READY]


def generation(url: str) -> int:
    body = {"model": "yardling", "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False).status_code


def test_a_deployment_comes_to_ready_and_answers(controller: Controller) -> None:
    with controller.start() as client:
        view = bring_up(client)
        assert view.state is DeploymentState.LIVE
        assert view.default
        [replica] = ready(client)
        assert (replica.version, replica.digest) == (1, view.digest)
        assert generation(replica.url) == 200
        kinds = [event.kind for event in client.events()]
        assert kinds.index("replica.warming") < kinds.index("replica.ready")
        assert kinds.index("replica.ready") < kinds.index("deployment.live")
        again = client.deploy(FAKE)
        assert "nothing changed" in again.message
        assert again.generation == view.generation


def test_ready_means_loaded_and_the_controller_answers_all_the_while(
    controller: Controller,
) -> None:
    slow = DeployRequest(
        ref="yardling:1", engine="fake", plan=QUICK, extra_args=("--slow-start-s", "1.5")
    )
    with controller.start() as client:
        asked = client.deploy(slow)
        waits = []
        while client.deployment(asked.name).state is DeploymentState.STARTING:
            began = time.monotonic()
            if ready(client):
                break  # it is about to be live
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
        assert max(waits) < 1.0
        until(lambda: client.deployment(asked.name).state is DeploymentState.LIVE, "it is live")
        [replica] = ready(client)
        assert replica.ready_at
        assert replica.ready_at - replica.created_at >= 1.5


def test_a_killed_replica_is_back_within_five_seconds(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [before] = ready(client)
        assert before.pid
        os.kill(before.pid, signal.SIGKILL)

        def healed() -> bool:
            return any(r.pid != before.pid for r in ready(client))

        until(healed, "another replica is ready", deadline_s=5.0)


def test_a_killed_controller_comes_back_to_the_same_workers(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [before] = ready(client)
        version = client.status().controller.routes_version
    controller.kill()
    assert before.pid
    assert runs(before.pid)
    assert generation(before.url) == 200
    with controller.start() as client:
        until(lambda: ready(client), "the replica is known")
        [after] = ready(client)
        assert (after.id, after.pid, after.ready_at) == (before.id, before.pid, before.ready_at)
        assert client.deployment("yardling").state is DeploymentState.LIVE
        assert client.status().controller.routes_version == version


def test_what_was_killed_with_the_controller_is_replaced(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [before] = ready(client)
    controller.kill()
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    with controller.start() as client:
        until(lambda: [r for r in ready(client) if r.id != before.id], "another replica is ready")


def test_sigterm_ends_the_controller_and_leaves_the_workers(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [replica] = ready(client)
    assert controller.end() == 0
    assert replica.pid
    assert runs(replica.pid)
    assert not (controller.home.run / "controller.json").exists()


def test_a_crash_loop_fails_with_the_last_lines(controller: Controller) -> None:
    broken = DeployRequest(
        ref="yardling:1", engine="fake", plan=QUICK, extra_args=("--no-such-flag",)
    )
    with controller.start() as client:
        with pytest.raises(LaunchFailed, match=r"3 times in a row[\s\S]*--no-such-flag") as told:
            bring_up(client, broken)
        assert "logs/replicas" in told.value.next_step
        assert client.deployment("yardling").state is DeploymentState.FAILED
        until(lambda: not client.status().replicas, "nothing of it runs")
        until(lambda: client.rollouts()[0].phase is Phase.UNDONE, "it has gone back")
        # The next wish starts with a clean record.
        assert bring_up(client).state is DeploymentState.LIVE


def test_another_version_takes_over_and_the_first_ends(
    controller: Controller, follow: Follow
) -> None:
    with controller.start() as client:
        follow(client)
        bring_up(client)
        [before] = ready(client)
        view = bring_up(client, DeployRequest(ref="yardling:2", engine="fake", plan=QUICK))
        assert (view.version, view.live) == (2, "green")
        assert before.pid
        until(lambda: not runs(before.pid), "the old worker has ended")
        [after] = ready(client)
        assert after.version == 2


def test_a_version_that_does_not_start_leaves_the_live_one(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [before] = ready(client)
        broken = DeployRequest(
            ref="yardling:2", engine="fake", plan=QUICK, extra_args=("--no-such-flag",)
        )
        with pytest.raises(LaunchFailed, match="yardling:2 did not start"):
            bring_up(client, broken)
        view = client.deployment("yardling")
        assert (view.version, view.state) == (1, DeploymentState.LIVE)
        assert [r.pid for r in ready(client)] == [before.pid]


def flip_a_bit(home: Home) -> Path:
    """In the largest stored file: the weights."""
    blobs = [path for path in home.blobs.rglob("*") if path.is_file()]
    weights = max(blobs, key=lambda path: path.stat().st_size)
    weights.chmod(0o600)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    return weights


def test_a_flipped_bit_stops_the_start_and_names_the_file(controller: Controller) -> None:
    with controller.start() as client:
        flip_a_bit(controller.home)
        with pytest.raises(LaunchFailed, match=r"model\.safetensors") as failure:
            bring_up(client)
        assert "times in a row" not in str(failure.value)
        assert "register the same folder" in failure.value.next_step
        starts = [e for e in client.events() if e.kind == "replica.starting"]
        assert len(starts) == 1


def test_a_flipped_bit_under_a_live_deployment_stops_the_next_start(
    controller: Controller,
) -> None:
    with controller.start() as client:
        bring_up(client)
        [before] = ready(client)
        flip_a_bit(controller.home)
        assert before.pid
        os.kill(before.pid, signal.SIGKILL)
        until(
            lambda: "model.safetensors" in client.deployment("yardling").message,
            "the damaged file is named",
        )
        assert client.deployment("yardling").state is DeploymentState.DEGRADED
        assert not ready(client)


def test_a_hung_worker_gets_no_traffic_until_it_answers_again(controller: Controller) -> None:
    with controller.start() as client:
        bring_up(client)
        [replica] = ready(client)
        assert replica.pid
        os.kill(replica.pid, signal.SIGSTOP)
        until(lambda: not ready(client), "it is unhealthy")
        assert client.deployment("yardling").state is DeploymentState.DEGRADED
        os.kill(replica.pid, signal.SIGCONT)
        until(lambda: [r.id for r in ready(client)] == [replica.id], "it is ready again")


def test_an_undeployed_model_goes_with_its_workers(controller: Controller, follow: Follow) -> None:
    with controller.start() as client:
        follow(client)
        bring_up(client)
        [replica] = ready(client)
        assert client.undeploy("yardling").state is DeploymentState.STOPPING
        with pytest.raises(Conflict, match="taken away"):
            client.deploy(FAKE)
        until(lambda: not client.deployments(), "it is gone")
        assert replica.pid
        assert not runs(replica.pid)
        with pytest.raises(NotFound, match="yardling"):
            client.deployment("yardling")


def test_replicas_are_added_and_taken_away(controller: Controller, follow: Follow) -> None:
    with controller.start() as client:
        follow(client)
        bring_up(client, DeployRequest(ref="yardling:1", engine="fake", plan=QUICK, replicas=2))
        pids = {r.pid for r in ready(client)}
        assert len(pids) == 2
        client.deploy(DeployRequest(ref="yardling:1", engine="fake", plan=QUICK, replicas=1))
        until(lambda: len(client.status().replicas) == 1, "one replica is left")
        assert {r.pid for r in ready(client)} < pids


def test_a_request_in_flight_holds_the_stop_of_its_worker(
    controller: Controller, follow: Follow
) -> None:
    with controller.start() as client:
        gateway = follow(client)
        bring_up(client)
        [before] = ready(client)
        gateway.in_flight[before.id] = 1
        bring_up(client, DeployRequest(ref="yardling:2", engine="fake", plan=QUICK))
        until(lambda: before.id not in str(gateway.applied[-1]), "the routes lead past it")
        time.sleep(1.2)  # two ticks of the loop, in which nothing may happen
        [draining] = [r for r in client.status().replicas if r.id == before.id]
        assert (draining.state, draining.in_flight) == (ReplicaState.DRAINING, 1)
        assert before.pid
        assert runs(before.pid)
        gateway.in_flight.clear()
        until(lambda: not runs(before.pid), "the old worker has ended")
        until(lambda: client.rollout("yardling-2").phase is Phase.DONE, "the rollout is over")
        assert (client.rollout("yardling-2").finished, client.rollout("yardling-2").cut) == (1, 0)


def run_controller(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(sys.executable, "-m", "modelyard.control.main", "--home", str(home.root)), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_port_that_is_taken_and_a_second_controller_are_refused(controller: Controller) -> None:
    with controller.start() as client:
        port = client.url.rpartition(":")[2]
    elsewhere = Home(controller.home.root.parent / "elsewhere")
    taken = run_controller(elsewhere, "--port", port)
    assert taken.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in taken.stderr.splitlines()[-1]
    second = run_controller(controller.home, "--port", "0")
    assert second.returncode == 1
    assert "a controller runs on" in second.stderr.splitlines()[-1]


def test_another_address_is_refused_while_no_key_exists(home: Home) -> None:
    refused = run_controller(home, "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 1
    assert "not a loopback address" in refused.stderr
