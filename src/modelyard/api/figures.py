"""Sums as the API shows them."""

from collections.abc import Iterable, Mapping

from modelyard.api.trend_messages import (
    Figures,
    GpuView,
    MachineView,
    Quantiles,
    Times,
    Use,
    WorkersView,
)
from modelyard.core.cost import NANOS
from modelyard.core.machines import Gauge, MachineSums
from modelyard.core.rollups import Sums
from modelyard.core.sketch import Sketch


def figures(sums: Sums, seconds: float) -> Figures:
    """What requests of so many seconds add up to."""
    answered = sums.completed + sums.failed
    return Figures(
        request_count=sums.requests,
        completed_count=sums.completed,
        failed_count=sums.failed,
        cancelled_count=sums.cancelled,
        rejected_count=sums.rejected,
        limited_count=sums.limited,
        cached_count=sums.cached,
        error_rate=sums.failed / answered if answered else None,
        request_rate=sums.requests / seconds,
        response_time=_times(sums.e2e, sums.e2e_ms),
        time_to_first_token=_times(sums.ttft, sums.ttft_ms),
        inter_token_time=_quantiles(sums.itl),
        token_rate=sums.completion_tokens / seconds,
        tokens_in=sums.prompt_tokens,
        tokens_out=sums.completion_tokens,
        cost=sums.cost_nanos / NANOS if _is_known(sums) else None,
        priced_count=sums.priced,
    )


def _is_known(sums: Sums) -> bool:
    """Whether the cost of some of it is; those that got to no replica cost nothing."""
    return sums.cost_nanos > 0 or 0 < sums.requests == sums.priced


def together(parts: Iterable[Sums]) -> Sums:
    """All of them added up."""
    total = Sums()
    for part in parts:
        total.merge(part)
    return total


def machine_view(host: str, sums: MachineSums) -> MachineView:
    """One machine."""
    return MachineView(
        host=host,
        memory_bytes=_use(sums.memory),
        memory_total_bytes=sums.memory_total_bytes,
        cpu_share=_use(sums.cpu),
        load_1m=_use(sums.load),
        gpus=tuple(
            GpuView(
                index=int(number),
                name=gpu.name,
                busy_share=_use(gpu.busy),
                memory_bytes=_use(gpu.memory),
                memory_total_bytes=gpu.memory_total_bytes,
                power_w=_use(gpu.power),
                temperature_c=_use(gpu.temperature),
            )
            for number, gpu in sorted(sums.gpus.items(), key=lambda item: int(item[0]))
        ),
    )


def workers_view(
    machines: Mapping[str, MachineSums], key: str, *, whole_model: bool = False
) -> WorkersView | None:
    """What workers use on all machines: those of `worker_key`, or of all versions and slots of the
    model of that name. None when none was looked at.

    Versions that did not run at the same time are averaged over the time that the machine was
    looked at.
    """
    memory, cpus, gpu_memory = _Parts(), _Parts(), _Parts()
    for machine in machines.values():
        for name, worker in machine.workers.items():
            if name == key or (whole_model and name.rsplit("/", 2)[0] == key):
                looks = machine.memory.looks if whole_model else None
                memory.add(worker.memory, looks)
                cpus.add(worker.cpus, looks)
                gpu_memory.add(worker.gpu_memory, looks)
    if memory.average is None:
        return None
    return WorkersView(memory_bytes=memory.use, cpus=cpus.use, gpu_memory_bytes=gpu_memory.use)


class _Parts:
    """Gauges of things that are there together."""

    def __init__(self) -> None:
        self.average: float | None = None
        self.most: float | None = None

    def add(self, gauge: Gauge, looks: int | None) -> None:
        if not gauge.looks:
            return
        self.average = (self.average or 0.0) + gauge.total / (looks or gauge.looks)
        self.most = max(self.most or 0.0, gauge.most)

    @property
    def use(self) -> Use:
        return Use(average=self.average, most=self.most)


def _use(gauge: Gauge) -> Use:
    return Use(average=gauge.average, most=gauge.most if gauge.looks else None)


def _quantiles(sketch: Sketch) -> Quantiles:
    p50_s, p95_s, p99_s = (sketch.quantile(share) for share in (0.5, 0.95, 0.99))
    return Quantiles(p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def _times(sketch: Sketch, total_ms: int) -> Times:
    count = sketch.count
    quantiles = _quantiles(sketch)
    return Times(
        average_s=total_ms / 1000 / count if count else None,
        p50_s=quantiles.p50_s,
        p95_s=quantiles.p95_s,
        p99_s=quantiles.p99_s,
    )
