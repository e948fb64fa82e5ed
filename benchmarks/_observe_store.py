"""A store as a month of traffic leaves it, made quickly: models and versions, tenants, all steps.

`fill` writes rows of sums as `Records.add` would have, for what was kept: minutes of the last 48
hours, quarters of an hour of 30 days, days of as many as asked. It returns the raw response times
and times to first token of one model over its last day, so that quantiles can be held against them.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from modelyard.core.machines import Gauge, GpuSums, MachineSums, WorkerSums
from modelyard.core.rollups import KEPT_S, Series, Step, Sums, TenantSums
from modelyard.state.store import Store
from modelyard.state.tables import machines, rollups, tenant_hours

_ROWS_AT_ONCE = 2000
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How much of it."""

    models: int = 20
    versions: int = 3
    tenants: int = 20
    days: int = 30
    requests_per_minute: int = 6
    """Of each version, on the whole."""
    machines: int = 1
    seed: int = 7


@dataclass
class Raw:
    """What one model's requests of the last 24 hours took, in seconds."""

    e2e: list[float] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)


def model_names(shape: Shape) -> list[str]:
    """The first is the one whose raw values `fill` returns."""
    return [f"model-{number:02}" for number in range(shape.models)]


def fill(store: Store, shape: Shape, now: float) -> Raw:
    """Write all of it into an empty store, as of `now` (Unix seconds)."""
    draw = random.Random(shape.seed)
    raw = Raw()
    _insert(store, rollups, _rollups(shape, draw, now, raw))
    _insert(store, tenant_hours, _tenants(shape, draw, now))
    _insert(store, machines, _machines(shape, now))
    return raw


def series_of(shape: Shape) -> list[Series]:
    """All that is told apart."""
    return [
        Series(model, version, f"sha256:{version:064x}", "blue" if version % 2 else "green")
        for model in model_names(shape)
        for version in range(1, shape.versions + 1)
    ]


def _rollups(
    shape: Shape, draw: random.Random, now: float, raw: Raw
) -> Iterator[dict[str, object]]:
    begin = Step.DAY.begin(now) - shape.days * _DAY_S
    minutes_since = Step.MINUTE.begin(now - (KEPT_S[Step.MINUTE] or 0))
    last_day = Step.MINUTE.begin(now - _DAY_S)
    for series in series_of(shape):
        days: dict[int, Sums] = {}
        first = series.model == model_names(shape)[0]
        quarter = Step.QUARTER.begin(begin)
        while quarter <= now:
            total = Sums()
            if quarter + Step.QUARTER > minutes_since:
                for at in range(quarter, min(quarter + int(Step.QUARTER), int(now)), 60):
                    kept = raw if first and at >= last_day else None
                    sums = _some(draw, shape.requests_per_minute, kept)
                    total.merge(sums)
                    if at >= minutes_since:
                        yield _row(Step.MINUTE, at, series, sums)
            else:
                total = _some(draw, 15 * shape.requests_per_minute, None)
            if quarter >= Step.QUARTER.begin(now - (KEPT_S[Step.QUARTER] or 0)):
                yield _row(Step.QUARTER, quarter, series, total)
            days.setdefault(Step.DAY.begin(quarter), Sums()).merge(total)
            quarter += int(Step.QUARTER)
        for at, sums in days.items():
            yield _row(Step.DAY, at, series, sums)


def _some(draw: random.Random, count: int, raw: Raw | None) -> Sums:
    """Requests of one minute or more."""
    sums = Sums()
    sums.requests = count
    sums.failed = sum(draw.random() < 0.01 for _ in range(count))
    completed = count - sums.failed
    sums.prompt_tokens, sums.completion_tokens = 600 * count, 200 * completed
    sums.streamed = count
    sums.cost_nanos, sums.priced = 40_000 * count, count
    for _ in range(completed):
        ttft_s = draw.lognormvariate(-1.6, 0.7)
        e2e_s = ttft_s + draw.lognormvariate(0.9, 0.6)
        sums.ttft.add(ttft_s)
        sums.e2e.add(e2e_s)
        sums.itl.add(draw.lognormvariate(-3.9, 0.3))
        sums.ttft_ms += round(ttft_s * 1000)
        sums.e2e_ms += round(e2e_s * 1000)
        if raw is not None:
            raw.ttft.append(ttft_s)
            raw.e2e.append(e2e_s)
    return sums


def _row(step: Step, at: int, series: Series, sums: Sums) -> dict[str, object]:
    row: dict[str, object] = {"step": int(step), "at": at, **series._asdict()}
    row |= {name: getattr(sums, name) for name in Sums.COUNTS}
    row |= {name: getattr(sums, name).encode() for name in Sums.SKETCHES}
    return row


def _tenants(shape: Shape, draw: random.Random, now: float) -> Iterator[dict[str, object]]:
    begin = Step.DAY.begin(now) - shape.days * _DAY_S
    for hour in range(begin, int(now), 3600):
        for model in model_names(shape):
            for tenant in range(shape.tenants):
                values = dict.fromkeys(TenantSums.COUNTS, draw.randrange(1, 1000))
                yield {"hour": hour, "tenant": f"tenant-{tenant:03}", "model": model, **values}


def _machines(shape: Shape, now: float) -> Iterator[dict[str, object]]:
    sums = _machine(shape)
    body = _encoded(sums)
    for step in Step:
        kept_s = min(KEPT_S[step] or 1e12, shape.days * _DAY_S)
        for at in range(step.begin(now - kept_s), int(now), int(step)):
            for number in range(shape.machines):
                yield {"step": int(step), "at": at, "host": f"machine-{number}", "body": body}


def _machine(shape: Shape) -> MachineSums:
    gauge = Gauge(looks=6, total=6e10, most=1.1e10)
    sums = MachineSums(memory=gauge, memory_total_bytes=64 * 10**9, cpu=gauge, load=gauge)
    sums.gpus = {
        str(number): GpuSums(name="GPU", memory=gauge, busy=gauge, power=gauge, temperature=gauge)
        for number in range(8)
    }
    sums.workers = {
        f"{each.model}/{each.version}/{each.slot}": WorkerSums(
            memory=gauge, cpus=gauge, gpu_memory=gauge
        )
        for each in series_of(shape)
    }
    return sums


def _encoded(sums: MachineSums) -> str:
    import msgspec

    return msgspec.json.encode(sums).decode()


def _insert(store: Store, table: sa.Table, rows: Iterator[dict[str, object]]) -> None:
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) >= _ROWS_AT_ONCE:
            _write(store, table, batch)
            batch = []
    if batch:
        _write(store, table, batch)


def _write(store: Store, table: sa.Table, batch: Sequence[dict[str, object]]) -> None:
    # Past the store's own methods, which would count request by request.
    with store._database.transaction() as connection:
        connection.execute(sa.insert(table), list(batch))


def main() -> None:
    """Fill a store in a temporary folder and say how long it takes and how large it is."""
    import tempfile
    from pathlib import Path

    from modelyard.state.store import open_sqlite

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        store = open_sqlite(path)
        began = time.perf_counter()
        raw = fill(store, Shape(), time.time())
        store.close()
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(
            f"{size / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s; "
            f"{len(raw.e2e)} raw values of {model_names(Shape())[0]}"
        )


if __name__ == "__main__":
    main()
