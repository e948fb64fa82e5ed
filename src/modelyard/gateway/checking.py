"""Looks at a configuration file without serving from it: every mistake that a start would refuse.

The mistakes of its form are told together, then those of what it means; secrets that are missing
are all told.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidConfig
from modelyard.gateway.config import GatewayFile, KeySettings, ModelSettings, TenantSettings
from modelyard.gateway.configured import Configured, Secrets, configured
from modelyard.gateway.credentials import Credentials
from modelyard.gateway.options import is_loopback
from modelyard.gateway.tls import server_context
from modelyard.gateway.yamlfile import mistakes, read_settings
from modelyard.observe.collectors import collector_of

_LISTS = {"models": ModelSettings, "tenants": TenantSettings, "keys": KeySettings}


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    found: Configured | None
    """None: it can't be used."""
    mistakes: tuple[InvalidConfig, ...]


class _GatheredSecrets(Secrets):
    """Goes on where a secret is missing, and remembers that."""

    def __init__(self, folder: Path, environment: Mapping[str, str], needed: bool) -> None:
        super().__init__(folder, environment)
        self._needed = needed
        self._asked = 0
        self.missing: list[InvalidConfig] = []

    def read(self, variable: str | None, file: str | None, where: str) -> str | None:
        """The secret, or one in its place, different each time."""
        try:
            return super().read(variable, file, where)
        except InvalidConfig as error:
            if self._needed:
                self.missing.append(error)
            self._asked += 1
            return f"missing-{self._asked}"


def check_file(
    file: Path, environment: Mapping[str, str], *, secrets_needed: bool = True
) -> Checked:
    """Read and check `file`; without `secrets_needed`, secrets that are not there are none."""
    of_form = mistakes(file, GatewayFile, _LISTS)
    if of_form:
        return Checked(found=None, mistakes=tuple(of_form))
    secrets = _GatheredSecrets(file.absolute().parent, environment, secrets_needed)
    try:
        settings = read_settings(file, GatewayFile)
        found = configured(settings, 1, time.time(), secrets, str(file))
    except InvalidConfig as error:
        return Checked(found=None, mistakes=(error,))
    wrong = [_named(error, file) for error in secrets.missing]
    wrong += [_named(error, file) for error in _unusable(found)]
    if secrets_needed:
        wrong += [_named(error, file) for error in _unsent(found, environment)]
    return Checked(found=None if wrong else found, mistakes=tuple(wrong))


def _unsent(found: Configured, environment: Mapping[str, str]) -> list[InvalidConfig]:
    """What would keep spans from being sent."""
    try:
        collector_of(found.settings.telemetry.traces, environment)
    except InvalidConfig as error:
        return [error]
    return []


def _unusable(found: Configured) -> list[InvalidConfig]:
    """What only a start would notice."""
    wrong: list[InvalidConfig] = []
    if not found.settings.keys and not is_loopback(found.host):
        wrong.append(
            InvalidConfig(
                f"listen: others can reach {found.host}, and there are no keys",
                next_step="make a key (modelyard keys create --offline), or listen on 127.0.0.1",
            )
        )
    if found.certificate is not None:
        try:
            server_context(*found.certificate)
        except InvalidConfig as error:
            wrong.append(error)
    if found.ca_file is not None:
        try:
            Credentials({}, found.ca_file).tls()
        except (OSError, ValueError) as error:
            wrong.append(
                InvalidConfig(
                    f"upstream_ca_file: {found.ca_file} can't be used: {error}",
                    next_step="give a PEM file with certificates",
                )
            )
    return wrong


def _named(error: InvalidConfig, file: Path) -> InvalidConfig:
    return InvalidConfig(f"{file}: {error.message}", next_step=error.next_step)
