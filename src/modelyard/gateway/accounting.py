"""The end of every request: one outcome, one record, told to whoever counts."""

import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from modelyard.core.cost import cost_of_tokens, nanos
from modelyard.core.records import Outcome, RequestRecord
from modelyard.core.routes import is_priced
from modelyard.gateway.calls import Call
from modelyard.gateway.estimates import Estimates
from modelyard.gateway.explanations import Explanations
from modelyard.gateway.meters import Meters
from modelyard.gateway.spool import RecordSink


class CopyEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a copy of a live request ended."""

    live_id: str
    outcome: Outcome
    status: int
    took_s: float
    error_code: str | None = None
    agreement: float | None = None
    """With the live answer, 0 to 1; None when they can't be compared."""


class Ended(NamedTuple):
    """How a request ended."""

    outcome: Outcome
    status: int
    error_code: str | None


class Used(NamedTuple):
    """What a request used."""

    prompt_tokens: int | None
    completion_tokens: int | None
    estimated: bool
    """The counts are not the engine's own."""
    cost: float | None


class Accounting:
    """Counts requests from acceptance to their one outcome."""

    def __init__(
        self,
        gateway: str,
        books: RecordSink,
        meters: Meters,
        estimates: Estimates,
        explanations: Explanations,
    ) -> None:
        self._gateway = gateway
        self._books = books
        self._meters = meters
        self._estimates = estimates
        self._explanations = explanations
        self._count = 0
        self.open: set[Call] = set()
        """Calls that have not ended (promise G3: empty when nothing is under way)."""
        self.copies: set[Call] = set()
        """Copies of live requests that have not ended."""
        self._copied = 0
        self.listeners: list[Callable[[RequestRecord, Call], None]] = []
        """Told of every request that ended, and of nothing else; each returns at once."""

    def begin(self) -> Call:
        """Accept a request. Its id is ours and unique: records are told apart by it."""
        self._count += 1
        call = Call(f"req-{self._gateway}-{self._count:x}", time.time())
        self.open.add(call)
        self._meters.open = len(self.open)
        return call

    def finish(self, call: Call, outcome: Outcome, status: int, error_code: str | None) -> None:
        """End a request: called once for every `begin`. What it reserved is settled here."""
        self.open.remove(call)
        used = self._used(call, outcome)
        _settle(call, used)
        self._learn(call, outcome)
        self._tell(call, Ended(outcome, status, error_code), used)

    def _tell(self, call: Call, ended: Ended, used: Used) -> None:
        """Let everybody who watches know of a request that ended."""
        record = self._record(call, ended, used)
        self._books.put(record)
        self._explanations.keep(record, call.trail)
        self._meters.open = len(self.open)
        self._meters.ended(record, call.slot.model if call.slot is not None else None)
        for told in self.listeners:
            told(record, call)

    # --- copies of live requests: counted apart, nobody's use (promise D7) -----------------------

    def begin_copy(self, live: Call) -> Call:
        """A call for the same request that another version is asked beside the live one."""
        self._copied += 1
        copy = live.branch()
        copy.request_id = f"shadow-{self._gateway}-{self._copied:x}"
        copy.received_at, copy.received = time.time(), time.monotonic()
        copy.request_bytes = len(copy.body)
        copy.trail, copy.traced = [], None
        self.copies.add(copy)
        self._meters.copies = len(self.copies)
        return copy

    def finish_copy(self, copy: Call, ended: CopyEnd) -> None:
        """End a copy: called once for every `begin_copy` that was not dropped."""
        self._forget(copy)
        how = Ended(ended.outcome, ended.status, ended.error_code)
        record = msgspec.structs.replace(
            self._record(copy, how, self._used(copy, ended.outcome)),
            tenant=None,
            key_id=None,
            shadow_of=ended.live_id,
            agreement=ended.agreement,
            e2e_s=ended.took_s,
        )
        self._books.put(record)
        self._meters.copied(record)

    def drop_copy(self, model: str | None, reason: str, copy: Call | None = None) -> None:
        """Count a copy that was not made, or (`copy`) ended without saying anything."""
        if copy is not None:
            self._forget(copy)
        self._meters.copy_dropped(model, reason)

    def _forget(self, copy: Call) -> None:
        self.copies.discard(copy)
        self._meters.copies = len(self.copies)

    @property
    def ended(self) -> int:
        """Calls that have ended."""
        return self._count - len(self.open)

    def _record(self, call: Call, ended: Ended, used: Used) -> RequestRecord:
        e2e_s = time.monotonic() - call.received
        usage = call.usage
        return RequestRecord(
            request_id=call.request_id,
            gateway=self._gateway,
            received_at=call.received_at,
            operation=call.operation,
            stream=call.stream,
            outcome=ended.outcome,
            status=ended.status,
            error_code=ended.error_code,
            tenant=call.key.tenant if call.key is not None else None,
            key_id=call.key.key_id if call.key is not None else None,
            model=call.model,
            deployment=call.route.deployment if call.route else None,
            slot=call.slot.slot if call.slot else None,
            version=call.slot.version if call.slot else None,
            digest=call.slot.digest if call.slot else None,
            replica=call.replica.route.id if call.replica else None,
            attempts=tuple(call.attempts),
            cache=call.cache,
            queue_s=call.queue_s,
            ttft_s=None if call.first_byte is None else call.first_byte - call.received,
            itl_mean_s=_mean_gap_s(call),
            itl_max_s=call.gap_max_s if call.events > 1 else None,
            e2e_s=e2e_s,
            request_bytes=call.request_bytes,
            response_bytes=call.response_bytes,
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            tokens_estimated=used.estimated,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            replica_s=call.replica_s if call.attempts else None,
            cost=used.cost,
            finish_reason=call.finish_reason,
            limits=call.limits,
            caller=_caller(call),
            trace_id=call.trace_parent[3:35].decode() or None,
        )

    def _used(self, call: Call, outcome: Outcome) -> Used:
        """What a request used.

        Of an answer that was not waited for, or broke off, what was made so far counts: by its
        events when it was streamed, else by the time that it took (promise G2).
        """
        usage = call.usage
        if usage is not None:
            return _paid(call, usage.prompt_tokens, usage.completion_tokens)
        if call.shares or call.model is None or call.view is None or not call.attempts:
            return _paid(call, None, None)
        last = call.attempts[-1]
        if call.events == 0 and (outcome != "cancelled" or last.outcome != "cancelled"):
            return _paid(call, None, None)
        estimate = self._estimates.of(call.model)
        made = call.events
        if made == 0 and not call.stream:
            made = estimate.completion_tokens(last.duration_s) * call.view.answers
            wanted = call.view.wanted_tokens
            made = made if wanted is None else min(made, wanted * call.view.answers)
        prompt = estimate.prompt_tokens(call.view.prompt_bytes)
        return _paid(call, prompt, made, estimated=True)

    def _learn(self, call: Call, outcome: Outcome) -> None:
        """What the next requests of the model are estimated by."""
        usage = call.usage
        if usage is None or call.shares or call.model is None or call.view is None:
            return
        estimate = self._estimates.of(call.model)
        estimate.learn_prompt(call.view.prompt_bytes, usage.prompt_tokens or 0)
        if outcome == "completed" and call.attempts:
            estimate.learn_time(
                usage.prompt_tokens or 0, usage.completion_tokens or 0, call.replica_s
            )
            answers = call.view.answers
            estimate.learn_speed(
                (usage.completion_tokens or 0) // answers, call.attempts[-1].duration_s
            )


def _settle(call: Call, used: Used) -> None:
    """Give back what was reserved and not used, once."""
    reservation, call.reservation = call.reservation, None
    if reservation is None:
        return
    if not call.attempts and not call.shares:
        reservation.cancel()
        return
    if call.shares:
        reservation.settle(0, 0)
        return
    tokens = (used.prompt_tokens or 0) + (used.completion_tokens or 0)
    reservation.settle(tokens, None if used.cost is None else nanos(used.cost))


def _paid(
    call: Call, prompt: int | None, completion: int | None, *, estimated: bool = False
) -> Used:
    """So many tokens, and what they cost."""
    return Used(prompt, completion, estimated, _cost(call, prompt or 0, completion or 0))


def _cost(call: Call, prompt: int, completion: int) -> float | None:
    """What the request cost; None where no price is known, 0 where another request paid for it."""
    if call.shares or not call.attempts:
        known = call.slot is not None and is_priced(call.slot)
        return 0.0 if known else None
    if call.replica_cost is None or call.price is None:
        return None
    cached = call.usage.cached_tokens if call.usage is not None else None
    return call.replica_cost + cost_of_tokens(call.price, prompt, completion, cached or 0)


def _caller(call: Call) -> str | None:
    """Who stays with one of two versions, told apart and not told: a hash."""
    if call.route is None or len(call.route.slots) < 2:
        return None
    shared = sum(slot.weight > 0 for slot in call.route.slots) > 1
    caller = call.caller if shared else ""
    if not caller:
        return None
    return hashlib.blake2b(caller.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _mean_gap_s(call: Call) -> float | None:
    if call.first_byte is None or call.last_byte is None or call.events < 2:
        return None
    return (call.last_byte - call.first_byte) / (call.events - 1)
