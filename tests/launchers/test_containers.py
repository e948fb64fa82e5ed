"""What Docker is asked for, compared as data: no daemon."""

import sys
from typing import Any

import pytest

from modelyard.core.errors import LaunchFailed
from modelyard.engines.engine import Command
from modelyard.launchers.accelerators import choose_accelerators
from modelyard.launchers.containers import (
    LAUNCHED_LABEL,
    Owner,
    Setting,
    container_config,
    container_name,
    exit_from,
    held_accelerators,
    launched_from,
    user_for,
)
from modelyard.launchers.launcher import Exit, Image, Labels, LaunchSpec, Placement, Resources

OWNER = Owner(id="0123456789abcdef", path="/home/a")
PLACED = Placement(
    replica="r-1",
    bind_host="0.0.0.0",
    bind_port=40001,
    model_path="/home/a/trees/ab",
    url="http://127.0.0.1:40001",
)
LABELS = Labels(
    home="epoch", replica="r-1", deployment="d", slot="blue", version=3, digest="sha256:00"
)


def config(
    *argv: str, user: str = "1000:1000", accelerators: tuple[str, ...] = (), **resources: Any
) -> dict[str, Any]:
    spec = LaunchSpec(
        placement=PLACED,
        command=Command(argv=argv or ("vllm", "serve"), env={"TOLD": "so"}),
        labels=LABELS,
        resources=Resources(**resources),
        image=Image(name="engine:1"),
    )
    setting = Setting(owner=OWNER, user=user, accelerators=accelerators, started_at=5.0)
    return container_config(spec, setting)


def test_the_engines_command_takes_the_place_of_the_images_entry_point() -> None:
    made = config("vllm", "serve", "/model", "--port", "1")
    assert (made["Entrypoint"], made["Cmd"]) == (["vllm"], ["serve", "/model", "--port", "1"])


def test_our_own_python_becomes_the_images() -> None:
    made = config(sys.executable, "-m", "modelyard.engines.fake")
    assert (made["Entrypoint"], made["Cmd"]) == (["python3"], ["-m", "modelyard.engines.fake"])


def test_the_model_is_there_to_be_read_and_the_port_on_the_loopback_address() -> None:
    host = config()["HostConfig"]
    assert host["Mounts"] == [
        {
            "Type": "bind",
            "Source": "/home/a/trees/ab",
            "Target": "/home/a/trees/ab",
            "ReadOnly": True,
        }
    ]
    assert host["PortBindings"] == {"40001/tcp": [{"HostIp": "127.0.0.1", "HostPort": "40001"}]}


def test_it_may_do_little() -> None:
    host = config()["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"] == {"Name": "no"}


def test_without_bounds_there_are_none() -> None:
    assert not {"CpusetCpus", "Memory", "MemorySwap", "DeviceRequests"} & set(
        config()["HostConfig"]
    )


def test_bounds_are_asked_for() -> None:
    host = config(cpus=(2, 3), memory_bytes=1_000_000_000)["HostConfig"]
    assert host["CpusetCpus"] == "2,3"
    assert (host["Memory"], host["MemorySwap"]) == (1_000_000_000, 1_000_000_000)


def test_gpus_are_asked_for_by_their_numbers_and_written_down() -> None:
    made = config(accelerators=("0", "3"))
    assert made["HostConfig"]["DeviceRequests"] == [
        {"Driver": "", "DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]]}
    ]
    assert held_accelerators([made["Labels"], config()["Labels"], {}]) == {"0", "3"}


def test_a_made_up_user_has_a_name_and_a_home() -> None:
    assert {"HOME=/tmp", "USER=modelyard", "TOLD=so"} <= set(config()["Env"])
    assert not [one for one in config(user="")["Env"] if one.startswith("USER=")]


def test_labels_bring_back_what_was_launched() -> None:
    made = config()
    launched = launched_from(made["Labels"], "c0ffee")
    assert launched is not None
    assert (launched.labels, launched.placement, launched.handle) == (LABELS, PLACED, "c0ffee")
    assert made["Labels"]["modelyard.version"] == "3"
    assert container_name(OWNER, "r-1") == "modelyard-01234567-r-1"


@pytest.mark.parametrize("told", ["", "{", '{"labels": 1}'])
def test_other_labels_bring_back_nothing(told: str) -> None:
    assert launched_from({LAUNCHED_LABEL: told}, "c0ffee") is None


def test_free_accelerators_are_chosen() -> None:
    assert choose_accelerators(2, there=("0", "1", "2", "3"), held={"0", "2"}) == ("1", "3")


def test_more_accelerators_than_are_free_fail() -> None:
    with pytest.raises(LaunchFailed, match="2 are wanted, and 1 of 2 are free"):
        choose_accelerators(2, there=("0", "1"), held={"1"})


@pytest.mark.parametrize(
    ("image_user", "uid", "user"),
    [
        ("app", 1000, ""),
        ("root", 1000, ""),
        ("", 1000, "1000:1001"),
        ("", 0, "65534:65534"),
    ],
)
def test_the_image_chooses_its_user_and_else_it_is_not_root(
    image_user: str, uid: int, user: str
) -> None:
    assert user_for(image_user, uid, 1001) == user


@pytest.mark.parametrize(
    ("state", "exit_"),
    [
        ({"Status": "running"}, None),
        ({"Status": "created"}, None),
        ({"Status": "exited", "ExitCode": 3}, Exit(code=3, reason="exit code 3")),
        (
            {"Status": "exited", "ExitCode": 137, "OOMKilled": True},
            Exit(code=137, reason="killed by the kernel: it was over its memory limit"),
        ),
    ],
)
def test_how_it_ended(state: dict[str, Any], exit_: Exit | None) -> None:
    assert exit_from(state) == exit_
