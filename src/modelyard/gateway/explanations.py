"""Why recent requests went as they did: the last of them, in memory (promise G25)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.core.records import RequestRecord

Trail = Sequence[tuple[str, object]]


class Explanation(msgspec.Struct, frozen=True):
    """One request: its record, and what was decided on its way."""

    record: RequestRecord
    decisions: tuple[dict[str, Any], ...]


class Explanations:
    """A bounded ring by request id; the decisions are put into words when somebody asks."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept: OrderedDict[str, tuple[RequestRecord, Trail]] = OrderedDict()

    def keep(self, record: RequestRecord, trail: Trail) -> None:
        """Remember a request that ended."""
        if self._keep == 0:
            return
        self._kept[record.request_id] = (record, trail)
        if len(self._kept) > self._keep:
            self._kept.popitem(last=False)

    def find(self, request_id: str) -> Explanation | None:
        """What is remembered of a request; None when that is nothing any more."""
        kept = self._kept.get(request_id)
        if kept is None:
            return None
        record, trail = kept
        return Explanation(record, tuple(_told(kind, facts) for kind, facts in trail))


def _told(kind: str, facts: object) -> dict[str, Any]:
    names = _NAMES.get(kind)
    if kind == "choose" and isinstance(facts, tuple):
        slot, index, reason, loads, count = facts
        return {
            "decided": "choose",
            "slot": slot,
            "chosen": None if index is None else (loads[index].id if index < len(loads) else "…"),
            "reason": reason,
            "replicas": count,
            "candidates": [
                {
                    "replica": load.id,
                    "in_flight": load.in_flight,
                    "weight": load.weight,
                    "max_concurrency": load.max_concurrency,
                    "healthy": load.healthy,
                }
                for load in loads
            ],
        }
    if kind == "retry" and isinstance(facts, tuple):
        failure, delay = facts
        return {
            "decided": "retry" if delay is not None else "no retry",
            "after": failure.outcome,
            "attempt": failure.attempt,
            "untried": failure.untried,
            "left_s": round(failure.left_s, 3),
            "delay_s": delay,
        }
    if names is not None and isinstance(facts, tuple):
        return {"decided": kind, **dict(zip(names, facts, strict=True))}
    return {"decided": kind, "facts": facts}


_NAMES = {
    "reserved": ("limits", "prompt_tokens", "answer_tokens"),
    "limit": ("limit", "why"),
    "context": ("prompt_tokens", "wanted_tokens", "context_length", "action"),
    "cache": ("result", "why"),
    "model": ("gave_up", "because"),
    "standby": ("waited_s",),
    "shadow": ("copy", "version", "outcome", "agreement"),
}
