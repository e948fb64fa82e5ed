"""What a machine and its workers use, looked at from time to time and averaged over steps.

A step keeps for each quantity how often it was looked at, the sum and the most: averages of longer
steps come from the sums, never from averages.
"""

from collections.abc import Sequence

import msgspec


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves a version."""

    pid: int
    model: str
    """Public model name."""
    version: int
    slot: str


class WorkerSample(msgspec.Struct, frozen=True, kw_only=True):
    """What it uses, together with all that it started."""

    worker: Worker
    memory_bytes: int
    """Resident; pages that several processes share count for each."""
    cpus: float | None = None
    """Processors in use, since it was looked at before; None: it was not."""
    gpu_memory_bytes: int = 0


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """What one GPU says; None: this kind does not tell."""

    index: int
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    busy_share: float | None = None
    """Share of the last moments in which it worked, 0 to 1."""
    power_w: float | None = None
    temperature_c: float | None = None


class MachineSample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at all of it."""

    memory_used_bytes: int
    memory_total_bytes: int
    cpu_share: float | None = None
    """Of all processors, 0 to 1, since the look before; None: there was none."""
    load_1m: float
    gpus: tuple[GpuSample, ...] = ()
    workers: tuple[WorkerSample, ...] = ()


class Gauge(msgspec.Struct):
    """A quantity that was looked at."""

    looks: int = 0
    total: float = 0.0
    most: float = 0.0

    def add(self, value: float | None) -> None:
        """Take in a look; None is none."""
        if value is not None:
            self.looks += 1
            self.total += value
            self.most = max(self.most, value)

    def merge(self, other: "Gauge") -> None:
        """Take in all looks of another one."""
        self.looks += other.looks
        self.total += other.total
        self.most = max(self.most, other.most)

    @property
    def average(self) -> float | None:
        """Over all looks; None without any."""
        return self.total / self.looks if self.looks else None


class GpuSums(msgspec.Struct):
    """One GPU over a step."""

    name: str = ""
    memory_total_bytes: int = 0
    memory: Gauge = msgspec.field(default_factory=Gauge)
    busy: Gauge = msgspec.field(default_factory=Gauge)
    power: Gauge = msgspec.field(default_factory=Gauge)
    temperature: Gauge = msgspec.field(default_factory=Gauge)


class WorkerSums(msgspec.Struct):
    """All workers of one version in one slot, together, over a step."""

    memory: Gauge = msgspec.field(default_factory=Gauge)
    cpus: Gauge = msgspec.field(default_factory=Gauge)
    gpu_memory: Gauge = msgspec.field(default_factory=Gauge)


class MachineSums(msgspec.Struct):
    """A machine over a step."""

    memory: Gauge = msgspec.field(default_factory=Gauge)
    memory_total_bytes: int = 0
    cpu: Gauge = msgspec.field(default_factory=Gauge)
    load: Gauge = msgspec.field(default_factory=Gauge)
    gpus: dict[str, GpuSums] = msgspec.field(default_factory=dict)
    """By their number."""
    workers: dict[str, WorkerSums] = msgspec.field(default_factory=dict)
    """By `worker_key`."""

    def add(self, sample: MachineSample) -> None:
        """Take in a look."""
        self.memory.add(sample.memory_used_bytes)
        self.memory_total_bytes = sample.memory_total_bytes
        self.cpu.add(sample.cpu_share)
        self.load.add(sample.load_1m)
        for gpu in sample.gpus:
            sums = self.gpus.setdefault(str(gpu.index), GpuSums())
            sums.name, sums.memory_total_bytes = gpu.name, gpu.memory_total_bytes
            sums.memory.add(gpu.memory_used_bytes)
            sums.busy.add(gpu.busy_share)
            sums.power.add(gpu.power_w)
            sums.temperature.add(gpu.temperature_c)
        for key, together in _by_series(sample.workers).items():
            used = self.workers.setdefault(key, WorkerSums())
            used.memory.add(sum(each.memory_bytes for each in together))
            cpus = [each.cpus for each in together if each.cpus is not None]
            used.cpus.add(sum(cpus) if cpus else None)
            used.gpu_memory.add(sum(each.gpu_memory_bytes for each in together))

    def merge(self, other: "MachineSums") -> None:
        """Take in all looks of another step."""
        self.memory.merge(other.memory)
        self.cpu.merge(other.cpu)
        self.load.merge(other.load)
        self.memory_total_bytes = other.memory_total_bytes or self.memory_total_bytes
        for number, gpu in other.gpus.items():
            sums = self.gpus.setdefault(number, GpuSums())
            sums.name, sums.memory_total_bytes = gpu.name, gpu.memory_total_bytes
            for name in ("memory", "busy", "power", "temperature"):
                getattr(sums, name).merge(getattr(gpu, name))
        for key, worker in other.workers.items():
            used = self.workers.setdefault(key, WorkerSums())
            for name in ("memory", "cpus", "gpu_memory"):
                getattr(used, name).merge(getattr(worker, name))


def worker_key(model: str, version: int, slot: str) -> str:
    """How workers are told apart in a step."""
    return f"{model}/{version}/{slot}"


def _by_series(samples: Sequence[WorkerSample]) -> dict[str, list[WorkerSample]]:
    found: dict[str, list[WorkerSample]] = {}
    for sample in samples:
        worker = sample.worker
        found.setdefault(worker_key(worker.model, worker.version, worker.slot), []).append(sample)
    return found
