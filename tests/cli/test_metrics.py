"""`modelyard metrics`: what it prints can be used as it is."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

TEXTS = Path(__file__).resolve().parents[1] / "core" / "expositions"


def run(*arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", "metrics", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_rules_are_yaml_that_a_prometheus_takes() -> None:
    groups = yaml.safe_load(run("rules").stdout)["groups"]
    assert [group["name"] for group in groups] == ["modelyard-recorded", "modelyard-alerts"]
    stricter = run("rules", "--objective", "0.999").stdout
    assert "ratio_rate1h > 0.0144 and" in stricter


def test_an_objective_that_no_share_can_pass_is_refused() -> None:
    for objective in ("0.5", "1", "0"):
        done = run("rules", "--objective", objective)
        assert (done.returncode, done.stdout) == (2, "")


def test_the_dashboard_is_json() -> None:
    assert json.loads(run("dashboard").stdout)["title"] == "Modelyard"


def test_every_metric_is_listed() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert {metric["by"] for metric in listed} == {"gateway", "controller"}
    lines = run("list", "--of", "controller").stdout.splitlines()
    assert 0 < len(lines) < len(listed)
    assert all("controller" in line for line in lines)
    assert run("list", "--of", "nobody").returncode == 2


def test_what_of_an_engine_is_not_known_is_named() -> None:
    assert "vllm:kv_cache_usage_perc or vllm:gpu_cache_usage_perc" in run("engines").stdout
    done = run("engines", "--text", str(TEXTS / "vllm.txt"))
    assert "1 not known" in done.stdout
    assert "vllm:of_next_year" in done.stdout
    piped = run("engines", "--text", "-", "--json", given=(TEXTS / "sglang.txt").read_text())
    assert json.loads(piped.stdout)["unmapped"] == []
    refused = run("engines", "--text", "-", given="nothing of the kind\n")
    assert refused.returncode == 1
    assert "next: " in refused.stderr
