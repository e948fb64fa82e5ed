"""Prometheus queries on declared metrics: a name or label that is not declared can't be written."""

from modelyard.core.metrics.declaration import Metric


def series(metric: Metric, matching: str = "", part: str = "", **labels: str) -> str:
    """A selector; `part` is a histogram's `bucket`, `sum` or `count`, `matching` more matchers.

    Raises ValueError for a label or part that the metric does not have.
    """
    unknown = labels.keys() - {*metric.labels}
    if unknown:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")
    name = f"{metric.name}_{part}" if part else metric.sample
    if name not in metric.samples:
        raise ValueError(f"{metric.name} has no samples {name}")
    told = [f'{label}="{value}"' for label, value in labels.items()]
    if matching:
        told.append(matching)
    return f"{name}{{{', '.join(told)}}}" if told else name


def total(metric: Metric, by: str, over: str, selector: str) -> str:
    """A counter's growth each second, added up by labels; ValueError for unknown ones."""
    _check(metric, by)
    return f"sum by ({by}) (rate({selector}[{over}]))"


def quantile(metric: Metric, share: str, by: str, over: str, selector: str) -> str:
    """A quantile of a histogram, by labels; ValueError for unknown ones."""
    _check(metric, by)
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({selector}[{over}])))"


def _check(metric: Metric, by: str) -> None:
    unknown = {each.strip() for each in by.split(",")} - {*metric.labels}
    if unknown:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")
