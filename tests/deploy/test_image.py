"""The product as an image: built from the Dockerfile on a base of this machine's own files."""

import asyncio
import contextlib
import functools
import http.server
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml
from tests.cli.stacks import free_port
from tests.control.conftest import Controller, until
from tests.launchers import images
from tests.launchers.daemon import Containers

from modelyard.api.messages import DeployRequest
from modelyard.core.home import Home
from modelyard.launchers.docker import DockerLauncher
from modelyard.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of links to all that the image needs; pip fetches it as it does anywhere."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"),
            *("--dest", str(folder), f"{ROOT}[docker,postgresql]", "hatchling>=1.27,<2"),
        ],
        check=True,
        cwd=folder,
    )
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


@pytest.fixture(scope="module")
def image(docker_api: Any, wheels: str) -> Iterator[str]:
    """Name of the built image."""
    base = images.import_base(docker_api)
    name = f"modelyard-test-{uuid.uuid4().hex[:12]}"
    said: list[str] = []
    try:
        steps = docker_api.build(
            path=str(ROOT),
            dockerfile="deploy/Dockerfile",
            tag=name,
            buildargs={"BASE": base, "PIP_FIND_LINKS": wheels, "PIP_NO_INDEX": "1"},
            network_mode="host",
            forcerm=True,
            nocache=True,
            decode=True,
        )
        said.extend(str(step.get("stream", step.get("error", ""))) for step in steps)
        assert docker_api.images(name), "".join(said[-40:])
        yield name
    finally:
        stages = [found for line in said for found in re.findall(r"---> ([0-9a-f]{12})", line)]
        for made in (name, *reversed(stages), base):
            with contextlib.suppress(docker.errors.APIError):  # it went with another
                docker_api.remove_image(made, force=True)


def healthy(api: Any, container: str) -> bool:
    state = api.inspect_container(container)["State"]
    assert state["Status"] == "running", api.logs(container).decode()
    return bool(state["Health"]["Status"] == "healthy")


def the_service() -> dict[str, Any]:
    """The one of compose.yaml, with nothing set in the environment."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    [service] = yaml.safe_load(text)["services"].values()
    assert isinstance(service, dict)
    return service


def as_in_compose(image: str, **environment: str) -> dict[str, Any]:
    """The service of compose.yaml as the Docker Engine API has it; its volume is anonymous."""
    service = the_service()
    assert set(service) == {
        "image", "build", "network_mode", "environment", "volumes", "init", "read_only", "tmpfs",
        "cap_drop", "security_opt", "restart", "stop_grace_period",
    }  # fmt: skip
    variables = service["environment"] | environment
    return {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "HostConfig": {
            "NetworkMode": service["network_mode"],
            "Init": service["init"],
            "ReadonlyRootfs": service["read_only"],
            "Tmpfs": dict.fromkeys(service["tmpfs"], ""),
            "CapDrop": service["cap_drop"],
            "SecurityOpt": service["security_opt"],
        },
    }


@pytest.mark.service("docker")
@pytest.mark.timeout(600)
def test_the_product_runs_in_its_container_as_compose_starts_it(
    docker_api: Any, image: str
) -> None:
    gateway, controller = free_port(), free_port()
    made = docker_api.create_container_from_config(
        as_in_compose(
            image,
            MODELYARD_GATEWAY__PORT=str(gateway),
            MODELYARD_CONTROLLER__PORT=str(controller),
        )
    )["Id"]
    try:
        docker_api.start(made)
        until(lambda: healthy(docker_api, made), "it is healthy", DEADLINE_S)
        assert httpx.get(f"http://127.0.0.1:{gateway}/health", trust_env=False).status_code == 200
        assert docker_api.inspect_container(made)["Config"]["User"] == "10001:10001"
        status = execute(docker_api, made, "modelyard", "status")
        assert f"127.0.0.1:{gateway}" in status
        docker_api.stop(made, timeout=60)
        state = docker_api.inspect_container(made)["State"]
        assert state["ExitCode"] == 0, docker_api.logs(made).decode()
    finally:
        docker_api.remove_container(made, force=True, v=True)


def execute(api: Any, container: str, *argv: str) -> str:
    """What a command inside says; it must end well."""
    made = api.exec_create(container, list(argv))["Id"]
    said = str(api.exec_start(made).decode())
    assert api.exec_inspect(made)["ExitCode"] == 0, said
    return said


@pytest.mark.service("docker")
@pytest.mark.timeout(600)
def test_the_image_is_an_engines_image_too(
    image: str, tmp_path: Path, containers: Containers
) -> None:
    home = Home(tmp_path / "home")
    with as_file(files("modelyard.demo") / "yardling" / "1") as weights:
        Registry(home).register("yardling", weights)
    controller = Controller(home)
    request = DeployRequest(
        ref="yardling:1",
        engine="llamacpp",
        launcher="docker",
        image=image,
        pull="never",
        plan={"smoke": [], "bake_s": 0},
    )
    try:
        with controller.start() as client:
            asked = client.deploy(request)
            client.wait_until_live(asked.name, asked.generation, DEADLINE_S)
            [replica] = client.status().replicas
            body = {"model": "yardling", "messages": [{"role": "user", "content": "What is 2+2?"}]}
            reply = httpx.post(
                f"{replica.url}/v1/chat/completions", json=body, trust_env=False, timeout=60
            )
            assert "4" in reply.json()["choices"][0]["message"]["content"]
    finally:
        controller.kill()
        asyncio.run(DockerLauncher(home, "test").stop_all(0.0))


def test_compose_listens_on_the_loopback_address_alone() -> None:
    service = the_service()
    variables = service["environment"]
    assert service["network_mode"] == "host"
    assert variables["MODELYARD_GATEWAY__HOST"] == "127.0.0.1"
    assert variables["MODELYARD_CONTROLLER__HOST"] == "127.0.0.1"
