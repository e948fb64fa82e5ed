"""Deployments in containers: a real `modelyard up` and a real Docker daemon."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.stacks import running_stack
from tests.launchers.daemon import Containers

from modelyard.api.messages import DeployRequest, ReplicaView
from modelyard.cli.deploy import read_deployment
from modelyard.client import Client
from modelyard.core.errors import InvalidRequest, LaunchFailed, NotFound, Unavailable
from modelyard.core.home import Home
from modelyard.core.replicas import ReplicaState

from .conftest import Controller, until

DEADLINE_S = 60.0


def in_a_container(**fields: Any) -> DeployRequest:
    wanted = {"ref": "yardling:1", "engine": "fake", "launcher": "docker", "pull": "never"}
    return DeployRequest(**(wanted | {"plan": {"bake_s": 0}} | fields))


def bring_up(client: Client, request: DeployRequest) -> ReplicaView:
    asked = client.deploy(request)
    client.wait_until_live(asked.name, asked.generation, DEADLINE_S)
    [replica] = ready(client)
    return replica


def ready(client: Client) -> list[ReplicaView]:
    return [r for r in client.status().replicas if r.state is ReplicaState.READY]


def answers(gateway: str) -> bool:
    body = {"model": "yardling", "messages": [{"role": "user", "content": "Hi"}]}
    reply = httpx.post(f"{gateway}/v1/chat/completions", json=body, trust_env=False, timeout=30)
    return reply.status_code == 200


def pid_of_controller(client: Client) -> int:
    """0 while it is away."""
    try:
        return client.status().controller.pid
    except Unavailable:
        return 0


@pytest.mark.service("docker")
def test_a_deployment_in_a_container_from_its_start_to_the_end_of_up(
    tmp_path: Path, containers: Containers, worker_image: str, docker_api: Any
) -> None:
    root = tmp_path / "home"
    wanted = in_a_container(image=worker_image, memory_bytes=512 * 1024**2, cpus=(0,))
    with running_stack(root, "yardling") as gateway, Client.from_home(Home(root)) as client:
        replica = bring_up(client, wanted)
        assert replica.launcher == "docker"
        [container] = containers.ids()
        host = docker_api.inspect_container(container)["HostConfig"]
        assert (host["Memory"], host["CpusetCpus"]) == (512 * 1024**2, "0")
        assert answers(gateway)

        killed = pid_of_controller(client)
        os.kill(killed, signal.SIGKILL)
        until(lambda: pid_of_controller(client) not in (0, killed), "it is back", DEADLINE_S)
        until(lambda: "replica.adopted" in kinds(client), "it is adopted", DEADLINE_S)
        assert [(r.id, r.url) for r in ready(client)] == [(replica.id, replica.url)]
        assert containers.ids() == [container]
        assert answers(gateway)

        client.undeploy("yardling")
        until(lambda: not client.deployments(), "it is gone", DEADLINE_S)
        assert containers.ids() == []

        bring_up(client, wanted)
        assert len(containers.ids()) == 1
    assert containers.ids() == []


def kinds(client: Client) -> list[str]:
    return [event.kind for event in client.events()]


@pytest.mark.service("docker")
def test_what_can_not_run_is_refused_before_anything_starts(
    controller: Controller, containers: Containers, worker_image: str
) -> None:
    with controller.start() as client:
        with pytest.raises(NotFound, match="modelyard-test-absent"):
            client.deploy(in_a_container(image="modelyard-test-absent"))
        with pytest.raises(InvalidRequest, match="needs an image"):
            client.deploy(in_a_container())
        with pytest.raises(InvalidRequest, match="has no image"):
            client.deploy(in_a_container(image=worker_image, launcher="process"))
        with pytest.raises(InvalidRequest, match="9999"):
            client.plan(in_a_container(image=worker_image, cpus=(9999,)))
        assert not client.deployments()
        assert containers.ids() == []


@pytest.mark.service("docker")
def test_an_image_without_the_engine_says_so_and_leaves_nothing(
    controller: Controller, containers: Containers, worker_image: str
) -> None:
    with controller.start() as client:
        asked = client.deploy(in_a_container(image=worker_image, engine="llamacpp"))
        with pytest.raises(LaunchFailed, match=r"(?s)its last lines:.*No module named"):
            client.wait_until_live(asked.name, asked.generation, DEADLINE_S)
        until(lambda: not containers.ids(), "nothing is left", DEADLINE_S)


def test_a_deployment_file_may_say_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(
        "ref: yardling:1\nlauncher: docker\nimage: modelyard:1\npull: always\n"
        "cpus: [0, 1]\nmemory_bytes: 4000000000\naccelerators_per_replica: 1\n"
    )
    request = DeployRequest.model_validate(read_deployment(file))
    assert (request.launcher, request.image, request.pull) == ("docker", "modelyard:1", "always")
    assert (request.cpus, request.memory_bytes) == ((0, 1), 4_000_000_000)
    assert request.accelerators_per_replica == 1
