"""Every metric, declared once. Names follow OpenTelemetry's GenAI conventions where they exist.

The conventions are in development (read in November 2026). A Prometheus name is the convention's
with dots as underscores and its unit appended.
"""

from typing import Literal

import msgspec


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric; a histogram has bucket borders in its unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (
    0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    163.84, 327.68,
)  # fmt: skip
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)

REQUESTS = Metric(
    name="modelyard_requests",
    kind="counter",
    help="Requests that ended, by outcome: completed, failed, cancelled, rejected.",
    labels=("model", "operation", "outcome", "status"),
)
REQUESTS_IN_FLIGHT = Metric(
    name="modelyard_requests_in_flight",
    kind="gauge",
    help="Requests accepted and not ended.",
)
REPLICA_IN_FLIGHT = Metric(
    name="modelyard_replica_requests_in_flight",
    kind="gauge",
    help="Requests sent to a replica and not ended.",
    labels=("model", "slot", "replica"),
)
ATTEMPTS = Metric(
    name="modelyard_upstream_attempts",
    kind="counter",
    help="Sendings of a request to a replica, by how they ended.",
    labels=("model", "outcome"),
)
REQUEST_DURATION = Metric(
    name="gen_ai_server_request_duration_seconds",
    kind="histogram",
    help="Acceptance of a request to the last byte of its answer.",
    labels=("gen_ai_request_model", "gen_ai_operation_name"),
    buckets=_SECONDS,
)
TIME_TO_FIRST_TOKEN = Metric(
    name="gen_ai_server_time_to_first_token_seconds",
    kind="histogram",
    help="Acceptance of a request to the first byte of its answer.",
    labels=("gen_ai_request_model", "gen_ai_operation_name"),
    buckets=_SECONDS,
)
TIME_PER_OUTPUT_TOKEN = Metric(
    name="gen_ai_server_time_per_output_token_seconds",
    kind="histogram",
    help="Mean time between the events of a streamed answer after the first.",
    labels=("gen_ai_request_model", "gen_ai_operation_name"),
    buckets=_TOKEN_SECONDS,
)
TOKENS = Metric(
    name="modelyard_tokens",
    kind="counter",
    help="Tokens of prompts (input) and answers (output), as stated by the engine or counted.",
    labels=("model", "gen_ai_token_type"),
)
CONNECTIONS = Metric(
    name="modelyard_gateway_connections", kind="gauge", help="Client connections that are open."
)
ROUTES_VERSION = Metric(
    name="modelyard_gateway_routes_version",
    kind="gauge",
    help="Version of the route snapshot that is applied.",
)
CACHE_RESULTS = Metric(
    name="modelyard_cache_requests",
    kind="counter",
    help="Requests of models with a cache: hit, miss, joined another in flight, bypass.",
    labels=("model", "result"),
)
CACHE_BYTES = Metric(
    name="modelyard_cache_bytes", kind="gauge", help="Memory that kept answers take."
)
LIMITED = Metric(
    name="modelyard_limited_requests",
    kind="counter",
    help="Requests refused by a limit of their key, tenant or model.",
    labels=("model",),
)
WAITING = Metric(
    name="modelyard_requests_waiting",
    kind="gauge",
    help="Requests in line for a replica that takes them.",
)
REPLICA_AVAILABLE = Metric(
    name="modelyard_replica_available",
    kind="gauge",
    help="1 while a replica is asked, 0 while its breaker keeps requests from it.",
    labels=("model", "slot", "replica"),
)
SHADOWED = Metric(
    name="modelyard_shadow_requests",
    kind="counter",
    help="Copies of live requests, by how they ended: completed, failed, cancelled, rejected.",
    labels=("model", "outcome"),
)
SHADOW_DROPPED = Metric(
    name="modelyard_shadow_requests_dropped",
    kind="counter",
    help="Copies that were not made, or that say nothing of the version on trial, and why.",
    labels=("model", "reason"),
)
SHADOW_IN_FLIGHT = Metric(
    name="modelyard_shadow_requests_in_flight",
    kind="gauge",
    help="Copies under way.",
)
SHADOW_AGREEMENT = Metric(
    name="modelyard_shadow_agreement",
    kind="histogram",
    help="Common beginning of a copy's answer and the live one, as a share of the longer one.",
    labels=("model",),
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.9999, 1.0),
)
RECORDS_WAITING = Metric(
    name="modelyard_gateway_records_waiting",
    kind="gauge",
    help="Request records not yet taken by the controller.",
)
RECORDS_DROPPED = Metric(
    name="modelyard_gateway_records_dropped",
    kind="counter",
    help="Request records lost because the spool was full.",
)
