"""The scripts are sound bash, and a machine that lacks something is told what."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [
    *sorted(p for p in (ROOT / "scripts").iterdir() if p.is_file() and not p.suffix),
    ROOT / ".ci" / "run",
]
TOOLS = ("bash", "cat", "cut", "dirname", "flock", "mkdir", "sha256sum", "env", "basename", "sed")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()

    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert "/work" not in text


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A fresh clone's set-up script beside a `bin` that holds only what every system has."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts" / "setup")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def _set_up(machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(machine / "scripts" / "setup")],
        cwd="/",
        env={"PATH": str(machine / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_machine_without_python_is_told_so(machine: Path) -> None:
    done = _set_up(machine)

    assert done.returncode == 1
    assert "error: no Python 3.11 or newer" in done.stderr
    assert "next: " in done.stderr


def test_a_python_that_makes_no_environments_is_told_what_to_install(machine: Path) -> None:
    python = machine / "bin" / "python3"
    python.write_text(
        "#!/usr/bin/env bash\n"
        'case "$*" in *ensurepip*) exit 1;; *--version*) echo Python 3.11.2;; esac\n'
    )
    python.chmod(0o755)

    done = _set_up(machine)

    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


@pytest.mark.parametrize("script", ["bench", "soak"])
def test_without_a_name_the_names_are_listed(script: str) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / script)], cwd="/", capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert f"usage: scripts/{script} NAME" in done.stderr


@pytest.mark.parametrize("script", ["bench", "soak"])
def test_an_unknown_name_is_a_usage_error(script: str) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / script), "nothing"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "named nothing" in done.stderr
