"""What `modelyard doctor` looks at. Each check returns findings; nothing is changed."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from modelyard.cli.output import human_bytes
from modelyard.core.home import Home

Mark = Literal["ok", "warn", "fail"]
LOW_DISK_BYTES = 10e9
NO_DISK_BYTES = 200e6
LOW_MEMORY_BYTES = 2e9
NVIDIA_SMI_TIMEOUT_S = 10.0
WIDE_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    check: str
    mark: Mark
    detail: str
    next_step: str = ""
    """What to do, often a command; empty when there is nothing to do."""


class Ports(msgspec.Struct, frozen=True):
    """The two that `modelyard up` listens on."""

    gateway: int
    controller: int


def look(home: Home, ports: Ports) -> Iterator[Finding]:
    """Every check, in the order of the report."""
    yield python()
    yield system()
    yield processor()
    yield memory()
    yield disk(home)
    yield graphics()
    yield from engines()
    yield catalogue()
    yield from state(home)
    running = (home.run / "controller.json").exists()
    yield port("gateway port", ports.gateway, "--gateway-port", running=running)
    yield port("controller port", ports.controller, "--port", running=running)


def python() -> Finding:
    """Python's version."""
    found = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    return Finding(check="Python", mark="ok", detail=found)


def system() -> Finding:
    """The operating system; only Linux is tested."""
    detail = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if platform.system() == "Linux":
        return Finding(check="System", mark="ok", detail=detail)
    return Finding(
        check="System", mark="warn", detail=detail, next_step="Modelyard is tested on Linux only"
    )


def processor() -> Finding:
    """Usable cores, and the instructions that make inference fast."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        pass
    wide = [name for name in WIDE_INSTRUCTIONS if name in flags]
    detail = f"{usable} cores usable, {' '.join(wide) or 'no wide vector instructions seen'}"
    return Finding(check="Processor", mark="ok" if wide else "warn", detail=detail)


def memory() -> Finding:
    """Memory that can still be had."""
    now = psutil.virtual_memory()
    detail = f"{human_bytes(now.available)} available of {human_bytes(now.total)}"
    if now.available >= LOW_MEMORY_BYTES:
        return Finding(check="Memory", mark="ok", detail=detail)
    return Finding(
        check="Memory", mark="warn", detail=detail, next_step="only very small models will fit"
    )


def disk(home: Home) -> Finding:
    """Space where the home lies, or would lie, and whether it can be written."""
    place = home.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{human_bytes(free)} free at {home.root}"
    mark: Mark = "ok"
    next_step = ""
    if not os.access(place, os.W_OK | os.X_OK):
        mark, detail = "fail", f"{place} can't be written"
        next_step = "choose another place with --home DIR"
    elif free < NO_DISK_BYTES:
        mark, next_step = "fail", "free some space, or choose another place with --home DIR"
    elif free < LOW_DISK_BYTES:
        mark, next_step = "warn", "a model of 7B parameters takes about 15 GB"
    return Finding(check="Disk", mark=mark, detail=detail, next_step=next_step)


def graphics() -> Finding:
    """NVIDIA GPUs, as nvidia-smi tells them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(check="GPU", mark="ok", detail="none found; models run on the processor")
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed argument vector
            query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            check="GPU",
            mark="warn",
            detail=f"nvidia-smi failed: {' '.join(str(error).split())}",
            next_step="see what nvidia-smi itself prints",
        )
    return Finding(check="GPU", mark="ok", detail="; ".join(done.stdout.strip().splitlines()))


def installed(distribution: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def engines() -> Iterator[Finding]:
    """The engine that Modelyard drives, and those that a later release will."""
    found = installed("xllamacpp")
    if found is None:
        yield Finding(
            check="Engine llama.cpp",
            mark="fail",
            detail="not installed; it is the default engine",
            next_step="pip install xllamacpp",
        )
    else:
        yield Finding(check="Engine llama.cpp", mark="ok", detail=f"xllamacpp {found}")
    for name, package in (("vLLM", "vllm"), ("SGLang", "sglang"), ("transformers", "transformers")):
        version = installed(package)
        here = "not installed" if version is None else f"{package} {version}"
        yield Finding(
            check=f"Engine {name}", mark="ok", detail=f"{here}; this release does not drive it yet"
        )


def catalogue() -> Finding:
    """MLflow, which holds the catalogue."""
    found = installed("mlflow-skinny") or installed("mlflow")
    if found is None:
        return Finding(
            check="MLflow",
            mark="fail",
            detail="not installed; it holds the model catalogue",
            next_step="pip install mlflow-skinny",
        )
    return Finding(check="MLflow", mark="ok", detail=f"{found}, catalogue in the home")


def state(home: Home) -> Iterator[Finding]:
    """Whether something runs on the home, and run records that can't be read."""
    if not home.root.exists():
        yield Finding(check="Home", mark="ok", detail=f"{home.root} is not there yet")
        return
    damaged = [path for path in sorted(home.run.rglob("*.json")) if not _readable(path)]
    for path in damaged:
        yield Finding(
            check="Home",
            mark="warn",
            detail=f"the run record {path} is damaged",
            next_step=f"look with ps whether what it names still runs, then remove {path}",
        )
    if home.run / "controller.json" not in damaged:
        yield _what_runs(home)


def _readable(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def _what_runs(home: Home) -> Finding:
    record = home.run / "controller.json"
    if not record.exists():
        return Finding(check="Home", mark="ok", detail=f"{home.root}, nothing runs on it")
    from modelyard.client import Client
    from modelyard.core.errors import ModelyardError

    try:
        with Client.from_home(home) as client:
            now = client.status()
    except ModelyardError as error:
        return Finding(
            check="Home",
            mark="warn",
            detail=f"{home.root} says that it runs, but: {error}",
            next_step=f"modelyard up --home {home.root}",
        )
    ready = sum(one.replicas_ready for one in now.deployments)
    detail = f"{home.root} runs; deployments: {len(now.deployments)}, replicas ready: {ready}"
    return Finding(check="Home", mark="ok", detail=detail)


def port(check: str, number: int, option: str, *, running: bool) -> Finding:
    """Whether `modelyard up` could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            if running:
                return Finding(check=check, mark="ok", detail=f"{number} in use, as it should be")
            return Finding(
                check=check,
                mark="warn",
                detail=f"{number} can't be used: {error.strerror}",
                next_step=f"modelyard up {option} PORT",
            )
    return Finding(check=check, mark="ok", detail=f"{number} is free")
