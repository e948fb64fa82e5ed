"""Which accelerators there are, by the driver's own tool played by a script, and who has which."""

from pathlib import Path

import pytest

from modelyard.core.errors import LaunchFailed
from modelyard.launchers.accelerators import (
    VISIBLE,
    Accelerators,
    count_accelerators,
    list_accelerators,
)

FOUR = "; ".join(f"echo 'GPU {n}: NVIDIA H100 (UUID: GPU-{n}{n}-e)'" for n in range(4))


def _say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{says}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.mark.parametrize(
    ("says", "count"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'", 2),
        ("echo 'No devices were found'", 0),
        ("exit 9", 0),
    ],
)
def test_gpus_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, count: int
) -> None:
    _say(tmp_path, monkeypatch, says)

    assert count_accelerators() == count


def test_without_the_tool_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert count_accelerators() == 0


@pytest.mark.parametrize(
    ("visible", "there"),
    [
        (None, ("0", "1", "2", "3")),
        ("", ()),
        ("2, 3", ("2", "3")),
        ("GPU-11,0", ("1", "0")),
        ("1,9,2", ("1",)),
        ("1,1", ("1",)),
        ("-1", ()),
        ("GPU-", ()),
    ],
)
def test_only_those_that_the_controller_may_see_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, there: tuple[str, ...]
) -> None:
    _say(tmp_path, monkeypatch, FOUR)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)

    assert list_accelerators() == there


def test_what_any_launcher_holds_is_taken_by_no_other() -> None:
    held: dict[str, set[str]] = {"process": {"0"}, "docker": set()}
    accelerators = Accelerators(lambda: ("0", "1", "2"))
    for holders in held.values():
        accelerators.held_by(lambda holders=holders: holders)  # type: ignore[misc]

    with accelerators.taken(1) as first:
        held["docker"].update(first)
    with accelerators.taken(1) as second:
        held["process"].update(second)
    assert (first, second) == (("1",), ("2",))
    with pytest.raises(LaunchFailed, match="no free accelerator"), accelerators.taken(1):
        pass
    held["docker"].clear()
    with accelerators.taken(1) as again:
        assert again == first


def test_who_wants_none_asks_nobody() -> None:
    def fails() -> tuple[str, ...]:
        raise AssertionError("asked")

    accelerators = Accelerators(fails)
    accelerators.held_by(fails)
    with accelerators.taken(0) as taken:
        assert taken == ()
