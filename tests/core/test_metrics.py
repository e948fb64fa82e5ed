"""The declarations: complete, and in the words of the conventions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from modelyard.core.metrics.catalogue import ALL, BY_SAMPLE
from modelyard.core.metrics.declaration import LABELS, Metric

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: str(metric.name))
def test_a_declaration_is_whole(metric: Metric) -> None:
    assert re.fullmatch(r"(modelyard|gen_ai)_[a-z0-9_]+", metric.name)
    assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count"))
    assert metric.help.endswith(".")
    assert metric.unit
    assert set(metric.labels) <= set(LABELS)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.name.startswith("gen_ai_") == bool(metric.convention)
    if metric.unit in ("seconds", "bytes"):
        assert metric.name.endswith(f"_{metric.unit}")


def test_no_name_is_declared_twice() -> None:
    assert len({metric.name for metric in ALL}) == len(ALL)
    assert len(BY_SAMPLE) == sum(len(metric.samples) for metric in ALL)


def test_the_conventions_names_are_theirs() -> None:
    known = {
        value
        for name, value in vars(gen_ai_metrics).items()
        if name.startswith("GEN_AI_") and isinstance(value, str)
    }
    for metric in ALL:
        if metric.convention:
            assert metric.convention in known
            name = metric.convention.replace(".", "_") + "_seconds"
            assert metric.name == name
            assert {"gen_ai_request_model", "gen_ai_operation_name"} <= set(metric.labels)


def test_every_label_is_used() -> None:
    used = {label for metric in ALL for label in metric.labels} | {"le"}
    assert used == set(LABELS)


def test_the_document_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "metrics_reference.py")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
