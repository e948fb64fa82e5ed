"""Alerts as they stand and stood, silences, and the preview that is the evaluator."""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from modelyard.api.alert_desk import AlertDesk
from modelyard.api.alert_messages import (
    AlertHistory,
    AlertList,
    AlertView,
    FindingView,
    Preview,
    RuleView,
    SilenceView,
    SilenceWish,
    TrialOutcome,
    TrialReport,
    TrialWish,
    WebhookView,
)
from modelyard.api.parts import ApiParts
from modelyard.core.alert_states import Alert, Silence, silence_of
from modelyard.core.deployments import Event
from modelyard.core.errors import NotFound, Unavailable
from modelyard.observe.alerts import Seen

_HEAD = ("name", "kind", "severity", "for_s")


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter(prefix="/api/alerts")

    def desk() -> AlertDesk:
        if parts.alerts is None:
            raise Unavailable("nobody looks at alert rules here")
        return parts.alerts

    @routes.get("")
    def standing() -> AlertList:
        now, watch = parts.clock(), desk().watch
        silences = desk().table.silences(now)
        return AlertList(
            alerts=tuple(_view(alert, silences, now) for alert in watch.active()),
            silences=tuple(_silence(each) for each in silences),
            webhooks=tuple(WebhookView(**each._asdict()) for each in watch.webhooks.standings),
            rules=_rules(watch.watched.seen),
            looked_at=watch.watched.looked_at,
            trouble=watch.watched.trouble,
        )

    @routes.get("/history")
    def history(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, rule: str | None = None
    ) -> AlertHistory:
        found = desk().table.history(limit, rule=rule)
        return AlertHistory(alerts=tuple(_view(alert) for alert in found))

    @routes.get("/preview")
    def preview(rule: str | None = None) -> Preview:
        return Preview(rules=_rules(desk().watch.preview(rule)))

    @routes.post("/test")
    def test(wish: TrialWish) -> TrialReport:
        _check_webhook(wish.webhook, [each.name for each in desk().watch.webhooks.receivers])
        outcomes = desk().test(wish.webhook)
        return TrialReport(outcomes=tuple(TrialOutcome(**each._asdict()) for each in outcomes))

    @routes.post("/silences", status_code=201)
    def silence(wish: SilenceWish) -> SilenceView:
        now = parts.clock()
        desk().watch.rule(wish.rule)
        made = Silence(
            id=secrets.token_hex(4),
            rule=wish.rule,
            subject=wish.subject,
            until=now + wish.for_s,
            reason=wish.reason,
            by=wish.by or "admin",
            created_at=now,
        )
        desk().table.silence(made, now)
        of = "" if wish.subject is None else f": {wish.subject}"
        _journal(parts, "alert.silenced", f"{wish.rule}{of}", made.by, wish.reason)
        return _silence(made)

    @routes.delete("/silences/{silence_id}", status_code=204)
    def unsilence(silence_id: str) -> None:
        if not desk().table.unsilence(silence_id):
            raise NotFound(
                f"there is no silence {silence_id[:80]!r}",
                next_step="modelyard alerts list shows those that there are",
                param="silence_id",
            )
        _journal(parts, "alert.unsilenced", silence_id, "admin", "")

    return routes


def _check_webhook(name: str | None, known: Sequence[str]) -> None:
    if not known:
        step = "write alerts.webhooks into config.yaml (docs/observability.md)"
        raise NotFound("no webhook is set", next_step=step, param="webhook")
    if name is not None and name not in known:
        step = f"known: {', '.join(known)}"
        raise NotFound(f"there is no webhook {name[:80]!r}", next_step=step, param="webhook")


def _journal(parts: ApiParts, kind: str, subject: str, by: str, message: str) -> None:
    event = Event(at=parts.clock(), kind=kind, subject=subject, actor=f"user:{by}", message=message)
    parts.store.events.append(event)


def _view(alert: Alert, silences: Sequence[Silence] = (), now: float = 0.0) -> AlertView:
    facts = msgspec.structs.asdict(alert)
    del facts["held_s"]
    covering = silence_of(alert, silences, now)
    return AlertView(**facts, silenced_by=None if covering is None else covering.id)


def _silence(silence: Silence) -> SilenceView:
    return SilenceView(**msgspec.structs.asdict(silence))


def _rules(seen: Sequence[Seen]) -> tuple[RuleView, ...]:
    return tuple(_rule(each) for each in seen)


def _rule(seen: Seen) -> RuleView:
    facts: dict[str, Any] = msgspec.to_builtins(seen.rule)
    return RuleView(
        **{name: facts[name] for name in _HEAD},
        parameters={name: value for name, value in facts.items() if name not in _HEAD},
        findings=tuple(
            FindingView(**msgspec.structs.asdict(finding), would_fire=finding.subject in seen.fires)
            for finding in seen.findings
        ),
    )
