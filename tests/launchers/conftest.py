"""A real Docker daemon, an image on it, and the certainty that nothing is left there."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest
from tests.launchers import images

from modelyard.core.home import Home
from modelyard.launchers.containers import HOME_LABEL


@pytest.fixture(scope="session")
def docker_api() -> Iterator[Any]:
    """A client of the daemon."""
    client = docker.from_env(timeout=30).api
    yield client
    client.close()


@pytest.fixture(scope="session")
def worker_image(docker_api: Any) -> Iterator[str]:
    """Name of an image that runs this interpreter, the fake engine and the test worker."""
    name = images.build(docker_api)
    yield name
    docker_api.remove_image(name, force=True)


@pytest.fixture
def no_container_left(docker_api: Any, home: Home) -> Iterator[None]:
    """Fail, and clear away, when a container of the test's homes is there after it."""
    yield
    left = [
        found
        for found in docker_api.containers(all=True, filters={"label": [HOME_LABEL]})
        if str(home.root.parent.resolve()) in found["Labels"][HOME_LABEL]
    ]
    for found in left:
        docker_api.remove_container(found["Id"], force=True)
    assert [found["Names"] for found in left] == []
