"""What the verbs on keys have in common: how limits and times are written and shown."""

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from modelyard.api.messages import LimitView
from modelyard.core.errors import InvalidRequest

_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LIMIT_HELP = (
    "KIND=N or MODEL:KIND=N, repeatable. Kinds: requests_per_min, tokens_per_min, "
    "concurrent_requests, tokens_per_day, tokens_per_month; cost_per_day and cost_per_month, in "
    "the reporting currency, need prices (`cost` in config.yaml)."
)


def read_limits(
    given: Iterable[str],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Limits of all models, and by model; raises InvalidRequest for what is none."""
    everywhere: dict[str, float] = {}
    by_model: dict[str, dict[str, float]] = {}
    for text in given:
        what, equals, number = text.rpartition("=")
        model, _, kind = what.rpartition(":")
        try:
            amount = float(number.replace("_", ""))
        except ValueError:
            amount = None
        if not equals or not kind or amount is None:
            raise InvalidRequest(
                f"--limit {text!r} is not KIND=N",
                next_step="write --limit requests_per_min=60, or --limit MODEL:tokens_per_day=1000",
            )
        (by_model.setdefault(model, {}) if model else everywhere)[kind] = amount
    return everywhere, by_model


def read_seconds(text: str, option: str) -> float:
    """`30d`, `12h`, `10m`, `45s` as seconds; raises InvalidRequest."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"{option} {text!r} is no length of time", next_step="write 30d, 12h, 10m or 45s"
        )
    return int(found[1]) * _SECONDS[found[2]]


def shown_limits(limits: Iterable[LimitView]) -> str:
    """`60 requests/min, 1000 tokens/day of m`."""
    parts = []
    for limit in limits:
        of_model = f" of {limit.model}" if limit.model else ""
        kind = limit.kind.replace("_per_", "/").replace("_", " ")
        parts.append(f"{limit.amount:g} {kind}{of_model}")
    return ", ".join(parts)


def shown_time(at: float | None) -> str:
    """A moment as people write it, in UTC; empty for none."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def now() -> float:
    """Unix seconds."""
    return time.time()
