"""Real services that tests need: where they are, and why one can't be used here."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from modelyard.core.errors import ModelyardError
from modelyard.launchers.docker_daemon import Daemon

_ROOT = Path(__file__).resolve().parents[1]


def mlflow_program() -> Path:
    """The `mlflow` command of an environment with the whole package in it."""
    chosen = os.environ.get("MODELYARD_MLFLOW_SERVER")
    return Path(chosen) if chosen else _ROOT / ".venv-mlflow" / "bin" / "mlflow"


def _mlflow() -> str:
    program = mlflow_program()
    if program.is_file():
        return ""
    return f"{program} is not there; make it with: scripts/setup-mlflow"


def _btrfs() -> str:
    if shutil.which("mkfs.btrfs"):
        return ""
    return "mkfs.btrfs is not there; on Debian: apt-get install btrfs-progs"


def postgresql_programs() -> Path:
    """The folder of PostgreSQL's server programs, which Debian keeps off the path."""
    chosen = os.environ.get("MODELYARD_POSTGRESQL_BIN")
    if chosen:
        return Path(chosen)
    of_debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name)
    )
    on_path = shutil.which("initdb")
    return of_debian[-1] if of_debian else Path(on_path or "initdb").parent


def _postgresql() -> str:
    folder = postgresql_programs()
    if (folder / "initdb").is_file():
        return ""
    return f"{folder / 'initdb'} is not there; on Debian: apt-get install postgresql"


def _docker() -> str:
    try:
        Daemon().processors()
    except ModelyardError as error:
        return f"{error}; {error.next_step}"
    return ""


def _prometheus() -> str:
    if shutil.which("promtool") and shutil.which("prometheus"):
        return ""
    return "prometheus and promtool are not there; on Debian: apt-get install prometheus"


MISSING: Mapping[str, Callable[[], str]] = {
    "mlflow": _mlflow,
    "btrfs": _btrfs,
    "docker": _docker,
    "postgresql": _postgresql,
    "prometheus": _prometheus,
}
"""Service → why it can't be used; empty when it can."""
