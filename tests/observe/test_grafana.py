"""The dashboard: of the form that Grafana documents, and about what matters."""

from typing import Any

import jsonschema

from modelyard.observe.grafana import SCHEMA_VERSION, dashboard

_SOURCE = {
    "type": "object",
    "required": ["type", "uid"],
    "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}},
}
_PLACE = {
    "type": "object",
    "required": ["h", "w", "x", "y"],
    "additionalProperties": False,
    "properties": {
        "h": {"type": "integer", "minimum": 1},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
    },
}
_TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "legendFormat"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "datasource": _SOURCE},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [
        "uid", "title", "tags", "schemaVersion", "version", "editable", "refresh", "time",
        "timezone", "annotations", "templating", "panels",
    ],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"const": SCHEMA_VERSION},
        "time": {"type": "object", "required": ["from", "to"]},
        "annotations": {"type": "object", "required": ["list"]},
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "type", "query", "current", "hide", "refresh"],
                        "properties": {"type": {"enum": ["datasource", "query"]}},
                    },
                }
            },
        },
        "panels": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos"],
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["row", "timeseries"]},
                    "gridPos": _PLACE,
                    "targets": {"type": "array", "minItems": 1, "items": _TARGET},
                },
                "if": {"properties": {"type": {"const": "timeseries"}}},
                "then": {"required": ["datasource", "fieldConfig", "options", "targets"]},
                "else": {"required": ["collapsed", "panels"]},
            },
        },
    },
}  # fmt: skip
"""What Grafana's documentation of the dashboard's JSON says of the fields that are used here."""


def test_it_is_of_the_documented_form() -> None:
    jsonschema.validate(dashboard(), SCHEMA)


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other() -> None:
    panels = dashboard()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_it_shows_what_matters() -> None:
    titles = {panel["title"] for panel in dashboard()["panels"]}
    assert titles >= {
        "Requests", "Errors", "Time to first token", "Tokens per second", "In flight", "Queue",
        "Cache", "Cost per hour", "Memory for keys and values", "Replicas",
    }  # fmt: skip


def test_the_source_and_the_models_are_chosen_where_it_is_looked_at() -> None:
    names = [each["name"] for each in dashboard()["templating"]["list"]]
    assert names == ["datasource", "model", "version"]
