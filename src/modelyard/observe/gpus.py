"""NVIDIA GPUs, as their driver's library tells (NVML, through `nvidia-ml-py`)."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from modelyard.core.machines import GpuSample


def load_nvml() -> Any:
    """The library, ready to be asked; None where it or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


class Gpus:
    """All GPUs of this machine; none where there is no library."""

    def __init__(self, library: Any) -> None:
        self._nvml = library

    def look(self) -> tuple[GpuSample, ...]:
        """What each uses now; one that does not answer is left out."""
        samples = (self._sample(index, handle) for index, handle in self._handles().items())
        return tuple(sample for sample in samples if sample is not None)

    def memory_by_process(self) -> Mapping[int, int]:
        """Bytes of all GPUs by process id, as far as the driver tells."""
        used: Counter[int] = Counter()
        for handle in self._handles().values():
            listed = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle)
            for process in listed or ():
                used[process.pid] += process.usedGpuMemory or 0
        return used

    def _handles(self) -> dict[int, Any]:
        if self._nvml is None:
            return {}
        count = self._ask(self._nvml.nvmlDeviceGetCount) or 0
        found = {
            index: self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count)
        }
        return {index: handle for index, handle in found.items() if handle is not None}

    def _sample(self, index: int, handle: Any) -> GpuSample | None:
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:
            return None
        name = self._ask(nvml.nvmlDeviceGetName, handle) or ""
        busy = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return GpuSample(
            index=index,
            name=name.decode() if isinstance(name, bytes) else name,
            memory_used_bytes=memory.used,
            memory_total_bytes=memory.total,
            busy_share=None if busy is None else busy.gpu / 100,
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=self._ask(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
        )

    def _ask(self, question: Callable[..., Any], *about: Any) -> Any:
        """The answer; None where this GPU does not tell, or the driver has gone."""
        try:
            return question(*about)
        except self._nvml.NVMLError:
            return None
