"""The declared metrics as Prometheus objects."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from modelyard.core.metrics import Metric


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """A counter; Prometheus's text form appends `_total`."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """A gauge."""
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """A histogram with the declared bucket borders."""
    return Histogram(
        metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
    )
