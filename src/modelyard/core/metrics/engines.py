"""One vocabulary for what engines tell of themselves; the controller asks its ready replicas.

Histograms keep the engine's own borders. Counters begin at zero with each replica.
"""

from modelyard.core.metrics.declaration import PLACE, Metric

_REPLICA = (*PLACE, "replica")


def _of(name: str, kind: str, unit: str, told: str) -> Metric:
    return Metric(
        name=f"modelyard_engine_{name}",
        kind="gauge" if kind == "gauge" else "counter" if kind == "counter" else "histogram",
        unit=unit,
        help=told,
        labels=_REPLICA,
        by="controller",
    )


RUNNING = _of("requests_running", "gauge", "requests", "Requests that are being decoded.")
WAITING = _of("requests_waiting", "gauge", "requests", "Requests in the engine's own queue.")
KV_USAGE = _of(
    "kv_cache_usage_ratio",
    "gauge",
    "ratio",
    "Share of the memory for keys and values that is in use, 0 to 1; of several ranks the fullest.",
)
PROMPT_TOKENS = _of(
    "prompt_tokens", "counter", "tokens", "Tokens of prompts, those found in a cache included."
)
COMPLETION_TOKENS = _of("completion_tokens", "counter", "tokens", "Tokens generated.")
PREFIX_QUERIES = _of(
    "prefix_cache_queried_tokens",
    "counter",
    "tokens",
    "Tokens of prompts that were looked up in the prefix cache.",
)
PREFIX_HITS = _of(
    "prefix_cache_hit_tokens", "counter", "tokens", "Tokens of prompts found in the prefix cache."
)
COMPLETED = _of(
    "requests_completed", "counter", "requests", "Requests that the engine finished, none cut off."
)
PREEMPTIONS = _of(
    "preemptions",
    "counter",
    "requests",
    "Requests that were taken back from decoding for want of memory.",
)
TIME_TO_FIRST_TOKEN = _of(
    "time_to_first_token_seconds", "histogram", "seconds", "Arrival to the first token."
)
INTER_TOKEN = _of(
    "inter_token_seconds", "histogram", "seconds", "Time from one token of an answer to the next."
)
DURATION = _of("request_duration_seconds", "histogram", "seconds", "Arrival to the last token.")
QUEUE_TIME = _of(
    "queue_seconds", "histogram", "seconds", "Time that a request waited in the engine's queue."
)

VOCABULARY: tuple[Metric, ...] = tuple(
    each for each in list(globals().values()) if isinstance(each, Metric)
)
"""What an engine's metrics are mapped into, in the order of their declaration."""

UP = Metric(
    name="modelyard_engine_up",
    kind="gauge",
    unit="0 or 1",
    help="1 when a ready replica's own metrics could be read last time, 0 when not.",
    labels=(*_REPLICA, "engine"),
    by="controller",
)
UNMAPPED = Metric(
    name="modelyard_engine_metrics_unmapped",
    kind="gauge",
    unit="names",
    help="Metrics that a replica tells and that Modelyard knows neither as mapped nor as left out: "
    "an engine that is newer than this Modelyard.",
    labels=(*_REPLICA, "engine"),
    by="controller",
)
DECLARED: tuple[Metric, ...] = (*VOCABULARY, UP, UNMAPPED)
"""In the order of their declaration."""
