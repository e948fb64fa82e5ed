"""What receivers of alerts are sent: the message, its signature, when it is tried again.

Messages and headers are those of Standard Webhooks (standardwebhooks.com, specification 1.0), so
that its libraries verify them: `webhook-id` stays the same however often a message is sent,
`webhook-signature` is `v1,` and the Base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any, Literal

import msgspec

from modelyard.core.alert_states import Alert, AlertState
from modelyard.core.alerting import Severity

Format = Literal["json", "slack"]
Event = Literal["alert.firing", "alert.resolved", "alert.test"]
SECRET_PREFIX = "whsec_"  # noqa: S105 - how the specification begins secrets
MIN_SECRET_BYTES = 16
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told of alerts. Never shown whole: Slack's URLs are secrets as well."""

    name: str
    url: str
    secret: bytes
    """Empty: messages are not signed."""
    format: Format = "json"
    severities: tuple[Severity, ...] = ("page", "ticket")
    timeout_s: float = 10.0
    give_up_s: float = 6 * 3600.0
    """Seconds after which a message is no longer tried."""

    def __repr__(self) -> str:
        return f"Receiver({self.name})"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message on its way to one receiver."""

    id: str
    """`webhook-id`: receivers know by it what they have had before."""
    webhook: str
    alert: str
    """Id of the alert: its messages are sent in their order."""
    event: Event
    body: str
    created_at: float
    """Unix seconds."""
    attempts: int = 0
    tried_s: float = 0.0
    """Seconds waited between attempts so far."""
    error: str = ""
    """Why the last attempt failed."""


def secret_bytes(text: str) -> bytes:
    """The secret that a text stands for; ValueError says what is wrong, and not the text."""
    if text.startswith(SECRET_PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f"what follows {SECRET_PREFIX} is not Base64") from None
    else:
        secret = text.encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"it has {len(secret)} bytes, {MIN_SECRET_BYTES} at least are needed")
    return secret


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`; `timestamp` is in whole Unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def headers(receiver: Receiver, delivery: Delivery, timestamp: int) -> dict[str, str]:
    """Of one attempt."""
    found = {
        "content-type": "application/json",
        "user-agent": "modelyard",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
    }
    if receiver.secret:
        body = delivery.body.encode()
        found["webhook-signature"] = signature(receiver.secret, delivery.id, timestamp, body)
    return found


def delivery_of(receiver: Receiver, alert: Alert, event: Event, now: float) -> Delivery:
    """The message that tells one receiver what became of an alert."""
    content = _slack(alert, event) if receiver.format == "slack" else _json(alert, event, now)
    return Delivery(
        id=f"{alert.id}-{event.rpartition('.')[2]}-{receiver.name}",
        webhook=receiver.name,
        alert=alert.id,
        event=event,
        body=msgspec.json.encode(content).decode(),
        created_at=now,
    )


def trial_alert(alert_id: str, now: float) -> Alert:
    """Something to send that is no alert, and says so."""
    return Alert(
        id=alert_id,
        rule="test",
        kind="test",
        subject="this receiver",
        severity="ticket",
        state=AlertState.FIRING,
        began_at=now,
        fired_at=now,
        told="a test: nothing is wrong",
    )


def wait_s(attempts: int, draw: float) -> float:
    """Seconds to wait after so many failed attempts: doubled each time, of which the last half is
    random (`draw`, 0 to 1), so that receivers that come back are not met by all at once."""
    whole = min(FIRST_WAIT_S * 2.0 ** min(attempts - 1, 32), LONGEST_WAIT_S)
    return whole * (0.5 + draw / 2)


def _json(alert: Alert, event: Event, now: float) -> dict[str, Any]:
    facts = {
        name: getattr(alert, name)
        for name in (
            "id", "rule", "kind", "subject", "severity", "state", "began_at", "fired_at",
            "resolved_at", "told", "value", "labels",
        )
    }  # fmt: skip
    return {"type": event, "timestamp": now, "data": facts}


_MARKS: dict[Event, str] = {
    "alert.firing": "FIRING",
    "alert.resolved": "RESOLVED",
    "alert.test": "TEST",
}


def _slack(alert: Alert, event: Event) -> dict[str, Any]:
    """A message for Slack's incoming webhooks, and for what understands them."""
    subject, told = _escaped(alert.subject), _escaped(alert.told)
    head = f"[{_MARKS[event]}] {_escaped(alert.rule)}: {subject}"
    labels = "".join(f", {_escaped(key)}={_escaped(value)}" for key, value in alert.labels.items())
    lines = (f"*{head}*\n{told}", f"{alert.severity}{labels}")
    return {
        "text": f"{head}: {told}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": lines[0][:3000]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": lines[1][:3000]}]},
        ],
    }


def _escaped(text: str) -> str:
    """As Slack wants text, so that what somebody named links and calls nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
