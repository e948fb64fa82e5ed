"""The typed client's part for alerts: `Client(…).alerts`."""

from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from modelyard.api.alert_messages import (
    AlertHistory,
    AlertList,
    AlertView,
    Preview,
    RuleView,
    SilenceView,
    SilenceWish,
    TrialOutcome,
    TrialReport,
    TrialWish,
)

_Answer = TypeVar("_Answer", bound=BaseModel)


class Ask(Protocol):
    """Sends a request; raises the controller's error as the same class."""

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response: ...


class AlertClient:
    """Alerts of one controller."""

    def __init__(self, ask: Ask) -> None:
        self._send = ask

    def standing(self) -> AlertList:
        """What is pending or fires, silences, rules with what they saw, and receivers."""
        return self._ask(AlertList, "GET", "/api/alerts")

    def history(self, limit: int = 50, rule: str | None = None) -> tuple[AlertView, ...]:
        """At most `limit` that were resolved, the latest first."""
        query: dict[str, Any] = {"limit": limit} | ({} if rule is None else {"rule": rule})
        return self._ask(AlertHistory, "GET", "/api/alerts/history", params=query).alerts

    def preview(self, rule: str | None = None) -> tuple[RuleView, ...]:
        """What rules see now, and what would fire; NotFound names the rules."""
        query = {} if rule is None else {"rule": rule}
        return self._ask(Preview, "GET", "/api/alerts/preview", params=query).rules

    def test(self, webhook: str | None = None) -> tuple[TrialOutcome, ...]:
        """Send a marked message to one webhook, or to all; NotFound names those that there are."""
        body = TrialWish(webhook=webhook).model_dump(mode="json")
        return self._ask(TrialReport, "POST", "/api/alerts/test", json=body, timeout=90.0).outcomes

    def silence(self, wish: SilenceWish) -> SilenceView:
        """Let nobody be told of a rule's alerts for a while."""
        body = wish.model_dump(mode="json")
        return self._ask(SilenceView, "POST", "/api/alerts/silences", json=body)

    def unsilence(self, silence_id: str) -> None:
        """End a silence; NotFound when there is none of that id."""
        self._send("DELETE", f"/api/alerts/silences/{quote(silence_id, safe='')}")

    def _ask(self, kind: type[_Answer], method: str, path: str, **options: Any) -> _Answer:
        return kind.model_validate_json(self._send(method, path, **options).content)
