"""An engine's own metrics in our vocabulary: text in, samples out.

Only numbers and bucket borders come over from an engine: labels are the controller's.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from modelyard.core.metrics.declaration import Metric
from modelyard.core.metrics.engines import KV_USAGE
from modelyard.core.metrics.vocabularies import Mapped, Vocabulary

MAX_BORDERS = 100
"""A histogram with more buckets is left out."""
MAX_UNMAPPED = 200
"""Names that nobody knows are counted up to so many."""
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_TYPE = "# TYPE "


class Sample(NamedTuple):
    """One value of a metric of ours."""

    metric: Metric
    suffix: str
    """What its name ends in: nothing, `_total`, or a histogram's."""
    le: float | None
    """A bucket's border."""
    value: float


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine told."""

    samples: tuple[Sample, ...] = ()
    unmapped: tuple[str, ...] = ()
    """Names with the engine's prefix that nobody has looked at, sorted."""


class _Told(NamedTuple):
    labels: dict[str, str]
    value: float


def translate(text: str, vocabulary: Vocabulary) -> Translated:
    """Read an engine's metrics; lines that make no sense are passed over."""
    wanted = _wanted(vocabulary)
    told: dict[str, list[_Told]] = {}
    families = []
    for line in text.splitlines():
        if line.startswith(vocabulary.prefix):
            name = re.split(r"[{\s]", line, maxsplit=1)[0]
            if name in wanted and (read := _read(line, name)) is not None:
                told.setdefault(name, []).append(read)
        elif line.startswith(_TYPE):
            families.append(line[len(_TYPE) :].split(" ")[0])
    samples = [sample for mapped in vocabulary.mapped for sample in _samples(mapped, told)]
    return Translated(samples=tuple(samples), unmapped=_unmapped(families, vocabulary))


def _wanted(vocabulary: Vocabulary) -> set[str]:
    return {
        name + suffix
        for mapped in vocabulary.mapped
        for alternative in mapped.alternatives
        for name in alternative
        for suffix in (("_bucket", "_sum", "_count") if _is_histogram(mapped) else ("",))
    }


def _read(line: str, name: str) -> _Told | None:
    """A sample's labels and value; None when it is none, or not a number."""
    rest = line[len(name) :].strip()
    labels: dict[str, str] = {}
    if rest.startswith("{"):
        inner, brace, rest = rest[1:].rpartition("}")
        if not brace:
            return None
        labels = dict(_LABEL.findall(inner))
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return None
    return _Told(labels, value) if math.isfinite(value) else None


def _samples(mapped: Mapped, told: dict[str, list[_Told]]) -> Iterator[Sample]:
    for names in mapped.alternatives:
        found = (
            list(_histogram(mapped, names[0], told))
            if _is_histogram(mapped)
            else list(_plain(mapped, names, told))
        )
        if found:
            yield from found
            return


def _plain(
    mapped: Mapped, names: tuple[str, ...], told: dict[str, list[_Told]]
) -> Iterator[Sample]:
    """A counter or gauge: several series, and several names, are added up."""
    if not all(name in told for name in names):
        return
    values = [each.value for name in names for each in told[name] if _counts(mapped, each)]
    metric = mapped.metric
    value = max(values, default=0.0) if metric is KV_USAGE else math.fsum(values)
    yield Sample(metric, "_total" if metric.kind == "counter" else "", None, value)


def _histogram(mapped: Mapped, name: str, told: dict[str, list[_Told]]) -> Iterator[Sample]:
    """The buckets of all series added up; nothing when it is not a whole histogram."""
    buckets: dict[float, float] = {}
    for each in told.get(f"{name}_bucket", ()):
        try:
            le = float(each.labels.get("le", ""))
        except ValueError:
            return
        buckets[le] = buckets.get(le, 0.0) + each.value
    if math.inf not in buckets or len(buckets) > MAX_BORDERS or any(map(math.isnan, buckets)):
        return
    for le, count in sorted(buckets.items()):
        yield Sample(mapped.metric, "_bucket", le, count)
    for suffix in ("_sum", "_count"):
        total = math.fsum(each.value for each in told.get(name + suffix, ()))
        yield Sample(mapped.metric, suffix, None, total)


def _counts(mapped: Mapped, told: _Told) -> bool:
    return not any(told.labels.get(label) in values for label, values in mapped.without.items())


def _is_histogram(mapped: Mapped) -> bool:
    return mapped.metric.kind == "histogram"


def _unmapped(families: list[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    named = {
        name
        for mapped in vocabulary.mapped
        for alternative in mapped.alternatives
        for name in alternative
    }
    found = {
        family
        for family in families
        if family.startswith(vocabulary.prefix)
        and family not in named
        and f"{family}_total" not in named
        and not family.endswith("_created")
        and vocabulary.why_left_out(family) is None
    }
    return tuple(sorted(found)[:MAX_UNMAPPED])
