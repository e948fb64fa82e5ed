"""All declared metrics, and the names of their samples."""

from collections.abc import Mapping
from types import MappingProxyType

from modelyard.core.metrics import controller, engines, gateway
from modelyard.core.metrics.declaration import Metric

ALL: tuple[Metric, ...] = (*gateway.DECLARED, *controller.DECLARED, *engines.DECLARED)
"""In the order in which documents list them."""

BY_SAMPLE: Mapping[str, Metric] = MappingProxyType(
    {sample: metric for metric in ALL for sample in metric.samples}
)
"""The metric that a name in a query belongs to."""
