"""What a declared metric is, and what its labels mean.

Names follow OpenTelemetry's semantic conventions for generative AI where they have one. Those are
in development, in a repository of their own and without a release; they were read in November
2026, when they stood on the general conventions 1.42.0. A Prometheus name is the convention's with
dots as underscores and its unit appended; a counter's samples end in `_total`.

There are counters, gauges and histograms and no summaries: what several processes count can be
added up.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Teller = Literal["gateway", "controller"]
_SUFFIXES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
)

PLACE = ("model", "version", "slot")
"""Labels of what is told of the requests to one version in one slot."""

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "model": "Public model name, from the routes; `unknown`: the request named none of them.",
        "version": "What answered, as `NAME:3`; `remote`: an upstream without registered weights; "
        "`none`: the request was sent to no version.",
        "slot": "`blue` or `green`; `none`: the request was sent to no version.",
        "operation": "`chat`, `completions`, `embeddings`, `responses`, `messages`, `unknown`.",
        "outcome": "How it ended; see the metric.",
        "status": "HTTP status of the answer, 499 where the client left; the rare ones as `4xx` "
        "and `5xx`.",
        "replica": "Id of a replica; one that is started again has another.",
        "result": "`hit`, `miss`, `joined` or `bypass`.",
        "reason": "Why, in a word.",
        "state": "`starting`, `warming`, `ready`, `unhealthy`, `draining`.",
        "call": "`write`: a change that the reconcile loop makes; `records`: a batch of records.",
        "engine": "Name of the engine.",
        "release": "Version of Modelyard.",
        "part": "`gateway` or `controller`.",
        "le": "Upper border of a bucket, in the metric's unit.",
        "gen_ai_request_model": "As `model`; the convention's `gen_ai.request.model`.",
        "gen_ai_operation_name": "The convention's `gen_ai.operation.name`: `chat` (chat, "
        "responses, messages), `text_completion`, `embeddings`, `unknown`.",
        "gen_ai_token_type": "The convention's `gen_ai.token.type`: `input` or `output`.",
    }
)
"""What each label's values are. None of them is what a client wrote."""

SECONDS = (
    0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    163.84, 327.68, 655.36,
)  # fmt: skip
"""The conventions' borders from 0.01 to 81.92, and more on both sides."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric."""

    name: str
    """Without the suffixes of its samples."""
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Borders of a histogram, in its unit; empty where the engine decides."""
    by: Teller = "gateway"
    """Whose `/metrics` it is on."""
    convention: str = ""
    """Its name in OpenTelemetry's conventions; empty: they have none."""
    departure: str = ""
    """Where it is not as the convention says."""

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of its samples, as queries use them."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])

    @property
    def sample(self) -> str:
        """Name of its samples; of a histogram, of its buckets."""
        return self.samples[0]
