"""The facts that alert rules look at, gathered from the state, the gateways' reports and the disk.

Read in a thread: nothing here may hold up the controller's loop, nor a writer of the state.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from modelyard.core.alert_checks import (
    AlertFacts,
    Counted,
    Handover,
    Running,
    Scored,
    Space,
    Spent,
    Window,
    stretches_of,
    windows_of,
)
from modelyard.core.alerting import AnyRule, BudgetRule, DiskRule, QualityRule, RecordsRule
from modelyard.core.deployments import Deployment, Replica
from modelyard.core.gateways import GatewayFacts
from modelyard.core.keyring import Keyring
from modelyard.core.keys import Limit
from modelyard.core.limits import PERIODS, Scope
from modelyard.core.replicas import ReplicaState
from modelyard.core.restarts import RestartRule, failures_in_a_row
from modelyard.core.usage import DAY_S
from modelyard.core.windows import Period, period_number, period_start
from modelyard.observe.webhooks import Clocks
from modelyard.state.counts import Used
from modelyard.state.store import Store

JUMP_S = 60.0
"""A clock that goes back by less stays within the minutes that requests are summed by."""
_NANOS = 1e9
_GATEWAYS_KNOWN = 1000


class Facts:
    """Gathers what a set of rules needs; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        gateways: Callable[[], Sequence[GatewayFacts]],
        folder: Path,
        clocks: Clocks,
    ) -> None:
        """`folder`: the home, whose disk is looked at."""
        self._store = store
        self._gateways = gateways
        self._folder = folder
        self._clocks = clocks
        self._jumps = _Jumps()
        self._losses = _Losses()
        self._ring = Keyring()

    def gather(self, rules: Iterable[AnyRule]) -> AlertFacts:
        """What these rules look at; StorageError while the state is away."""
        rules = tuple(rules)
        now, steady = self._clocks.now(), self._clocks.steady()
        self._jumps.look(now, steady)
        gateways = self._gateways()
        kept_s = max((r.within_s for r in rules if isinstance(r, RecordsRule)), default=0.0)
        lost = self._losses.look(gateways, steady, kept_s)
        return AlertFacts(
            requests={window: self._counted(window, now) for window in _windows(rules)},
            went_back_s=self._jumps.went_back_s,
            went_back_s_ago=self._jumps.ago(steady),
            spent=self._spent(now) if _any(rules, BudgetRule) else (),
            deployments=self._running(now),
            handovers=tuple(
                Handover(gateway=each.id, waiting=each.records_waiting, lost=lost.get(each.id, 0))
                for each in gateways
            ),
            space=self._space() if _any(rules, DiskRule) else None,
            scored={
                lengths: self._scored(lengths, now)
                for lengths in {stretches_of(r) for r in rules if isinstance(r, QualityRule)}
            },
        )

    def _counted(self, window: Window, now: float) -> dict[str, Counted]:
        counts = self._store.counts
        late = {}
        if window.ttft_s is not None:
            late = counts.late(window.length_s, now, window.ttft_s)
        return {
            model: Counted(ended.completed, ended.failed, late.get(model, 0))
            for model, ended in counts.ended(window.length_s, now).items()
        }

    def _scored(self, lengths: tuple[float, float], now: float) -> tuple[Scored, ...]:
        begin = now - lengths[0]
        before = {
            (each.model, each.judge): each
            for each in self._store.counts.judged(begin - lengths[1], begin)
        }
        lately = {(each.model, each.judge): each for each in self._store.counts.judged(begin, now)}
        found = []
        for model, judge in sorted(before.keys() | lately.keys()):
            old, new = before.get((model, judge)), lately.get((model, judge))
            found.append(
                Scored(
                    model=model,
                    judge=judge,
                    count=new.scores if new else 0,
                    mean=new.mean if new else 0.0,
                    count_before=old.scores if old else 0,
                    mean_before=old.mean if old else 0.0,
                )
            )
        return tuple(found)

    def _running(self, now: float) -> tuple[Running, ...]:
        replicas: dict[str, list[Replica]] = {}
        for replica in self._store.replicas.all():
            replicas.setdefault(replica.deployment, []).append(replica)
        return tuple(
            running_of(deployment, replicas.get(deployment.name, ()), now)
            for deployment in self._store.deployments.all()
            if not deployment.removed
        )

    def _spent(self, now: float) -> tuple[Spent, ...]:
        """What limits per day and month have been used of; only rows of those that have some."""
        log = self._store.keys
        if log.last_seq() > self._ring.seq:
            self._ring.apply(log.after(self._ring.seq))
        limited: list[tuple[Scope, str, Limit]] = [
            ("key", key.key_id, limit)
            for key in self._ring.keys
            for limit in key.limits
            if limit.kind in PERIODS
        ]
        limited += [
            ("tenant", tenant.tenant, limit)
            for tenant in self._ring.tenants
            for limit in tenant.limits
            if limit.kind in PERIODS
        ]
        if not limited:
            return ()
        sums = {
            period: _sums(self._store.counts.used(_first_day(period, now)))
            for period in {PERIODS[limit.kind] for _, _, limit in limited}
        }
        found = []
        for scope, name, limit in limited:
            tokens, nanos = sums[PERIODS[limit.kind]].get((scope, name, limit.model), (0, 0))
            used = nanos / _NANOS if limit.kind.startswith("cost") else float(tokens)
            found.append(
                Spent(
                    scope=scope,
                    name=name,
                    kind=limit.kind,
                    model=limit.model,
                    used=used,
                    amount=limit.amount,
                )
            )
        return tuple(found)

    def _space(self) -> Space | None:
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:  # the home has gone: others say so
            return None
        return Space(folder=str(self._folder), free_bytes=usage.free, total_bytes=usage.total)


def running_of(deployment: Deployment, replicas: Sequence[Replica], now: float) -> Running:
    """How a deployment runs; `replicas` are its own, those that stopped lately too."""
    live = None if deployment.live is None else deployment.slot(deployment.live)
    ready = sum(
        replica.state is ReplicaState.READY
        for replica in replicas
        if live is not None and replica.generation == live.generation
    )
    by_generation: dict[int, list[Replica]] = {}
    for replica in replicas:
        by_generation.setdefault(replica.generation, []).append(replica)
    rows = [failures_in_a_row(own, RestartRule()) for own in by_generation.values()]
    worst = max(rows, key=lambda row: (row.in_a_row, row.last_at), default=None)
    return Running(
        name=deployment.name,
        live=live is not None,
        ready=ready,
        wanted=0 if live is None else live.replicas,
        failures=worst.in_a_row if worst else 0,
        failed_s_ago=max(now - worst.last_at, 0.0) if worst and worst.in_a_row else None,
        last_error=worst.last_error.partition("\n")[0] if worst else "",
    )


class _Jumps:
    """How far the wall clock went back against the steady one."""

    def __init__(self) -> None:
        self._seen: tuple[float, float] | None = None
        self.went_back_s = 0.0
        self._at = float("-inf")

    def look(self, now: float, steady: float) -> None:
        if self._seen is not None:
            went_back_s = (steady - self._seen[1]) - (now - self._seen[0])
            if went_back_s >= JUMP_S:
                left_s = max(self.went_back_s - self.ago(steady), 0.0)
                self.went_back_s, self._at = went_back_s + left_s, steady
        self._seen = (now, steady)

    def ago(self, steady: float) -> float:
        return steady - self._at


class _Losses:
    """Records that gateways lost lately, from what they have lost since they began."""

    def __init__(self) -> None:
        self._told: dict[str, int] | None = None
        self._lost: deque[tuple[float, str, int]] = deque(maxlen=10_000)

    def look(
        self, gateways: Sequence[GatewayFacts], steady: float, kept_s: float
    ) -> dict[str, int]:
        told = {each.id: each.records_dropped for each in gateways}
        if self._told is not None:  # what was lost before the first look was told by another
            for gateway, dropped in told.items():
                more = dropped - self._told.get(gateway, 0)
                if more > 0:
                    self._lost.append((steady, gateway, more))
        # One that is silent for a while is the same when it speaks again.
        known = self._told or {}
        self._told = told if len(known) > _GATEWAYS_KNOWN else known | told
        while self._lost and steady - self._lost[0][0] > kept_s:
            self._lost.popleft()
        totals: dict[str, int] = {}
        for _, gateway, count in self._lost:
            totals[gateway] = totals.get(gateway, 0) + count
        return totals


_Key = tuple[str, str, str | None]


def _sums(rows: Iterable[Used]) -> dict[_Key, tuple[int, int]]:
    """Tokens and billionths by scope, name and model, and over all models (None)."""
    totals: dict[_Key, tuple[int, int]] = {}
    for row in rows:
        for model in (None, row.model):
            places: tuple[_Key, _Key] = ("key", row.key_id, model), ("tenant", row.tenant, model)
            for place in places:
                tokens, nanos = totals.get(place, (0, 0))
                totals[place] = (tokens + row.tokens, nanos + row.cost_nanos)
    return totals


def _first_day(period: Period, now: float) -> int:
    return period_start(period, period_number(period, int(now))) // DAY_S


def _windows(rules: Iterable[AnyRule]) -> set[Window]:
    return {window for rule in rules for window in windows_of(rule)}


def _any(rules: Iterable[AnyRule], kind: type) -> bool:
    return any(isinstance(rule, kind) for rule in rules)
