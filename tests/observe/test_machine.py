"""Looks at this machine: real processes, and GPUs that a stand-in for the driver's library has."""

# ruff: noqa: N802 - the stand-in has the library's names

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.core.machines import GpuSample, Worker
from modelyard.observe.gpus import Gpus, load_nvml
from modelyard.observe.machine import MachineProbe

PARENT = """
import subprocess, sys
memory = b"x" * 20_000_000
code = "memory = b'y' * 60_000_000; print(1, flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
input()
child.communicate(b"\\n")
"""


class Nvml:
    """As much of the library as is asked for: two GPUs, the second with less to tell."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.gone = False
        self.pid = 0

    def nvmlDeviceGetCount(self) -> int:
        if self.gone:
            raise self.NVMLError("the driver has gone")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=10 + handle, total=80)

    def nvmlDeviceGetName(self, handle: int) -> Any:
        return b"NVIDIA A" if handle == 0 else "NVIDIA B"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle == 1:
            raise self.NVMLError("not supported")
        return 300_500

    def nvmlDeviceGetTemperature(self, handle: int, _sensor: int) -> int:
        return 40 + handle

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        used = None if handle == 1 else 5
        return [SimpleNamespace(pid=self.pid, usedGpuMemory=used)]


def test_a_worker_is_seen_with_all_that_it_started() -> None:
    nvml = Nvml()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline() == b"1\n"
        nvml.pid = parent.pid
        worker = Worker(pid=parent.pid, model="chat", version=1, slot="blue")
        probe = MachineProbe(Gpus(nvml))
        sample = probe.look([worker])
        again = probe.look([worker])
    finally:
        parent.communicate(b"\n")

    [used] = sample.workers
    assert used.worker == worker
    assert used.memory_bytes > 80_000_000
    assert (used.cpus, sample.cpu_share) == (None, None)  # nothing to compare with yet
    assert (again.workers[0].cpus or 0) >= 0
    assert used.gpu_memory_bytes == 5
    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes
    assert again.cpu_share is not None
    assert 0 <= again.cpu_share <= 1
    assert probe.look([worker]).workers == ()  # it has ended


def test_a_gpu_tells_what_it_can() -> None:
    nvml = Nvml()
    first, second = Gpus(nvml).look()
    assert first == GpuSample(
        index=0, name="NVIDIA A", memory_used_bytes=10, memory_total_bytes=80, busy_share=0.25,
        power_w=300.5, temperature_c=40,
    )  # fmt: skip
    assert (second.name, second.memory_used_bytes) == ("NVIDIA B", 11)
    assert (second.busy_share, second.power_w, second.temperature_c) == (None, None, 41)
    nvml.gone = True
    assert Gpus(nvml).look() == ()


def test_without_a_library_there_are_no_gpus() -> None:
    assert Gpus(None).look() == ()
    assert Gpus(None).memory_by_process() == {}


def test_a_missing_driver_is_no_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    """With or without the library and a driver: a reader of them, and not a word."""
    assert isinstance(Gpus(load_nvml()).look(), tuple)
    assert capfd.readouterr() == ("", "")
