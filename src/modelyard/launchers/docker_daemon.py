"""This machine's Docker daemon, through Docker's own SDK, with errors in our own words.

The SDK's client must not be shared between threads, so each call has its own, which costs a
tenth of a millisecond. The SDK is imported when it is used: it is an extra.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from modelyard.core.errors import (
    LaunchFailed,
    ModelyardError,
    NotFound,
    Unavailable,
    Unsupported,
)
from modelyard.launchers.containers import complaint

if TYPE_CHECKING:
    from docker import APIClient

_TIMEOUT_S = 30
_REFUSALS = ("not found", "manifest unknown", "name unknown", "denied", "unauthorized")
"""How registries say that an image is not there, or not for us; the status may be 500 for it."""
_DEFAULT_SOCKET = "unix:///var/run/docker.sock"


class ContainerGone(Exception):
    """The daemon knows no such container."""


class Daemon:
    """Calls to the daemon. All block; may be called from any thread.

    Each may raise Unavailable when the daemon is away, and Unsupported where the SDK is not
    installed or the daemon is another machine's.
    """

    def __init__(self) -> None:
        self._version: str | None = None

    def processors(self) -> int:
        """How many this machine has."""
        with self._asking() as api:
            return int(api.info()["NCPU"])

    def image_user(self, name: str) -> str | None:
        """Whom an image runs as, empty for nobody in particular; None: the image is not here."""
        try:
            with self._asking() as api:
                return str((api.inspect_image(name).get("Config") or {}).get("User") or "")
        except NotFound:
            return None

    def pull(self, name: str, given_up: Callable[[], bool]) -> None:
        """Fetch an image; raises NotFound. `given_up` is asked at every step."""
        with self._asking() as api:
            try:
                for step in api.pull(name, stream=True, decode=True):
                    if given_up():
                        return
                    if "error" in step:
                        raise _not_pulled(name, str(step["error"]))
            except _sdk().errors.APIError as error:
                raise _not_pulled(name, _told(error), missing=error.status_code == 404) from error

    def containers(self, label: str) -> list[dict[str, Any]]:
        """Containers in any state that carry a label, `name` or `name=value`."""
        with self._asking() as api:
            found: list[dict[str, Any]] = api.containers(all=True, filters={"label": [label]})
            return found

    def start(self, config: dict[str, Any], name: str) -> str:
        """Create and start a container, or leave nothing; its id. Raises LaunchFailed, NotFound."""
        with self._asking() as api:
            made = str(api.create_container_from_config(config, name)["Id"])
            try:
                api.start(made)
            except BaseException:
                api.remove_container(made, force=True, v=True)
                raise
            return made

    def state(self, container: str) -> dict[str, Any]:
        """Its `State`; raises ContainerGone."""
        with self._asking(container) as api:
            state: dict[str, Any] = api.inspect_container(container)["State"]
            return state

    def signal(self, container: str, name: str) -> None:
        """Signal it; nothing happens when it has ended. Raises ContainerGone."""
        with self._asking(container) as api:
            try:
                api.kill(container, name)
            except _sdk().errors.APIError as error:
                if error.status_code != 409:  # it is not running
                    raise

    def logs(self, container: str, lines: int) -> bytes:
        """The last lines that it wrote; raises ContainerGone."""
        with self._asking(container) as api:
            return bytes(api.logs(container, stdout=True, stderr=True, tail=lines))

    def remove(self, container: str) -> None:
        """Take away what is left of a container, if there is anything."""
        with self._asking() as api:
            try:
                api.remove_container(container, force=True, v=True)
            except _sdk().errors.APIError as error:
                if error.status_code not in (404, 409):  # gone, or being removed by another
                    raise

    @contextmanager
    def _asking(self, container: str | None = None) -> "Iterator[APIClient]":
        sdk = _sdk()
        import urllib3  # the SDK's own: it reads streams with nothing between

        try:
            with closing(self._connected(sdk)) as api:
                yield api
        except sdk.errors.NotFound as error:
            if container is not None:
                raise ContainerGone(container) from error
            raise NotFound(
                f"Docker: {_told(error)}",
                next_step="see what there is with: docker images",
                param="image",
            ) from error
        except sdk.errors.APIError as error:
            raise LaunchFailed(f"Docker: {_told(error)}") from error
        except (sdk.errors.DockerException, urllib3.exceptions.HTTPError, OSError) as error:
            self._version = None  # the next one that answers may be another
            why = error.strerror if isinstance(error, OSError) else None
            raise Unavailable(
                f"the Docker daemon does not answer at {_address()}: {why or error}",
                next_step="start it (systemctl start docker), or let this user reach it; "
                "`docker info` must work. DOCKER_HOST names another socket",
            ) from error

    def _connected(self, sdk: Any) -> "APIClient":
        address = _local(_address())
        # A plain connection first, which says what is wrong: the SDK wraps that in three layers.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_TIMEOUT_S)
            probe.connect(address.removeprefix("unix://"))
        client: APIClient = sdk.APIClient(address, self._version or "auto", _TIMEOUT_S)
        self._version = client.api_version
        return client


def _sdk() -> Any:
    try:
        import docker
    except ImportError:
        raise Unsupported(
            "Docker's SDK for Python is not installed",
            next_step="pip install 'modelyard[docker]', then start the controller again",
        ) from None
    return docker


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or _DEFAULT_SOCKET


def _local(address: str) -> str:
    if not address.startswith("unix://"):
        raise Unsupported(
            f"DOCKER_HOST is {address}; workers are reached on the loopback address of this "
            "machine and read its files",
            next_step=f"use this machine's daemon: DOCKER_HOST={_DEFAULT_SOCKET}",
        )
    return address


def _told(error: Exception) -> str:
    return complaint(str(getattr(error, "explanation", None) or error))


def _not_pulled(name: str, told: str, *, missing: bool = False) -> ModelyardError:
    if missing or any(word in told for word in _REFUSALS):
        return NotFound(
            f"image {name} can't be fetched: {told}",
            next_step=f"look at its name, or sign in: docker login; then: docker pull {name}",
            param="image",
        )
    return Unavailable(
        f"image {name} can't be fetched: {told}",
        next_step=f"try it by hand: docker pull {name}; or load it: docker load -i FILE",
    )
