"""What the controller tells of deployments, rollouts, gateways and its state."""

from modelyard.core.metrics.declaration import PLACE, Metric

_STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

DEPLOYMENTS = Metric(
    name="modelyard_deployments",
    kind="gauge",
    unit="deployments",
    help="Public model names that are deployed.",
    by="controller",
)
REPLICAS = Metric(
    name="modelyard_replicas",
    kind="gauge",
    unit="replicas",
    help="Replicas that are there, by state.",
    labels=(*PLACE, "state"),
    by="controller",
)
REPLICAS_WANTED = Metric(
    name="modelyard_live_replicas_wanted",
    kind="gauge",
    unit="replicas",
    help="Replicas that the live slot of a deployment should have.",
    labels=("model",),
    by="controller",
)
REPLICAS_READY = Metric(
    name="modelyard_live_replicas_ready",
    kind="gauge",
    unit="replicas",
    help="Replicas of the live slot of a deployment that are ready; 0 when there is none.",
    labels=("model",),
    by="controller",
)
REPLICA_FAILURES = Metric(
    name="modelyard_replica_failures",
    kind="counter",
    unit="replicas",
    help="Replicas that ended without being asked to, or never came up.",
    labels=("model",),
    by="controller",
)
ROLLOUTS = Metric(
    name="modelyard_rollouts",
    kind="counter",
    unit="rollouts",
    help="Rollouts that ended, by outcome: done or undone.",
    labels=("model", "outcome"),
    by="controller",
)
GATEWAYS = Metric(
    name="modelyard_gateways_alive",
    kind="gauge",
    unit="gateways",
    help="Gateways that reported within the last seconds.",
    by="controller",
)
PUBLISHED_VERSION = Metric(
    name="modelyard_routes_version",
    kind="gauge",
    unit="number",
    help="Version of the newest route snapshot.",
    by="controller",
)
RECORDS_TAKEN = Metric(
    name="modelyard_records_taken",
    kind="counter",
    unit="records",
    help="Request records that gateways sent and that were not known before.",
    by="controller",
)
RECORDS_DUPLICATE = Metric(
    name="modelyard_records_duplicate",
    kind="counter",
    unit="records",
    help="Request records that were sent again, and not counted again.",
    by="controller",
)
STORE_SECONDS = Metric(
    name="modelyard_store_write_seconds",
    kind="histogram",
    unit="seconds",
    help="Time of a write into the state, without the wait for its turn.",
    labels=("call",),
    buckets=_STORE_SECONDS,
    by="controller",
)

DECLARED: tuple[Metric, ...] = tuple(
    each for each in list(globals().values()) if isinstance(each, Metric)
)
"""In the order of their declaration."""
