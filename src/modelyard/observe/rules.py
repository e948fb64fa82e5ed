"""Recording and alert rules for Prometheus, written from the declared metrics.

They ask what Modelyard's own alerts ask, with the same windows, rates and least traffic
(`core/alerting.py`). The names of what is recorded are `LEVEL:METRIC:OPERATION`.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from modelyard.core.alerting import (
    BURN_RATES,
    COUNTED_OUTCOMES,
    MIN_REQUESTS_LONG,
    MIN_REQUESTS_SHORT,
    OBJECTIVE,
    BurnRate,
    CrashLoopRule,
    NoReplicaRule,
    RecordsRule,
)
from modelyard.core.metrics import controller, gateway
from modelyard.observe.queries import quantile, series, total

_COUNTED = f'outcome=~"{"|".join(COUNTED_OUTCOMES)}"'
_NO_REPLICA = NoReplicaRule(name="no-replica", for_s=30.0)
_CRASH_LOOP = CrashLoopRule(name="crash-loop")
_RECORDS = RecordsRule(name="records", for_s=60.0)
_HEAD = """# Written by `modelyard metrics rules`; see docs/observability.md.
"""

Rule = dict[str, Any]


def rules_yaml(objective: float = OBJECTIVE) -> str:
    """The file that `rule_files` of a Prometheus names; `objective` is a share, such as 0.99."""
    text = yaml.safe_dump(rules(objective), sort_keys=False, width=100, allow_unicode=True)
    return _HEAD + text


def rules(objective: float = OBJECTIVE) -> dict[str, Any]:
    """The same as data."""
    return {
        "groups": [
            {"name": "modelyard-recorded", "interval": "30s", "rules": list(_recorded())},
            {"name": "modelyard-alerts", "rules": list(_alerts(objective))},
        ]
    }


def window(seconds: float) -> str:
    """`5m`, `1h`: as Prometheus writes a duration."""
    whole = int(seconds)
    if whole % 3600 == 0:
        return f"{whole // 3600}h"
    return f"{whole // 60}m" if whole % 60 == 0 else f"{whole}s"


def error_ratio(seconds: float) -> str:
    """Name of the recorded share of failed requests over a window."""
    return f"model:modelyard_request_errors:ratio_rate{window(seconds)}"


def _recorded() -> Iterator[Rule]:
    lengths = sorted({length for rate in BURN_RATES for length in (rate.long_s, rate.short_s)})
    requests = gateway.REQUESTS
    for seconds in lengths:
        over = window(seconds)
        counted = total(requests, "model", over, series(requests, _COUNTED))
        failed = total(requests, "model", over, series(requests, outcome="failed"))
        # A model without any failure has none to divide: its share is 0, not unknown.
        yield _record(error_ratio(seconds), f"({failed} or 0 * {counted}) / {counted}")
    yield _record(
        "model:modelyard_requests:rate5m", total(requests, "model", "5m", series(requests))
    )
    tokens = gateway.TOKENS
    yield _record(
        "model_version:modelyard_tokens:rate5m",
        total(tokens, "model, version, gen_ai_token_type", "5m", series(tokens)),
    )
    for share, name in (("0.5", "p50"), ("0.99", "p99")):
        for metric, called in (
            (gateway.TIME_TO_FIRST_TOKEN, "time_to_first_token_seconds"),
            (gateway.REQUEST_DURATION, "request_duration_seconds"),
        ):
            by = "gen_ai_request_model, version"
            yield _record(
                f"model_version:modelyard_{called}:{name}_5m",
                quantile(metric, share, by, "5m", series(metric)),
            )


def _alerts(objective: float) -> Iterator[Rule]:
    for rate in BURN_RATES:
        yield _burning(rate, objective)
    wanted, ready = series(controller.REPLICAS_WANTED), series(controller.REPLICAS_READY)
    available = f"max by (model) ({series(gateway.REPLICA_AVAILABLE)}) == 0"
    yield _alert(
        "ModelyardNoHealthyReplica",
        f"({ready} == 0 and {wanted} > 0) or {available}",
        _NO_REPLICA.for_s,
        _NO_REPLICA.severity,
        "No replica of {{ $labels.model }} can take requests.",
        "modelyard status and modelyard logs {{ $labels.model }} tell why.",
    )
    failures, within = series(controller.REPLICA_FAILURES), window(_CRASH_LOOP.within_s)
    yield _alert(
        "ModelyardCrashLoop",
        # What grew by exactly 3 is seen as a little less or more between two scrapes.
        f"increase({failures}[{within}]) > {_CRASH_LOOP.failures - 0.5}",
        _CRASH_LOOP.for_s,
        _CRASH_LOOP.severity,
        "Replicas of {{ $labels.model }} end again and again.",
        "modelyard logs {{ $labels.model }} shows what they wrote last.",
    )
    dropped = series(gateway.RECORDS_DROPPED)
    yield _alert(
        "ModelyardRecordsDropped",
        f"increase({dropped}[{window(_RECORDS.within_s)}]) > 0",
        0.0,
        _RECORDS.severity,
        "A gateway loses records of requests: usage and cost are no longer complete.",
        "Its spool is full: is the controller away, or the disk?",
    )
    yield _alert(
        "ModelyardRecordsWaiting",
        f"{series(gateway.RECORDS_WAITING)} > {_RECORDS.max_waiting}",
        _RECORDS.for_s,
        _RECORDS.severity,
        "A gateway has {{ $value }} records that no controller took.",
        "modelyard status tells whether the controller runs.",
    )


def _burning(rate: BurnRate, objective: float) -> Rule:
    requests = gateway.REQUESTS
    most = round(rate.factor * (1.0 - objective), 10)
    parts = []
    for seconds, least in ((rate.long_s, MIN_REQUESTS_LONG), (rate.short_s, MIN_REQUESTS_SHORT)):
        counted = series(requests, _COUNTED)
        parts.append(f"{error_ratio(seconds)} > {most:g}")
        parts.append(f"sum by (model) (increase({counted}[{window(seconds)}])) >= {least}")
    long, short = window(rate.long_s), window(rate.short_s)
    return _alert(
        "ModelyardErrors" + rate.name.removeprefix("errors-").title(),
        " and ".join(parts),
        0.0,
        rate.severity,
        f"Over {most:.2%} of the requests of {{{{ $labels.model }}}} fail, "
        f"over {long} and over {short}.",
        f"The error budget is used {rate.factor:g} times faster than {objective:.4g} allows; "
        "modelyard explain REQUEST_ID tells why one failed.",
    )


def _record(name: str, expr: str) -> Rule:
    return {"record": name, "expr": expr}


def _alert(
    name: str, expr: str, for_s: float, severity: str, summary: str, description: str
) -> Rule:
    rule: Rule = {"alert": name, "expr": expr}
    if for_s:
        rule["for"] = window(for_s)
    rule["labels"] = {"severity": severity}
    rule["annotations"] = {"summary": summary, "description": description}
    return rule
