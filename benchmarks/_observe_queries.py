"""How quickly a month of traffic is asked of, how large it is, and how exact its quantiles are."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

from benchmarks._observe_store import Shape, fill, model_names
from fastapi import FastAPI
from starlette.testclient import TestClient

from modelyard.api import trends
from modelyard.api.parts import ApiParts
from modelyard.state.store import open_sqlite

ASKED = (
    ("summary of 24 hours", "/api/summary?model={model}&hours=24"),
    ("summary of 30 days", "/api/summary?model={model}&hours=720"),
    ("trend of 24 hours", "/api/trends?model={model}&hours=24"),
    ("trend of 30 days", "/api/trends?model={model}&hours=720"),
)
QUANTILES = (("p50_s", 0.5), ("p95_s", 0.95), ("p99_s", 0.99))


def measured(folder: Path, rounds: int, _: float) -> list[str]:
    """A table for people."""
    path = folder / "state.db"
    shape, now = Shape(), time.time()
    with contextlib.closing(open_sqlite(path)) as store:
        raw = fill(store, shape, now)
        parts = SimpleNamespace(store=store, clock=lambda: now)
        app = FastAPI()
        app.include_router(trends.router(cast("ApiParts", parts)))
        model = model_names(shape)[0]
        with TestClient(app) as client:

            def ask(path: str) -> Callable[[], Any]:
                return lambda: client.get(path.format(model=model)).raise_for_status().json()

            rows = [
                f"| {name} | {_milliseconds(ask(path), max(rounds, 5)):.0f} ms |"
                for name, path in ASKED
            ]
            told = ask(ASKED[0][1])()
    worst = max(
        abs(told[figure][name] / _exact(values, share) - 1)
        for figure, values in (("response_time", raw.e2e), ("time_to_first_token", raw.ttft))
        for name, share in QUANTILES
    )
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    about = (
        f"{shape.days} days of {shape.models} models of {shape.versions} versions each and "
        f"{shape.tenants} tenants: {size_mb:.0f} MB. p50, p95 and p99 of one model's last day, "
        f"{len(raw.e2e):,} requests, are at most {worst:.1%} off."
    )
    return ["| asked of one model | median |", "|---|---|", *rows, "", about]


def _milliseconds(ask: Callable[[], Any], times: int) -> float:
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        ask()
        found.append(time.perf_counter() - begun)
    return median(found) * 1000


def _exact(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
