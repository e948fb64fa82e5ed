"""This machine: memory, processors, GPUs, and what the workers' processes use of them."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence

import psutil

from modelyard.core.machines import MachineSample, Worker, WorkerSample
from modelyard.observe.gpus import Gpus


class MachineProbe:
    """Looks at it; what is told by the time between two looks begins with the first. Blocks for
    some milliseconds."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._used: dict[int, tuple[float, float]] = {}
        """By process id: seconds of processors, and when (monotonic)."""
        psutil.cpu_percent(None)
        self._looked = False

    def look(self, workers: Sequence[Worker]) -> MachineSample:
        """What all of it uses now; a worker that has ended is left out."""
        memory, cpu_share = psutil.virtual_memory(), psutil.cpu_percent(None) / 100
        looked, self._looked = self._looked, True
        return MachineSample(
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            cpu_share=cpu_share if looked else None,
            load_1m=os.getloadavg()[0],
            gpus=self._gpus.look(),
            workers=self._workers(workers),
        )

    def _workers(self, workers: Sequence[Worker]) -> tuple[WorkerSample, ...]:
        if not workers:
            self._used = {}
            return ()
        children, on_gpus = _children(), self._gpus.memory_by_process()
        used: dict[int, tuple[float, float]] = {}
        found = []
        for worker in workers:
            tree = _tree(worker.pid, children)
            memory, cpu_s = _totals(tree)
            if not memory:
                continue
            now, before = time.monotonic(), self._used.get(worker.pid)
            used[worker.pid] = (cpu_s, now)
            found.append(
                WorkerSample(
                    worker=worker,
                    memory_bytes=memory,
                    cpus=None if before is None else _rate(before, (cpu_s, now)),
                    gpu_memory_bytes=sum(on_gpus.get(pid, 0) for pid in tree),
                )
            )
        self._used = used
        return tuple(found)


def _rate(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Processors in use between two looks; a child that has ended took its time with it."""
    return max(now[0] - before[0], 0.0) / max(now[1] - before[1], 0.001)


def _children() -> Mapping[int, list[int]]:
    """Process ids by that of the parent."""
    found: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        found.setdefault(process.info["ppid"] or 0, []).append(process.pid)
    return found


def _tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.append(one)
            waiting.extend(children.get(one, ()))
    return found


def _totals(pids: Iterable[int]) -> tuple[int, float]:
    """Resident bytes and seconds of processors of those that are still there."""
    memory, cpu_s = 0, 0.0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
                cpu_s += times.user + times.system
        except psutil.Error:  # it has ended, or is another user's
            continue
    return memory, cpu_s
