"""How alerts are shown, in 80 columns."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from modelyard.api.alert_messages import AlertView, RuleView, SilenceView
from modelyard.cli.keys.words import shown_time
from modelyard.cli.output import age

if TYPE_CHECKING:
    from rich.table import Table


def table(*titles: str) -> "Table":
    """An empty table whose last column takes what space is left."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles[:-1]:
        made.add_column(title, overflow="fold", max_width=24)
    made.add_column(titles[-1], overflow="fold", ratio=1)
    return made


def alert_table(alerts: Iterable[AlertView], now: float) -> "Table":
    """What is pending or fires."""
    made = table("state", "rule", "subject", "for", "seen")
    for alert in alerts:
        since = alert.fired_at or alert.began_at
        state = alert.state.upper() if alert.fired_at else str(alert.state)
        told = alert.told + (f"\nsilenced: {alert.silenced_by}" if alert.silenced_by else "")
        made.add_row(state, alert.rule, alert.subject, age(now - since), told)
    return made


def silence_table(silences: Iterable[SilenceView]) -> "Table":
    """What nobody is told of."""
    made = table("silence", "rule", "until", "by", "why")
    for silence in silences:
        of = "" if silence.subject is None else f"\n{silence.subject}"
        row = (silence.id, silence.rule + of, shown_time(silence.until), silence.by)
        made.add_row(*row, silence.reason)
    return made


def things_seen(rules: Sequence[RuleView]) -> int:
    """How many things the rules see."""
    return len({finding.subject for rule in rules for finding in rule.findings})


def counted(number: int, what: str) -> str:
    """`1 rule`, `7 rules`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
