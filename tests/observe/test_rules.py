"""The rules for Prometheus: every name declared, checked and tried by promtool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.core import alerting
from modelyard.core.metrics.catalogue import BY_SAMPLE
from modelyard.core.metrics.gateway import REQUESTS
from modelyard.observe.grafana import dashboard
from modelyard.observe.queries import quantile, series, total
from modelyard.observe.rules import rules, rules_yaml

NAME = re.compile(r"\b(?:modelyard|gen_ai_server)_[a-z0-9_]+\b")
RECORDED = re.compile(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+\b")


def all_rules() -> list[dict[str, Any]]:
    return [rule for group in rules()["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    variables = [each.get("definition", "") for each in dashboard()["templating"]["list"]]
    return [rule["expr"] for rule in all_rules()] + panels + variables


def test_every_name_is_declared() -> None:
    recorded = {rule["record"] for rule in all_rules() if "record" in rule}
    for expression in expressions():
        for name in RECORDED.findall(expression):
            assert name in recorded, expression
        plain = RECORDED.sub("", expression)
        names = NAME.findall(plain)
        for name in names:
            assert name in BY_SAMPLE, expression
        labels = {label for name in names for label in (*BY_SAMPLE[name].labels, "le")}
        for matchers in re.findall(r"\{([^}]*)\}", plain):
            for label in re.findall(r"(\w+)\s*(?:=~|!=|=)", matchers):
                assert label in labels, expression
        for by in re.findall(r"by \(([^)]*)\)", plain):
            assert {each.strip() for each in by.split(",")} <= labels | {"model"}, expression


def test_a_name_or_label_that_is_not_declared_can_not_be_written() -> None:
    with pytest.raises(ValueError, match="no label tenant"):
        series(REQUESTS, tenant="x")
    with pytest.raises(ValueError, match="no samples"):
        series(REQUESTS, part="bucket")
    with pytest.raises(ValueError, match="no label tenant"):
        total(REQUESTS, "model, tenant", "5m", "x")
    with pytest.raises(ValueError, match="no label tenant"):
        quantile(REQUESTS, "0.5", "tenant", "5m", "x")


def test_they_ask_what_our_own_alerts_ask() -> None:
    fast, slow = (
        next(rule for rule in all_rules() if rule.get("alert") == name)
        for name in ("ModelyardErrorsFast", "ModelyardErrorsSlow")
    )
    assert "ratio_rate1h > 0.144" in fast["expr"]
    assert "ratio_rate5m > 0.144" in fast["expr"]
    assert "ratio_rate6h > 0.06" in slow["expr"]
    assert "ratio_rate30m > 0.06" in slow["expr"]
    defaults = {rule.name: rule for rule in alerting.DEFAULTS}
    no_replica = next(
        rule for rule in all_rules() if rule.get("alert") == "ModelyardNoHealthyReplica"
    )
    assert no_replica["for"] == f"{defaults['no-replica'].for_s:.0f}s"


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.service("prometheus")
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules_yaml())

    done = promtool("check", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(all_rules())} rules found" in done.stdout


def requests(model: str, completed: str, failed: str) -> list[dict[str, str]]:
    place = {"model": model, "version": "w:1", "slot": "blue", "operation": "chat"}
    name = REQUESTS.sample
    return [
        level(name, completed, **place, outcome="completed", status="200"),
        level(name, failed, **place, outcome="failed", status="502"),
    ]


def case(
    name: str, series: list[dict[str, str]], fires: dict[str, list[str]], at: str = "70m"
) -> dict[str, Any]:
    """At that time exactly these alerts fire, for these models (or gateways)."""
    alerts = [rule for rule in all_rules() if "alert" in rule]
    checks = []
    for alert in alerts:
        expected = []
        for model in fires.get(alert["alert"], ()):
            labels = {"severity": "page"} | ({"model": model} if model else {})
            expected.append({"exp_labels": labels})
        checks.append({"eval_time": at, "alertname": alert["alert"], "exp_alerts": expected})
    return {"name": name, "interval": "1m", "input_series": series, "alert_rule_test": checks}


def level(name: str, values: str, **labels: str) -> dict[str, str]:
    told = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{told}}}" if told else name, "values": values}


REPLICA = {"version": "w:1", "slot": "blue", "replica": "r"}
CASES = [
    case("all is well", [
        *requests("m", "0+60x360", "0+0x360"),
        level("modelyard_live_replicas_ready", "1x360", model="m"),
        level("modelyard_live_replicas_wanted", "1x360", model="m"),
        level("modelyard_replica_available", "1x360", model="m", **REPLICA),
        level("modelyard_replica_failures_total", "0x360", model="m"),
        level("modelyard_gateway_records_dropped_total", "5x360"),
        level("modelyard_gateway_records_waiting", "10x360"),
    ], {}),
    case("a fifth fails", requests("m", "0+48x400", "0+12x400"),
         {"ModelyardErrorsFast": ["m"], "ModelyardErrorsSlow": ["m"]}, "390m"),
    case("a tenth fails: slowly", requests("m", "0+54x400", "0+6x400"),
         {"ModelyardErrorsSlow": ["m"]}, "390m"),
    case("four in a hundred fail", requests("m", "0+96x400", "0+4x400"), {}, "390m"),
    case("all of a few fail", requests("m", "0+0x400", "0+1x8 8x392"), {}),
    case("it is over", requests("m", "0+30x400", "0+30x50 1500x350"), {}, "100m"),
    case("no replica is ready", [
        level("modelyard_live_replicas_ready", "1x60 0x20", model="m"),
        level("modelyard_live_replicas_wanted", "2x80", model="m"),
    ], {"ModelyardNoHealthyReplica": ["m"]}),
    case("none is wanted", [
        level("modelyard_live_replicas_ready", "0x80", model="m"),
        level("modelyard_live_replicas_wanted", "0x80", model="m"),
    ], {}),
    case("a breaker is open and it was the only one", [
        level("modelyard_replica_available", "1x60 0x20", model="m", **REPLICA),
    ], {"ModelyardNoHealthyReplica": ["m"]}),
    case("one of two breakers is open", [
        level("modelyard_replica_available", "0x80", model="m", **REPLICA),
        level("modelyard_replica_available", "1x80", model="m", **REPLICA | {"replica": "s"}),
    ], {}),
    case("it crashes again and again", [
        level("modelyard_replica_failures_total", "0x62 1x2 2x2 3x20", model="m"),
    ], {"ModelyardCrashLoop": ["m"]}),
    case("it crashed twice", [
        level("modelyard_replica_failures_total", "0x62 1x2 2x20", model="m"),
    ], {}),
    case("records are lost", [
        level("modelyard_gateway_records_dropped_total", "0x66 100x20"),
    ], {"ModelyardRecordsDropped": [""]}),
    case("they were lost long ago", [
        level("modelyard_gateway_records_dropped_total", "0x30 100x60"),
    ], {}),
    case("records wait", [
        level("modelyard_gateway_records_waiting", "60000x80"),
    ], {"ModelyardRecordsWaiting": [""]}),
]  # fmt: skip


@pytest.mark.service("prometheus")
@pytest.mark.parametrize("tried", CASES, ids=lambda tried: str(tried["name"]))
def test_alerts_fire_when_they_should_and_not_otherwise(
    tried: dict[str, Any], tmp_path: Path
) -> None:
    bare = rules()
    for group in bare["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("annotations", None)  # their words are not what is tried
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(bare))
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [tried]}
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(test))

    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
