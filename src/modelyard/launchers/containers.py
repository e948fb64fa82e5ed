"""A worker as a container: what Docker is asked for, and what it tells. Starts nothing.

The dictionaries are those of the Docker Engine API, version 1.41 (Docker 20.10) and later.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelyard.core.errors import LaunchFailed
from modelyard.launchers.launcher import Exit, Launched, LaunchSpec

PREFIX = "modelyard."
HOME_LABEL = f"{PREFIX}home"
"""Which home owns the container, as its `Owner` says."""
LAUNCHED_LABEL = f"{PREFIX}launched"
ACCELERATORS_LABEL = f"{PREFIX}accelerators"
LOG_BYTES = "8m"
_SHARED_MEMORY_BYTES = 2 * 1024**3
"""Docker's own 64 MB are too few for engines of several processes; used only as it fills."""
_SIGKILLED = 128 + 9
_NOBODY = "65534:65534"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A home among all that share a Docker daemon."""

    id: str
    """Drawn once for the home: another container's home may lie at the same path."""
    path: str
    """A copy of the home has the same id, and another path."""

    def __str__(self) -> str:
        return f"{self.id}:{self.path}"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is made with beside the launch itself."""

    owner: Owner
    user: str
    """As Docker writes it, `uid:gid`; empty: the one that the image names."""
    accelerators: tuple[str, ...] = ()
    """Device ids, as nvidia-smi numbers them."""
    started_at: float
    """Unix seconds."""


def container_name(owner: Owner, replica: str) -> str:
    """A name for people that is the only one on the daemon."""
    return f"modelyard-{owner.id[:8]}-{replica}"


def container_config(spec: LaunchSpec, setting: Setting) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    The image's own entry point is replaced: what runs is the engine's command and nothing else.
    The worker can write to /tmp and to /dev/shm, and to nothing that outlives it.
    """
    if spec.image is None:
        raise LaunchFailed(f"{spec.labels.replica}: no image is named")
    port = f"{spec.placement.bind_port}/tcp"
    program, *arguments = _argv(spec.command.argv)
    return {
        "Image": spec.image.name,
        "Entrypoint": [program],
        "Cmd": arguments,
        "Env": [f"{name}={value}" for name, value in _environment(spec, setting).items()],
        "User": setting.user,
        "Labels": _labels(spec, setting),
        "ExposedPorts": {port: {}},
        "Healthcheck": {"Test": ["NONE"]},  # the controller asks the worker itself
        "HostConfig": {
            "Mounts": [_model(spec.placement.model_path)],
            "PortBindings": {port: [_published(spec)]},
            "ReadonlyRootfs": True,
            # Kernels that are compiled when they are first used are loaded from there.
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108 - of the container
            "ShmSize": _SHARED_MEMORY_BYTES,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,  # its exit code and last lines are still to be read
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": LOG_BYTES, "max-file": "2"},
            },
            **_bounds(spec, setting),
        },
    }


def launched_from(labels: Mapping[str, str], container: str) -> Launched | None:
    """What the labels of a container tell; None when they are not such as are written here."""
    try:
        told = msgspec.json.decode(labels.get(LAUNCHED_LABEL, ""), type=Launched)
    except msgspec.DecodeError:
        return None
    return msgspec.structs.replace(told, handle=container)


def exit_from(state: Mapping[str, Any]) -> Exit | None:
    """How a container ended, from its `State`; None while it runs."""
    if state.get("Status") not in ("exited", "dead"):
        return None
    code = int(state.get("ExitCode", 0))
    if state.get("OOMKilled"):
        return Exit(code=code, reason="killed by the kernel: it was over its memory limit")
    if code == _SIGKILLED:
        return Exit(code=code, reason=f"exit code {code}, as after SIGKILL")
    return Exit(code=code, reason=f"exit code {code}")


def held_accelerators(labels: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """Device ids that containers hold, by their labels."""
    return frozenset(
        device
        for each in labels
        for device in each.get(ACCELERATORS_LABEL, "").split(",")
        if device
    )


def user_for(image_user: str, uid: int, gid: int) -> str:
    """Whom the worker runs as: the image's own choice, else the controller's user, never root."""
    if image_user:
        return ""
    return f"{uid}:{gid}" if uid else _NOBODY


def _argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The command as the image knows it: its own Python in place of the controller's."""
    program = argv[0]
    return ("python3", *argv[1:]) if program == sys.executable else tuple(argv)


def _environment(spec: LaunchSpec, setting: Setting) -> dict[str, str]:
    # A user that the image's /etc/passwd does not name has neither a home nor a name.
    made_up = {} if setting.user == "" else {"USER": "modelyard", "LOGNAME": "modelyard"}
    base = {"HOME": "/tmp", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}  # noqa: S108
    return base | made_up | spec.command.env


def _labels(spec: LaunchSpec, setting: Setting) -> dict[str, str]:
    labels = spec.labels
    launched = Launched(
        labels=labels,
        placement=spec.placement,
        handle="",
        pid=None,
        started_at=setting.started_at,
    )
    return {
        HOME_LABEL: str(setting.owner),
        LAUNCHED_LABEL: msgspec.json.encode(launched).decode(),
        ACCELERATORS_LABEL: ",".join(setting.accelerators),
        f"{PREFIX}replica": labels.replica,
        f"{PREFIX}deployment": labels.deployment,
        f"{PREFIX}slot": labels.slot,
        f"{PREFIX}version": str(labels.version),
        f"{PREFIX}digest": labels.digest,
    }


def _model(path: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": path, "Target": path, "ReadOnly": True}


def _published(spec: LaunchSpec) -> dict[str, str]:
    return {"HostIp": "127.0.0.1", "HostPort": str(spec.placement.bind_port)}


def _bounds(spec: LaunchSpec, setting: Setting) -> dict[str, Any]:
    resources = spec.resources
    bounds: dict[str, Any] = {}
    if resources.cpus is not None:
        bounds["CpusetCpus"] = ",".join(map(str, resources.cpus))
    if resources.memory_bytes is not None:
        bounds["Memory"] = resources.memory_bytes
        bounds["MemorySwap"] = resources.memory_bytes  # the same: no swap beside it
    if setting.accelerators:
        bounds["DeviceRequests"] = [
            {"Driver": "", "DeviceIDs": list(setting.accelerators), "Capabilities": [["gpu"]]}
        ]
    return bounds


def complaint(explanation: str) -> str:
    """The part of a daemon's message that people can use, on one line."""
    line = " ".join(explanation.split())
    return re.sub(r"^(failed to create (shim )?task( for container)?: )?", "", line) or "no reason"
