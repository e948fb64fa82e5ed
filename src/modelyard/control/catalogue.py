"""Noticing what people do in MLflow's own UI while nobody runs a command.

Deployed services have no part in this: what is served was resolved from the journal when it was
deployed, and a catalogue that is away is asked again the next time.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from modelyard.core.errors import ModelyardError
from modelyard.registry.mirror import Synced, told

Tell = Callable[[str, str, str], None]
"""Kind, subject, message of an event; called in the watch's thread."""

INTERVAL_S = 60.0
_THOROUGH_EVERY = 10
_AWAY = "catalogue.away"


class Syncing(Protocol):
    """What is needed of the registry."""

    def sync_catalogue(self, *, thorough: bool = False) -> Synced:
        """Bring the catalogue into step."""


class CatalogueWatch:
    """Brings the catalogue into step every minute, and every tenth time looks for tampering.

    In a thread that nobody waits for: MLflow's client blocks, for seconds where a server hangs.
    It is imported an interval after the start, not before.
    """

    def __init__(self, registry: Syncing, tell: Tell, interval_s: float = INTERVAL_S) -> None:
        self._registry = registry
        self._tell = tell
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="catalogue", daemon=True).start()

    def end(self) -> None:
        """Look no more; what is being looked at goes on or ends with the process."""
        self._ended.set()

    def look(self, *, thorough: bool) -> None:
        """Ask once; tell what is new since the last time."""
        try:
            found = self._registry.sync_catalogue(thorough=thorough)
        except ModelyardError as error:
            self._say(_AWAY, error.message, once_for=_AWAY)
            return
        except Exception as error:  # noqa: BLE001 - the edge of a loop: the next look may succeed
            self._say(_AWAY, f"{type(error).__name__}: {error}", once_for=_AWAY)
            return
        self._said.discard(_AWAY)
        for move in found.moves:
            self._tell("alias.moved", f"{move.name}@{move.alias}", told(move))
        for text in found.tampering:
            self._say("catalogue.tampering", text, once_for=text)
        for text in found.warnings:
            self._say("catalogue.warning", text, once_for=text)

    def _run(self) -> None:
        count = 0
        while not self._ended.wait(self._interval_s):
            count += 1
            self.look(thorough=count % _THOROUGH_EVERY == 0)

    def _say(self, kind: str, text: str, *, once_for: str) -> None:
        if once_for not in self._said:
            self._said.add(once_for)
            self._tell(kind, "mlflow", text)
