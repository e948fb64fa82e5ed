"""Asks the ready replicas for their engines' own metrics (promise O1), beside everything else.

Each is asked every few seconds, on its own, with bounds on time and size: one that hangs or floods
holds nothing up, and what it told before is not told again.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import httpx
import msgspec

from modelyard.core.deployments import Replica
from modelyard.core.metrics import engines as ours
from modelyard.core.metrics.declaration import Metric
from modelyard.core.metrics.translation import Sample, Translated, translate
from modelyard.core.metrics.vocabularies import Vocabulary
from modelyard.core.replicas import ReplicaState
from modelyard.observe.prometheus import Labels, Reading, Source, border, sample

EVERY_S = 5.0
TIMEOUT_S = 2.0
"""For one replica's whole answer."""
MAX_BYTES = 4 * 1024 * 1024
AT_ONCE = 64


class Told(msgspec.Struct, frozen=True):
    """What one replica's engine told last."""

    labels: Labels
    """Model, version, slot, replica."""
    engine: str
    translated: Translated | None
    """None: it could not be read."""


class EngineScraper:
    """The last that each ready replica told."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        replicas: Callable[[], Iterable[Replica]],
        version_of: Callable[[Replica], str],
        vocabularies: Mapping[str, Vocabulary | None],
    ) -> None:
        """`vocabularies` are by the engine's name."""
        self._http = http
        self._replicas = replicas
        self._version_of = version_of
        self._vocabularies = vocabularies
        self._told: Mapping[str, Told] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))

    async def look(self) -> None:
        """Ask all of them now."""
        ready = [
            (replica, vocabulary)
            for replica in self._replicas()
            if replica.state is ReplicaState.READY
            and replica.url
            and (vocabulary := self._vocabularies.get(replica.engine)) is not None
        ]
        told = await asyncio.gather(*(self._ask(*each) for each in ready))
        self._told = {replica.id: each for (replica, _), each in zip(ready, told, strict=True)}

    def sources(self) -> Sequence[Source]:
        """What they told, under our names."""
        return (
            Reading(ours.UP, self._up),
            *(_Engines(metric, self._now) for metric in ours.VOCABULARY),
            Reading(ours.UNMAPPED, self._unmapped),
        )

    async def _ask(self, replica: Replica, vocabulary: Vocabulary) -> Told:
        labels = (replica.deployment, self._version_of(replica), replica.slot, replica.id)
        translated = None
        try:
            async with self._room, asyncio.timeout(TIMEOUT_S):
                text = await self._text(replica.url + "/metrics")
            if text is not None:
                translated = await asyncio.to_thread(translate, text, vocabulary)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            pass  # it is told as not up
        return Told(labels, replica.engine, translated)

    async def _text(self, url: str) -> str | None:
        """The page; None when it is none, or too long. Not unpacked: that could be any size."""
        body = bytearray()
        plain = {"accept": "text/plain", "accept-encoding": "identity"}
        async with self._http.stream("GET", url, headers=plain, timeout=TIMEOUT_S) as answer:
            if answer.status_code != 200 or answer.headers.get("content-encoding"):
                return None
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    return None
        return body.decode(errors="replace")

    def _now(self) -> Iterable[Told]:
        """Of the replicas that are still ready."""
        ready = {each.id for each in self._replicas() if each.state is ReplicaState.READY}
        return [told for name, told in self._told.items() if name in ready]

    def _up(self) -> Iterator[tuple[Labels, float]]:
        for told in self._now():
            yield (*told.labels, told.engine), int(told.translated is not None)

    def _unmapped(self) -> Iterator[tuple[Labels, float]]:
        for told in self._now():
            if told.translated is not None:
                yield (*told.labels, told.engine), len(told.translated.unmapped)


class _Engines:
    """One metric of all engines."""

    def __init__(self, metric: Metric, now: Callable[[], Iterable[Told]]) -> None:
        self.metric = metric
        self._now = now

    def lines(self) -> Iterator[str]:
        """Its samples, replica by replica."""
        for told in self._now():
            if told.translated is not None:
                for each in told.translated.samples:
                    if each.metric is self.metric:
                        yield _line(each, told.labels)


def _line(told: Sample, values: Labels) -> str:
    names = told.metric.labels
    name = told.metric.name + told.suffix
    if told.le is None:
        return sample(name, names, values, told.value)
    return sample(name, (*names, "le"), (*values, border(told.le)), told.value)
