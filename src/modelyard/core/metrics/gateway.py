"""What a gateway tells of its requests, replicas and records."""

from modelyard.core.metrics.declaration import PLACE, SECONDS, Metric

_GEN_AI = ("gen_ai_request_model", "version", "slot", "gen_ai_operation_name")
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_WITHOUT_ERRORS = (
    "of completed requests only, so without `error.type`; `version` and `slot` besides; "
)

REQUESTS = Metric(
    name="modelyard_requests",
    kind="counter",
    unit="requests",
    help="Requests that ended, by outcome: completed, failed, cancelled, rejected.",
    labels=(*PLACE, "operation", "outcome", "status"),
)
REQUESTS_IN_FLIGHT = Metric(
    name="modelyard_requests_in_flight",
    kind="gauge",
    unit="requests",
    help="Requests accepted and not ended.",
)
REQUEST_DURATION = Metric(
    name="gen_ai_server_request_duration_seconds",
    kind="histogram",
    unit="seconds",
    help="Acceptance of a request to the last byte of its answer.",
    labels=_GEN_AI,
    buckets=SECONDS,
    convention="gen_ai.server.request.duration",
    departure=_WITHOUT_ERRORS + "borders below 0.01 s and beyond 81.92 s",
)
TIME_TO_FIRST_TOKEN = Metric(
    name="gen_ai_server_time_to_first_token_seconds",
    kind="histogram",
    unit="seconds",
    help="Acceptance of a request to the first byte of its answer.",
    labels=_GEN_AI,
    buckets=SECONDS,
    convention="gen_ai.server.time_to_first_token",
    departure=_WITHOUT_ERRORS + "borders below 0.01 s doubled, and beyond 10 s added",
)
TIME_PER_OUTPUT_TOKEN = Metric(
    name="gen_ai_server_time_per_output_token_seconds",
    kind="histogram",
    unit="seconds",
    help="Mean time between the events of a streamed answer after the first.",
    labels=_GEN_AI,
    buckets=_TOKEN_SECONDS,
    convention="gen_ai.server.time_per_output_token",
    departure=_WITHOUT_ERRORS
    + "one value for each streamed request; borders below 0.01 s and none beyond 2.5 s",
)
QUEUE_TIME = Metric(
    name="modelyard_request_queue_seconds",
    kind="histogram",
    unit="seconds",
    help="Time that a request waited in the gateway for a replica that takes it; 0 for most.",
    labels=PLACE,
    buckets=SECONDS,
)
TOKENS = Metric(
    name="modelyard_tokens",
    kind="counter",
    unit="tokens",
    help="Tokens of prompts (input) and answers (output), as stated by the engine or counted. "
    "An answer from the cache has none.",
    labels=(*PLACE, "gen_ai_token_type"),
)
CACHED_TOKENS = Metric(
    name="modelyard_cached_prompt_tokens",
    kind="counter",
    unit="tokens",
    help="Tokens of prompts that the engine says it had computed before.",
    labels=PLACE,
)
COST = Metric(
    name="modelyard_cost",
    kind="counter",
    unit="currency",
    help="Cost of requests in the reporting currency, where a price is known.",
    labels=PLACE,
)
REPLICA_SECONDS = Metric(
    name="modelyard_request_replica_seconds",
    kind="counter",
    unit="seconds",
    help="Time of replicas that requests had: of n that are with one at once, each has 1/n of it.",
    labels=PLACE,
)
ATTEMPTS = Metric(
    name="modelyard_upstream_attempts",
    kind="counter",
    unit="attempts",
    help="Sendings of a request to a replica, by how they ended: completed, refused, unreachable, "
    "error_status, busy, timeout, cut, cancelled.",
    labels=("model", "outcome"),
)
WAITING = Metric(
    name="modelyard_requests_waiting",
    kind="gauge",
    unit="requests",
    help="Requests in line for a replica that takes them.",
)
REPLICA_IN_FLIGHT = Metric(
    name="modelyard_replica_requests_in_flight",
    kind="gauge",
    unit="requests",
    help="Requests sent to a replica and not ended.",
    labels=(*PLACE, "replica"),
)
REPLICA_AVAILABLE = Metric(
    name="modelyard_replica_available",
    kind="gauge",
    unit="0 or 1",
    help="1 while a replica is asked, 0 while its breaker keeps requests from it.",
    labels=(*PLACE, "replica"),
)
LIMITED = Metric(
    name="modelyard_limited_requests",
    kind="counter",
    unit="requests",
    help="Requests refused by a limit of their key, tenant or model.",
    labels=("model",),
)
CACHE_RESULTS = Metric(
    name="modelyard_cache_requests",
    kind="counter",
    unit="requests",
    help="Requests of models with a cache: hit, miss, joined another in flight, bypass.",
    labels=("model", "result"),
)
CACHE_BYTES = Metric(
    name="modelyard_cache_bytes", kind="gauge", unit="bytes", help="Memory that kept answers take."
)
SHADOWED = Metric(
    name="modelyard_shadow_requests",
    kind="counter",
    unit="requests",
    help="Copies of live requests, by how they ended: completed, failed, cancelled, rejected.",
    labels=("model", "outcome"),
)
SHADOW_DROPPED = Metric(
    name="modelyard_shadow_requests_dropped",
    kind="counter",
    unit="requests",
    help="Copies that were not made, or that say nothing of the version on trial, and why.",
    labels=("model", "reason"),
)
SHADOW_IN_FLIGHT = Metric(
    name="modelyard_shadow_requests_in_flight",
    kind="gauge",
    unit="requests",
    help="Copies under way.",
)
SHADOW_AGREEMENT = Metric(
    name="modelyard_shadow_agreement",
    kind="histogram",
    unit="ratio",
    help="Common beginning of a copy's answer and the live one, as a share of the longer one.",
    labels=("model",),
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.9999, 1.0),
)
CONNECTIONS = Metric(
    name="modelyard_gateway_connections",
    kind="gauge",
    unit="connections",
    help="Client connections that are open.",
)
ROUTES_VERSION = Metric(
    name="modelyard_gateway_routes_version",
    kind="gauge",
    unit="number",
    help="Version of the route snapshot that is applied.",
)
RECORDS_WAITING = Metric(
    name="modelyard_gateway_records_waiting",
    kind="gauge",
    unit="records",
    help="Request records not yet taken by the controller.",
)
RECORDS_DROPPED = Metric(
    name="modelyard_gateway_records_dropped",
    kind="counter",
    unit="records",
    help="Request records lost because the spool was full.",
)
REQUEST_LOG_DROPPED = Metric(
    name="modelyard_gateway_request_log_dropped",
    kind="counter",
    unit="records",
    help="Finished requests that the request log could not take: its disk refused, or was slow.",
)
TRACE_SPANS = Metric(
    name="modelyard_gateway_trace_spans",
    kind="counter",
    unit="spans",
    help="Spans of sampled requests: sent to the collector, or dropped because it was away, "
    "refused them or was too slow. Told where traces are on.",
    labels=("outcome",),
)
BUILD_INFO = Metric(
    name="modelyard_build_info",
    kind="gauge",
    unit="1",
    help="Always 1; its labels say what runs.",
    labels=("part", "release"),
)

DECLARED: tuple[Metric, ...] = tuple(
    each for each in list(globals().values()) if isinstance(each, Metric)
)
"""In the order of their declaration."""
