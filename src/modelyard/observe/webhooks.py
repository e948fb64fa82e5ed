"""Receivers of alerts are told: one task each, so that one that hangs holds up nobody else.

A message waits in the state until it was taken or given up. A controller that ends between the
answer and the note of it sends the message again, with the same `webhook-id`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from modelyard.core.errors import StorageError
from modelyard.core.webhooks import Delivery, Receiver, delivery_of, headers, trial_alert, wait_s
from modelyard.state.alerts import Alerts

log = logging.getLogger(__name__)
_LOOK_AGAIN_S = 60.0
"""Nobody need wake a receiver's task for it to see what waits."""


class Outcome(NamedTuple):
    """How one attempt ended."""

    webhook: str
    taken: bool
    told: str


class Standing(NamedTuple):
    """How a receiver does; nothing in it is secret."""

    name: str
    address: str
    """Scheme, host and port; a URL's path may be a secret."""
    format: str
    signed: bool
    waiting: int = 0
    taken_at: float | None = None
    """Unix seconds of the last message that was taken."""
    error: str = ""
    """Why the last attempt failed; empty after one that did not."""


class Clocks(NamedTuple):
    """Time and chance, as arguments."""

    now: Callable[[], float]
    """Unix seconds."""
    steady: Callable[[], float]
    """Seconds by a clock that nobody can set."""
    draw: Callable[[], float]
    """A random number, 0 to 1."""
    new_id: Callable[[], str]


class _Waiting(NamedTuple):
    delivery: Delivery
    due: float
    """By the steady clock."""


class Webhooks:
    """The receivers, and what they are still to be told."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        alerts: Alerts,
        tell: Callable[[str, str, str], None],
        clocks: Clocks,
    ) -> None:
        """`tell` is given lines for the journal: kind, subject and message."""
        self.receivers = tuple(receivers)
        self._alerts = alerts
        self._tell = tell
        self._clocks = clocks
        self._standing = {each.name: _standing(each) for each in self.receivers}
        self._awake = {each.name: asyncio.Event() for each in self.receivers}
        self._offered: Sequence[Delivery] = ()
        self._settled: set[str] = set()
        """Messages that are done with, and that the state has not forgotten yet."""

    @property
    def standings(self) -> tuple[Standing, ...]:
        """How they do, for any thread."""
        return tuple(self._standing.values())

    def wake(self, unsaved: Sequence[Delivery], *, more: bool) -> None:
        """A look is over: `unsaved` is what the state could not take so far, all of it; `more`:
        there is something new to send."""
        self._offered = unsaved
        for event in self._awake.values() if more else ():
            event.set()

    async def run(self) -> None:
        """Send until cancelled."""
        await self._drop_strangers()
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False) as http:
            serving = [asyncio.create_task(self._serve(http, each)) for each in self.receivers]
            try:
                await asyncio.gather(*serving)
                await asyncio.Event().wait()  # without receivers there is nothing to do
            finally:
                for task in serving:
                    task.cancel()

    async def test(self, name: str | None = None) -> tuple[Outcome, ...]:
        """Send each receiver, or one of them, a message that says it is a test; once."""
        alert = trial_alert(self._clocks.new_id(), self._clocks.now())
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False) as http:
            return await _gathered(
                self._send(http, each, delivery_of(each, alert, "alert.test", alert.began_at))
                for each in self.receivers
                if name in (None, each.name)
            )

    async def _drop_strangers(self) -> None:
        """Forget messages to receivers that are no longer named."""
        waiting = await asyncio.to_thread(self._alerts.waiting)
        strange = [each for each in waiting if each.webhook not in self._standing]
        if strange:
            await asyncio.to_thread(self._alerts.settled, [each.id for each in strange])
            for each in strange:
                self._tell("alert.undelivered", each.webhook, f"{each.id}: no such webhook")

    async def _serve(self, http: httpx.AsyncClient, receiver: Receiver) -> None:
        queue: dict[str, _Waiting] = {}
        awake = self._awake[receiver.name]
        while True:
            awake.clear()
            await self._fill(queue, receiver.name)
            now = self._clocks.steady()
            for waiting in _first_of_each(queue):
                if waiting.due <= now:
                    await self._attempt(http, receiver, queue, waiting.delivery)
            self._note(receiver.name, waiting=len(queue))
            first = min((each.due for each in _first_of_each(queue)), default=None)
            wait = _LOOK_AGAIN_S if first is None else max(first - self._clocks.steady(), 0.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(awake.wait(), min(wait, _LOOK_AGAIN_S))

    async def _fill(self, queue: dict[str, _Waiting], name: str) -> None:
        """Take in what waits in the state, and let it forget what is done with."""
        try:
            # What is still offered may yet get into the state: it is not forgotten before.
            mine = [
                each
                for each in self._settled - {offer.id for offer in self._offered}
                if each.endswith(f"-{name}")
            ]
            if mine:
                await asyncio.to_thread(self._alerts.settled, mine)
                self._settled.difference_update(mine)
            stored = await asyncio.to_thread(self._alerts.waiting, name)
            gone = queue.keys() - {each.id for each in (*stored, *self._offered)}
        except StorageError as error:
            log.warning("webhook %s: %s", name, error)
            stored, gone = [], set()
        for each in (*stored, *(offer for offer in self._offered if offer.webhook == name)):
            if each.id not in queue and each.id not in self._settled:
                queue[each.id] = _Waiting(each, self._clocks.steady())
        for message_id in gone:  # it gave way to newer ones
            del queue[message_id]

    async def _attempt(
        self,
        http: httpx.AsyncClient,
        receiver: Receiver,
        queue: dict[str, _Waiting],
        delivery: Delivery,
    ) -> None:
        outcome = await self._send(http, receiver, delivery)
        attempts = delivery.attempts + 1
        wait = wait_s(attempts, self._clocks.draw())
        delivery = msgspec.structs.replace(
            delivery, attempts=attempts, tried_s=delivery.tried_s + wait, error=outcome.told
        )
        if outcome.taken:
            self._note(receiver.name, taken_at=self._clocks.now(), error="")
            await self._settle(queue, delivery)
            return
        self._note(receiver.name, error=outcome.told)
        if attempts == 1:
            log.warning("webhook %s: %s; tried again", receiver.name, outcome.told)
        if delivery.tried_s > receiver.give_up_s:
            told = f"{delivery.id}: given up after {attempts} attempts: {outcome.told}"
            self._tell("alert.undelivered", receiver.name, told)
            await self._settle(queue, delivery)
            return
        queue[delivery.id] = _Waiting(delivery, self._clocks.steady() + wait)
        with contextlib.suppress(StorageError):  # it is sent all the same
            await asyncio.to_thread(self._alerts.tried, delivery)

    async def _settle(self, queue: dict[str, _Waiting], delivery: Delivery) -> None:
        del queue[delivery.id]
        self._settled.add(delivery.id)
        with contextlib.suppress(StorageError):  # tried again with the next look
            await asyncio.to_thread(self._alerts.settled, [delivery.id])
            if delivery.id not in {offer.id for offer in self._offered}:
                self._settled.discard(delivery.id)

    async def _send(
        self, http: httpx.AsyncClient, receiver: Receiver, delivery: Delivery
    ) -> Outcome:
        """One attempt. What is told names no path of the URL: it may be a secret."""
        timestamp = int(self._clocks.now())
        address = self._standing[receiver.name].address
        try:
            async with asyncio.timeout(receiver.timeout_s):
                sent = http.stream(
                    "POST",
                    receiver.url,
                    content=delivery.body.encode(),
                    headers=headers(receiver, delivery, timestamp),
                    timeout=receiver.timeout_s,
                )
                async with sent as answer:
                    status, moved = answer.status_code, answer.is_redirect
        except (TimeoutError, httpx.TimeoutException):
            told = f"no answer from {address} within {receiver.timeout_s:g} s"
            return Outcome(receiver.name, False, told)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(receiver.name, False, f"{type(error).__name__} at {address}")
        told = f"{address} answered {status}"
        if moved:
            told += "; redirects are not followed: name the new address"
        return Outcome(receiver.name, 200 <= status < 300, told)

    def _note(self, name: str, **changes: object) -> None:
        self._standing = {
            **self._standing,
            name: self._standing[name]._replace(**changes),  # type: ignore[arg-type]
        }


def _first_of_each(queue: Mapping[str, _Waiting]) -> list[_Waiting]:
    """The oldest message of each alert: nobody hears of an end before the beginning."""
    first: dict[str, _Waiting] = {}
    for waiting in queue.values():
        first.setdefault(waiting.delivery.alert, waiting)
    return list(first.values())


async def _gathered(sending: Iterable[Awaitable[Outcome]]) -> tuple[Outcome, ...]:
    return tuple(await asyncio.gather(*sending))


def _standing(receiver: Receiver) -> Standing:
    parts = urlsplit(receiver.url)
    port = "" if parts.port is None else f":{parts.port}"
    return Standing(
        name=receiver.name,
        address=f"{parts.scheme}://{parts.hostname}{port}",
        format=receiver.format,
        signed=bool(receiver.secret),
    )
