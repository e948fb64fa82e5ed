"""Whether a request may be let in under the limits of its key, its tenant and its model.

What a request will use is reserved before it is sent, settled to what it did use, and released
once (promise G13). All bounds are looked at before any is charged: a request that one of them
refuses costs the others nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from modelyard.core.cost import NANOS, nanos, plain
from modelyard.core.keys import Limit, LimitKind
from modelyard.core.windows import Period

Scope = Literal["key", "tenant", "model"]

PERIODS: dict[LimitKind, Period] = {
    "tokens_per_day": "day",
    "tokens_per_month": "month",
    "cost_per_day": "day",
    "cost_per_month": "month",
}
PER_MINUTE: frozenset[LimitKind] = frozenset({"requests_per_min", "tokens_per_min"})
OF_TOKENS: frozenset[LimitKind] = frozenset(
    {"tokens_per_min", "tokens_per_day", "tokens_per_month"}
)
OF_MONEY: frozenset[LimitKind] = frozenset({"cost_per_day", "cost_per_month"})
"""Counted in billionths of the reporting currency. A request that has no price has no place under
one: what it would use is not known."""
ENFORCED: frozenset[LimitKind] = frozenset({"concurrent_requests", *PER_MINUTE, *PERIODS})
"""What a gateway can hold; a limit of another kind stops its start (promise G14)."""
LARGEST = 2**53
LARGEST_MONEY = 10**9
_NAMED = 5


class Use(NamedTuple):
    """What one request uses, or will."""

    tokens: int = 0
    """Of its prompt and its answer."""
    nanos: int = 0
    """Its cost in billionths of the reporting currency."""


class Bound(msgspec.Struct, frozen=True):
    """One limit of one subject, as it is looked at."""

    kind: LimitKind
    scope: Scope
    subject: str
    """Key id, tenant or public model name."""
    amount: int
    """Requests, tokens, or billionths of the reporting currency."""
    model: str | None = None
    """Counts requests of this model only; None: of all."""

    @property
    def id(self) -> str:
        """Names its counter; the amount may change while what was used stays."""
        return f"{self.kind}|{self.scope}|{self.subject}|{self.model or ''}"

    @property
    def shown(self) -> str:
        """`kind:scope`, as records and the answer's header tell it."""
        return f"{self.kind}:{self.scope}"

    def in_units(self, counted: int) -> int | float:
        """What was counted in tokens, requests, or whole money."""
        return counted / NANOS if self.kind in OF_MONEY else counted

    def shown_amount(self, counted: int) -> str:
        """What was counted, for people: tokens, requests, or money."""
        return plain(counted) if self.kind in OF_MONEY else str(counted)

    def need(self, use: Use) -> int:
        """What a request uses of it."""
        if self.kind in OF_TOKENS:
            return use.tokens
        return use.nanos if self.kind in OF_MONEY else 1


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The bound that a request would break, and when it no longer would."""

    bound: Bound
    used: int
    need: int
    wait_s: int | None
    """None: never, the request alone is larger than the bound."""


def bounds_of(scope: Scope, subject: str, limits: Iterable[Limit], model: str) -> list[Bound]:
    """Those limits of a subject that a request of `model` falls under."""
    return [
        Bound(limit.kind, scope, subject, _counted(limit), limit.model)
        for limit in limits
        if limit.model is None or limit.model == model
    ]


def first_refusal(bounds: Sequence[Bound], used: Sequence[int], use: Use) -> tuple[int, int] | None:
    """Index of the first bound that would be broken, and by how much; None: let in.

    `used` is what counts against each bound now.
    """
    for index, (bound, count) in enumerate(zip(bounds, used, strict=True)):
        surplus = count + bound.need(use) - bound.amount
        if surplus > 0:
            return index, surplus
    return None


def _counted(limit: Limit) -> int:
    return nanos(limit.amount) if limit.kind in OF_MONEY else int(limit.amount)


def unenforceable(limits: Iterable[Limit]) -> str | None:
    """Say why one of the limits can't be held; None when all can, as far as they alone tell:
    `unpriced` asks whether what a limit of money counts has a price."""
    for limit in limits:
        if limit.kind not in ENFORCED:
            return f"{limit.kind} is not known here"
        if limit.kind in OF_MONEY:
            if not 1 / NANOS <= limit.amount <= LARGEST_MONEY:  # false for what is no number
                return f"{limit.kind} is {limit.amount:g}; it must be money over 0, up to 1e9"
        elif not 0 < limit.amount <= LARGEST or limit.amount != int(limit.amount):
            return f"{limit.kind} is {limit.amount:g}; it must be a whole number over 0"
    return None


def unpriced(limits: Iterable[Limit], models: Mapping[str, bool]) -> str | None:
    """Say why a limit of money can't be held; None when each counts something that has a price.

    `models` are those that the limits' subject may ask, and whether each has a price.
    """
    for limit in limits:
        if limit.kind not in OF_MONEY:
            continue
        counted = [limit.model] if limit.model is not None else sorted(models)
        if not any(models.get(name, False) for name in counted):
            told = ", ".join(map(repr, counted[:_NAMED])) or "nothing"
            return f"{limit.kind} needs prices, and {told} has none"
    return None


def told(refusal: Refusal) -> str:
    """A refusal in words, with the numbers."""
    bound = refusal.bound
    of_money = bound.kind in OF_MONEY
    may = "spend" if of_money else "use"
    what = bound.kind.removeprefix("cost_").replace("_", " ")
    of_model = f" of model {bound.model!r}" if bound.model else ""
    reached = f"{bound.scope} {bound.subject!r} may {may} {bound.shown_amount(bound.amount)}"
    reached += f" {what}{of_model}"
    need = bound.shown_amount(refusal.need)
    if refusal.wait_s is None:
        return f"{reached}, and this request alone needs {need}"
    return f"{reached}; {bound.shown_amount(refusal.used)} are used, and this request needs {need}"
