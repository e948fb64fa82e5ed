"""Fixtures: a real Docker daemon, an image on it, and the certainty that nothing is left there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.launchers import images

from modelyard.launchers.containers import HOME_LABEL


@pytest.fixture(scope="session")
def docker_api() -> Iterator[Any]:
    """A client of the daemon."""
    import docker

    client = docker.from_env(timeout=30).api
    yield client
    client.close()


@pytest.fixture(scope="session")
def worker_image(docker_api: Any) -> Iterator[str]:
    """Name of an image that runs this interpreter and the fake engine."""
    name = images.import_worker(docker_api)
    yield name
    docker_api.remove_image(name, force=True)


@pytest.fixture
def containers(docker_api: Any, tmp_path: Path) -> "Iterator[Containers]":
    """The containers of the test's homes; fails, and clears away, when one is left after it."""
    found = Containers(docker_api, str(tmp_path.resolve()))
    yield found
    left = found.names()
    found.remove()
    assert left == []


class Containers:
    """What the daemon has for homes in one folder."""

    def __init__(self, api: Any, folder: str) -> None:
        self._api = api
        self._folder = folder

    def names(self) -> list[str]:
        """In any state."""
        return [one["Names"][0] for one in self._all()]

    def ids(self) -> list[str]:
        """In any state."""
        return [one["Id"] for one in self._all()]

    def remove(self) -> None:
        """All of them."""
        for one in self._all():
            self._api.remove_container(one["Id"], force=True)

    def _all(self) -> list[dict[str, Any]]:
        everyone = self._api.containers(all=True, filters={"label": [HOME_LABEL]})
        return [one for one in everyone if self._folder in one["Labels"][HOME_LABEL]]
