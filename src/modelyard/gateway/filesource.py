"""Routes and keys from a configuration file, taken up anew when it changes (SIGHUP, or by itself).

A file is put into force whole or not at all: one that can't be used is said once, `/health` tells
it, and what was in force stays.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

from modelyard.core.errors import InvalidConfig
from modelyard.gateway.config import GatewayFile
from modelyard.gateway.configured import Configured, Secrets, configured
from modelyard.gateway.credentials import Credentials
from modelyard.gateway.keys import KeyTable
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.standing import Standing
from modelyard.gateway.tls import load, server_context
from modelyard.gateway.watching import Stamp, stamp
from modelyard.gateway.yamlfile import read_settings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
_EPOCH = "file"


def read_config(file: Path, environment: Mapping[str, str], version: int = 1) -> Configured:
    """Read and check a configuration file; raises InvalidConfig."""
    settings = read_settings(file, GatewayFile)
    secrets = Secrets(file.absolute().parent, environment)
    return configured(settings, version, time.time(), secrets, str(file))


class FileSource:
    """Keeps routes, keys and certificate those of the file."""

    def __init__(
        self,
        file: Path,
        environment: Mapping[str, str],
        routes: RouteTable,
        keys: KeyTable,
        standing: Standing,
    ) -> None:
        self._file = file
        self._environment = environment
        self._routes = routes
        self._keys = keys
        self._standing = standing
        self._version = 0
        self._seen: Stamp = ()
        self._started_with: GatewayFile | None = None
        self.certificate: ssl.SSLContext | None = None
        """What the listener shows to clients; None where it speaks plain HTTP."""
        self.reload = asyncio.Event()
        """Set to have the file read again now."""

    def load(self, first: Configured) -> None:
        """Put the configuration that the process starts with into force; raises InvalidConfig."""
        self._standing.source = "file"
        if first.certificate is not None:
            self.certificate = server_context(*first.certificate)
        self._apply(first)
        self._started_with = first.settings
        self._seen = self._stamp(first)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        next_look = loop.time() + LOOK_EVERY_S
        while True:
            try:
                async with asyncio.timeout(_TICK_S):
                    await self.reload.wait()
                self.reload.clear()
                self._reload()
            except TimeoutError:
                pass
            if loop.time() >= next_look:
                next_look = loop.time() + LOOK_EVERY_S
                if self._changed():
                    self._reload()

    def _changed(self) -> bool:
        return stamp([self._file, *(entry[0] for entry in self._seen)]) != self._seen

    def _reload(self) -> None:
        self._version += 1
        found: Configured | None = None
        try:
            found = read_config(self._file, self._environment, self._version)
            self._apply(found)
        except InvalidConfig as error:
            self._standing.problem = error.message
            log.error("%s; %s; what was in force stays", error.message, error.next_step)
        else:
            self._standing.problem = ""
            self._warn(found.settings)
        # Seen either way: a file that can't be used is not complained of every second.
        self._seen = self._stamp(found)

    def _apply(self, found: Configured) -> None:
        """All or nothing: whatever can fail does so before anything changes."""
        before = self._routes.credentials
        self._routes.use(Credentials(found.secrets, found.ca_file))
        try:
            if found.ca_file is not None:
                self._check_ca(found)
            if found.certificate is not None and self.certificate is not None:
                load(self.certificate, *found.certificate)
            self._routes.apply(found.snapshot)
        except InvalidConfig:
            self._routes.use(before)
            raise
        self._keys.apply(_EPOCH, found.keys, reset=True)
        self._version = max(self._version, found.snapshot.version)
        self._standing.has_routes = self._standing.connected = True

    def _check_ca(self, found: Configured) -> None:
        try:
            self._routes.credentials.tls()
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"upstream_ca_file: {found.ca_file} can't be used: {error}",
                next_step="give a PEM file with certificates",
            ) from None

    def _warn(self, settings: GatewayFile) -> None:
        """Some settings are those of the process: they need a start."""
        started = self._started_with
        if started is None:
            return
        for name in _AT_START:
            if getattr(settings, name) != getattr(started, name):
                log.warning("%s: %s changed; that takes effect at the next start", self._file, name)
        if (settings.tls is None) != (started.tls is None):
            log.warning("%s: tls was switched; that needs a start", self._file)

    def _stamp(self, found: Configured | None) -> Stamp:
        files = [self._file]
        if found is None:
            files += [entry[0] for entry in self._seen]
        else:
            files += found.used_files
            files += found.certificate or ()
            files += [found.ca_file] if found.ca_file is not None else []
        return stamp(files)


_TICK_S = 0.25
_AT_START = (
    "listen", "cache", "records", "telemetry", "state_dir", "max_body_bytes", "drain_s",
    "explain_last",
)  # fmt: skip
