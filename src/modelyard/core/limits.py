"""Whether a request may be let in under the limits of its key, its tenant and its model.

What a request will use is reserved before it is sent, settled to what it did use, and released
once (promise G13). All bounds are looked at before any is charged: a request that one of them
refuses costs the others nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from modelyard.core.keys import Limit, LimitKind
from modelyard.core.windows import Period

Scope = Literal["key", "tenant", "model"]

PERIODS: dict[LimitKind, Period] = {"tokens_per_day": "day", "tokens_per_month": "month"}
PER_MINUTE: frozenset[LimitKind] = frozenset({"requests_per_min", "tokens_per_min"})
OF_TOKENS: frozenset[LimitKind] = frozenset({"tokens_per_min", *PERIODS})
ENFORCED: frozenset[LimitKind] = frozenset({"concurrent_requests", *PER_MINUTE, *PERIODS})
"""What a gateway can hold; a limit of another kind stops its start (promise G14)."""
LARGEST = 2**53


class Bound(msgspec.Struct, frozen=True):
    """One limit of one subject, as it is looked at."""

    kind: LimitKind
    scope: Scope
    subject: str
    """Key id, tenant or public model name."""
    amount: int
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

    def need(self, tokens: int) -> int:
        """What a request of so many tokens uses of it."""
        return tokens if self.kind in OF_TOKENS else 1


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
        Bound(limit.kind, scope, subject, int(limit.amount), limit.model)
        for limit in limits
        if limit.model is None or limit.model == model
    ]


def first_refusal(
    bounds: Sequence[Bound], used: Sequence[int], tokens: int
) -> tuple[int, int] | None:
    """Index of the first bound that would be broken, and by how much; None: let in.

    `used` is what counts against each bound now.
    """
    for index, (bound, count) in enumerate(zip(bounds, used, strict=True)):
        surplus = count + bound.need(tokens) - bound.amount
        if surplus > 0:
            return index, surplus
    return None


def unenforceable(limits: Iterable[Limit]) -> str | None:
    """Say why one of the limits can't be held; None when all can."""
    for limit in limits:
        if limit.kind not in ENFORCED:
            return f"{limit.kind} needs prices, which this gateway has none of"
        if not 0 < limit.amount <= LARGEST or limit.amount != int(limit.amount):
            return f"{limit.kind} is {limit.amount:g}; it must be a whole number over 0"
    return None


def told(refusal: Refusal) -> str:
    """A refusal in words, with the numbers."""
    bound = refusal.bound
    what = bound.kind.replace("_", " ")
    of_model = f" of model {bound.model!r}" if bound.model else ""
    reached = f"{bound.scope} {bound.subject!r} may use {bound.amount} {what}{of_model}"
    if refusal.wait_s is None:
        return f"{reached}, and this request alone needs {refusal.need}"
    return f"{reached}; {refusal.used} are used, and this request needs {refusal.need}"
