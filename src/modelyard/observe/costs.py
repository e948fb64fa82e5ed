"""Reports of cost: what requests cost, what ran, and what of it was idle (promise O6).

All sums are whole billionths of the reporting currency. Idle is what the replicas of a model cost
less what its requests cost: they waited, loaded, drained, or worked for what nobody pays for
(copies for a version on trial, smoke tests).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from modelyard.core.capacity import Capacity
from modelyard.core.rollups import Step
from modelyard.state.spending import Spent
from modelyard.state.store import Store

By = Literal["tenant", "key", "model", "version", "day"]
Name = tuple[str | int, ...]
DAY_S = int(Step.DAY)
_TELLS_CAPACITY = ("model", "version", "day")


class Row(NamedTuple):
    """One tenant, key, model, version or day; or several together."""

    name: Name
    spent: Spent = Spent()
    capacity: Capacity | None = None
    """What ran for it; None: that can't be told apart by it, or nothing did."""

    @property
    def idle_nanos(self) -> int | None:
        """None when nothing ran, or what it cost is not known."""
        if self.capacity is None or self.capacity.priced_ms == 0:
            return None
        return self.capacity.cost_nanos - self.spent.cost_nanos

    def plus(self, other: "Row") -> "Row":
        """Both together, under the first one's name."""
        capacity = self.capacity
        if other.capacity is not None:
            capacity = other.capacity.plus(capacity or Capacity())
        return Row(self.name, self.spent.plus(other.spent), capacity)


class Report(NamedTuple):
    """Rows, the dearest first (days: the newest last), and what they sum to."""

    rows: tuple[Row, ...]
    folded: Row | None
    """The rows beyond those asked for, together."""
    folded_count: int
    total: Row
    idle_nanos: int | None
    """Of all models that ran; None when there are none, or not all tenants were asked for."""
    unpriced: tuple[str, ...]
    """Models of which requests, or replicas that ran, have no price."""


def report(
    store: Store,
    by: By,
    since_day: int,
    *,
    tenant: str | None = None,
    model: str | None = None,
    top: int | None = None,
) -> Report:
    """Whole days of UTC from `since_day` on (days since 1970)."""
    of_models = store.spending.by("model", since_day, tenant=tenant, model=model)
    ran: Mapping[Name, Capacity] = {}
    if tenant is None:
        ran = store.capacity.by("model", since_day * DAY_S, model=model)
    if by == "model":
        spent: Mapping[Name, Spent] = of_models
    elif by == "version":
        spent = store.spending.by_version(since_day, model=model)
    else:
        spent = store.spending.by(by, since_day, tenant=tenant, model=model)
    capacity: Mapping[Name, Capacity] = {}
    if tenant is None and by == "day":
        found = store.capacity.by("day", since_day * DAY_S, model=model)
        capacity = {(int(at) // DAY_S,): each for (at,), each in found.items()}
    elif tenant is None and by in ("model", "version"):
        what: Literal["model", "version"] = "model" if by == "model" else "version"
        capacity = store.capacity.by(what, since_day * DAY_S, model=model)
    return reported(by, spent, capacity, of_models, ran, top)


def reported(
    by: By,
    spent: Mapping[Name, Spent],
    capacity: Mapping[Name, Capacity],
    of_models: Mapping[Name, Spent],
    ran: Mapping[Name, Capacity],
    top: int | None = None,
) -> Report:
    """The report of these sums; `of_models` and `ran` are the same ones by model."""
    rows = [
        Row(name, spent.get(name, Spent()), capacity.get(name))
        for name in spent.keys() | capacity.keys()
    ]
    rows.sort(key=_day_order if by == "day" else _cost_order)
    shown, more = (rows, []) if top is None or by == "day" else (rows[:top], rows[top:])
    total = _sum(Row(()), rows)
    if by not in _TELLS_CAPACITY and ran:
        total = total._replace(
            capacity=_sum(Row(()), [_ran(each) for each in ran.values()]).capacity
        )
    models = [Row(name, of_models.get(name, Spent()), each) for name, each in ran.items()]
    idle = [each.idle_nanos for each in models if each.idle_nanos is not None]
    return Report(
        rows=tuple(shown),
        folded=_sum(Row(()), more) if more else None,
        folded_count=len(more),
        total=total,
        idle_nanos=sum(idle) if idle else None,
        unpriced=tuple(sorted(_unpriced(of_models, ran))),
    )


def apportioned(amounts: Sequence[int], unit: int) -> list[int]:
    """The amounts rounded to multiples of `unit` whose sum is the rounded sum.

    Each is less than one unit off (the method of largest remainders).
    """
    floors = [amount // unit for amount in amounts]
    missing = (2 * sum(amounts) + unit) // (2 * unit) - sum(floors)
    by_rest = sorted(range(len(amounts)), key=lambda place: -(amounts[place] % unit))
    for place in by_rest[:missing]:
        floors[place] += 1
    return [floor * unit for floor in floors]


def _sum(begin: Row, rows: Sequence[Row]) -> Row:
    for row in rows:
        begin = begin.plus(row)
    return begin


def _ran(capacity: Capacity) -> Row:
    return Row((), Spent(), capacity)


def _unpriced(of_models: Mapping[Name, Spent], ran: Mapping[Name, Capacity]) -> set[str]:
    found = {str(name[0]) for name, spent in of_models.items() if spent.priced < spent.requests}
    return found | {str(n[0]) for n, each in ran.items() if each.priced_ms < each.replica_ms}


def _day_order(row: Row) -> tuple[int, Name]:
    return 0, row.name


def _cost_order(row: Row) -> tuple[int, Name]:
    return -(row.spent.cost_nanos + max(row.idle_nanos or 0, 0)), tuple(map(str, row.name))
