"""A Grafana dashboard, written from the declared metrics."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from modelyard.core.metrics import controller, engines, gateway
from modelyard.core.metrics.declaration import Metric
from modelyard.observe.queries import quantile, series, total

SCHEMA_VERSION = 39
"""Of Grafana's dashboard JSON; newer Grafanas take it over when they load it."""
_OVER = "$__rate_interval"
_WIDTH, _HEIGHT, _ACROSS = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MODEL = 'model=~"$model", version=~"$version"'
_GEN_AI = 'gen_ai_request_model=~"$model", version=~"$version"'
_MODEL_ALONE = 'model=~"$model"'


class Query(NamedTuple):
    """One line of a panel, or one for each combination of labels."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One graph."""

    title: str
    told: str
    unit: str
    """In Grafana's words."""
    queries: Sequence[Query]
    stacked: bool = False


def dashboard_json() -> str:
    """The file to import."""
    return json.dumps(dashboard(), indent=2) + "\n"


def dashboard() -> dict[str, Any]:
    """The same as data."""
    return {
        "uid": "modelyard",
        "title": "Modelyard",
        "description": "Written by `modelyard metrics dashboard`.",
        "tags": ["modelyard", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_laid_out()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }
    requests = gateway.REQUESTS.sample
    known = f"{requests}{{{_MODEL_ALONE}}}"
    for name, label, query in (
        ("model", "Model", f"label_values({requests}, model)"),
        ("version", "Version", f"label_values({known}, version)"),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": ["All"], "value": ["$__all"]},
            "hide": 0,
            "refresh": 2,
            "sort": 1,
        }


def _laid_out() -> Iterator[dict[str, Any]]:
    """Rows of three, each headed."""
    number, y = 1, 0
    for title, panels in _rows():
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
            "panels": [],
        }
        number, y = number + 1, y + 1
        for index, panel in enumerate(panels):
            row, column = divmod(index, _ACROSS)
            yield _panel(number, panel, column * _WIDTH, y + row * _HEIGHT)
            number += 1
        y += -(-len(panels) // _ACROSS) * _HEIGHT


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.told,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "drawStyle": "line",
                    "fillOpacity": 20 if panel.stacked else 5,
                    "showPoints": "never",
                    "stacking": stacking,
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "editorMode": "code",
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _rows() -> Iterator[tuple[str, Sequence[Panel]]]:
    yield "Requests", list(_requests())
    yield "Latency", list(_latency())
    yield "Tokens and cost", list(_tokens())
    yield "Replicas and engines", list(_engines())
    yield "Modelyard itself", list(_itself())


def _rate(metric: Metric, by: str, matching: str, **labels: str) -> str:
    return total(metric, by, _OVER, series(metric, matching, **labels))


def _requests() -> Iterator[Panel]:
    requests, cached = gateway.REQUESTS, gateway.CACHE_RESULTS
    counted = _rate(requests, "model, version", f'{_MODEL}, outcome=~"completed|failed"')
    failed = _rate(requests, "model, version", _MODEL, outcome="failed")
    yield Panel(
        "Requests", "Requests that ended, by model and version.", "reqps",
        [Query(_rate(requests, "model, version", _MODEL), "{{model}} {{version}}")], stacked=True,
    )  # fmt: skip
    yield Panel(
        "Errors",
        "Share of requests that failed, of those that completed or failed.",
        "percentunit",
        [Query(f"({failed} or 0 * {counted}) / {counted}", "{{model}} {{version}}")],
    )
    yield Panel(
        "Outcomes", "By how they ended, and the status of the answer.", "reqps",
        [Query(_rate(requests, "outcome, status", _MODEL), "{{outcome}} {{status}}")],
    )  # fmt: skip
    flying = series(gateway.REPLICA_IN_FLIGHT, _MODEL)
    yield Panel(
        "In flight", "Requests sent to replicas and not ended.", "short",
        [Query(f"sum by (model, version) ({flying})", "{{model}} {{version}}")], stacked=True,
    )  # fmt: skip
    yield Panel(
        "Queue",
        "Requests in line for a replica, and how long the 99th of 100 waited.",
        "short",
        [
            Query(f"sum({series(gateway.WAITING)})", "waiting"),
            Query(
                quantile(
                    gateway.QUEUE_TIME, "0.99", "model", _OVER, series(gateway.QUEUE_TIME, _MODEL)
                ),
                "p99 seconds {{model}}",
            ),
        ],
    )
    yield Panel(
        "Cache", "Requests of models with a cache, by what it had for them.", "reqps",
        [Query(_rate(cached, "model, result", _MODEL_ALONE), "{{model}} {{result}}")],
    )  # fmt: skip


def _latency() -> Iterator[Panel]:
    for title, metric, told in (
        ("Time to first token", gateway.TIME_TO_FIRST_TOKEN, "Acceptance to the first byte."),
        ("Time per token", gateway.TIME_PER_OUTPUT_TOKEN, "Between the events of a stream."),
        ("Duration", gateway.REQUEST_DURATION, "Acceptance to the last byte."),
    ):
        by = "gen_ai_request_model, version"
        yield Panel(
            title,
            told,
            "s",
            [
                Query(
                    quantile(metric, share, by, _OVER, series(metric, _GEN_AI)),
                    f"{name} {{{{gen_ai_request_model}}}} {{{{version}}}}",
                )
                for share, name in (("0.5", "p50"), ("0.99", "p99"))
            ],
        )


def _tokens() -> Iterator[Panel]:
    tokens, cost = gateway.TOKENS, gateway.COST
    by = "model, version, gen_ai_token_type"
    yield Panel(
        "Tokens per second", "Of prompts (input) and answers (output).", "short",
        [Query(_rate(tokens, by, _MODEL), "{{model}} {{version}} {{gen_ai_token_type}}")],
    )  # fmt: skip
    yield Panel(
        "Cost per hour", "Of requests, in the reporting currency.", "short",
        [Query(f"3600 * {_rate(cost, 'model, version', _MODEL)}", "{{model}} {{version}}")],
        stacked=True,
    )  # fmt: skip
    limited = _rate(gateway.LIMITED, "model", _MODEL_ALONE)
    yield Panel("Limited", "Requests refused by a limit.", "reqps", [Query(limited, "{{model}}")])


def _engines() -> Iterator[Panel]:
    state = series(controller.REPLICAS, _MODEL)
    yield Panel(
        "Replicas", "By state.", "short",
        [Query(f"sum by (model, state) ({state})", "{{model}} {{state}}")],
    )  # fmt: skip
    running, waiting = series(engines.RUNNING, _MODEL), series(engines.WAITING, _MODEL)
    yield Panel(
        "Engine load", "Requests that engines decode, and those in their own queues.", "short",
        [
            Query(f"sum by (model, version) ({running})", "running {{model}} {{version}}"),
            Query(f"sum by (model, version) ({waiting})", "waiting {{model}} {{version}}"),
        ],
    )  # fmt: skip
    usage = series(engines.KV_USAGE, _MODEL)
    yield Panel(
        "Memory for keys and values", "Share in use, of each replica.", "percentunit",
        [Query(f"max by (model, replica) ({usage})", "{{model}} {{replica}}")],
    )  # fmt: skip
    hits = _rate(engines.PREFIX_HITS, "model, version", _MODEL)
    asked = _rate(engines.PREFIX_QUERIES, "model, version", _MODEL)
    yield Panel(
        "Prefix cache", "Share of the prompts' tokens that engines found in it.", "percentunit",
        [Query(f"{hits} / {asked}", "{{model}} {{version}}")],
    )  # fmt: skip
    attempts = _rate(gateway.ATTEMPTS, "model, outcome", f'{_MODEL_ALONE}, outcome!="completed"')
    yield Panel(
        "Failed attempts", "Sendings to a replica that did not end well.", "reqps",
        [Query(attempts, "{{model}} {{outcome}}")],
    )  # fmt: skip
    failures = series(controller.REPLICA_FAILURES, _MODEL_ALONE)
    yield Panel(
        "Replicas that failed", "In the last ten minutes.", "short",
        [Query(f"increase({failures}[10m])", "{{model}}")],
    )  # fmt: skip


def _itself() -> Iterator[Panel]:
    yield Panel(
        "Gateways", "Those that report, and their clients' connections.", "short",
        [
            Query(series(controller.GATEWAYS), "alive"),
            Query(f"sum({series(gateway.CONNECTIONS)})", "connections"),
        ],
    )  # fmt: skip
    taken, dropped = controller.RECORDS_TAKEN, gateway.RECORDS_DROPPED
    yield Panel(
        "Records", "Of requests: taken by the controller, waiting, lost.", "short",
        [
            Query(f"sum(rate({series(taken)}[{_OVER}]))", "taken per second"),
            Query(f"sum({series(gateway.RECORDS_WAITING)})", "waiting"),
            Query(f"sum(rate({series(dropped)}[{_OVER}]))", "lost per second"),
        ],
    )  # fmt: skip
    store = controller.STORE_SECONDS
    yield Panel(
        "State", "Time of the 99th of 100 writes.", "s",
        [Query(quantile(store, "0.99", "call", _OVER, series(store)), "{{call}}")],
    )  # fmt: skip
