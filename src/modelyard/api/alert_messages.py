"""Messages of the management API about alerts.

GET    /api/alerts                        → AlertList: what is pending or fires, and silences
GET    /api/alerts/history?limit&rule     → AlertHistory: what was resolved, the latest first
GET    /api/alerts/preview?rule           → Preview: what rules see now, and what would fire
POST   /api/alerts/test       TrialWish    → TrialReport: a marked message to the webhooks
POST   /api/alerts/silences   SilenceWish → SilenceView
DELETE /api/alerts/silences/{id}
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.core.alert_states import AlertState, Verdict
from modelyard.core.alerting import Severity


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlertView(_Message):
    """One breach of a rule by one subject."""

    id: str
    rule: str
    kind: str
    subject: str
    severity: Severity
    labels: dict[str, str]
    state: AlertState
    began_at: float
    """Unix seconds, as all times here."""
    fired_at: float | None
    resolved_at: float | None
    told: str
    """The numbers, for people."""
    value: float | None
    verdict: Verdict
    sent: bool
    """Whether receivers were told that it fires."""
    silenced_by: str | None = None
    """Id of a silence."""


class SilenceView(_Message):
    """Alerts that nobody is told of for a while."""

    id: str
    rule: str
    subject: str | None
    until: float
    reason: str
    by: str
    created_at: float


class SilenceWish(_Message):
    """A silence to be kept."""

    rule: str
    subject: str | None = None
    """None: every subject of the rule."""
    for_s: float = Field(gt=0, le=366 * 86_400)
    reason: str = Field(min_length=1, max_length=500)
    by: str = Field(default="", max_length=128)


class WebhookView(_Message):
    """How a receiver does."""

    name: str
    address: str
    """Scheme, host and port."""
    format: str
    signed: bool
    waiting: int
    taken_at: float | None
    error: str


class FindingView(_Message):
    """What a rule sees of one subject."""

    subject: str
    verdict: Verdict
    told: str
    value: float | None
    would_fire: bool
    """Once it has held for the rule's `for_s`."""


class RuleView(_Message):
    """A rule and what it sees."""

    name: str
    kind: str
    severity: Severity
    for_s: float
    parameters: dict[str, Any]
    findings: tuple[FindingView, ...]


class AlertList(_Message):
    """All that stands."""

    alerts: tuple[AlertView, ...]
    silences: tuple[SilenceView, ...]
    webhooks: tuple[WebhookView, ...]
    rules: tuple[RuleView, ...]
    """With what they saw at the last look."""
    looked_at: float | None
    """None: nobody has looked yet."""
    trouble: str
    """Why the latest look did not come to an end; empty when it did."""


class AlertHistory(_Message):
    """What was resolved."""

    alerts: tuple[AlertView, ...]


class Preview(_Message):
    """What rules see now."""

    rules: tuple[RuleView, ...]


class TrialWish(_Message):
    """A test of webhooks."""

    webhook: str | None = None
    """None: all of them."""


class TrialOutcome(_Message):
    """How one attempt ended."""

    webhook: str
    taken: bool
    told: str


class TrialReport(_Message):
    """How all of them did."""

    outcomes: tuple[TrialOutcome, ...]
