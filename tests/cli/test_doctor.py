"""`modelyard doctor`"""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli import checks
from modelyard.core.home import Home

Cli = Callable[..., Any]


def _doctor(cli: Cli, home: Path, *arguments: object) -> dict[str, dict[str, str]]:
    done = cli("doctor", "--home", home, "--json", *arguments)
    report = json.loads(done.out)
    assert report["ok"] == (done.code == 0)
    return {finding["check"]: finding for finding in report["findings"]}


def test_it_looks_at_everything_that_modelyard_needs(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--home", tmp_path)

    assert done.code == 0
    for check in ("Python", "Memory", "Disk", "GPU", "Engine llama.cpp", "MLflow", "gateway port"):
        assert check in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80


def test_what_is_missing_comes_with_the_command_that_installs_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "installed", lambda _: None)

    found = _doctor(cli, tmp_path)

    assert found["Engine llama.cpp"]["mark"] == "fail"
    assert found["Engine llama.cpp"]["next_step"] == "pip install xllamacpp"
    assert found["Engine transformers"]["mark"] == "ok"
    assert found["Engine transformers"]["detail"].startswith("not installed")


def test_a_port_in_use_is_seen(cli: Cli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        found = _doctor(cli, tmp_path, "--gateway-port", number)

    assert found["gateway port"]["mark"] == "warn"
    assert "--gateway-port" in found["gateway port"]["next_step"]


def test_a_full_disk_stops_modelyard(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "NO_DISK_BYTES", float("inf"))

    assert _doctor(cli, tmp_path)["Disk"]["mark"] == "fail"


def test_a_damaged_run_record_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.run / "replicas").mkdir(parents=True)
    damaged = home.run / "replicas" / "r1.json"
    damaged.write_text("{")

    findings = list(checks.state(home))

    assert any(one.mark == "warn" and str(damaged) in one.detail for one in findings)


def test_a_controller_that_does_not_answer_is_a_warning(tmp_path: Path, free_port: int) -> None:
    home = Home(tmp_path)
    home.run.mkdir()
    home.admin_token.parent.mkdir()
    home.admin_token.write_text("token")
    (home.run / "controller.json").write_text(
        json.dumps({"url": f"http://127.0.0.1:{free_port}", "pid": 1, "started_at": 0})
    )

    (finding,) = checks.state(home)

    assert finding.mark == "warn"
    assert "modelyard up" in finding.next_step


def test_nvidia_smi_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho no devices >&2\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert checks.graphics().mark == "warn"


def test_nvidia_smi_names_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert checks.graphics().detail == "NVIDIA H200, 143771 MiB"
