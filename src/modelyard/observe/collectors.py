"""Where spans go, from the settings and from the variables that OpenTelemetry's own kits obey.

The settings come first; a variable fills what they leave open. The variables are those of the
OpenTelemetry specification (SDK configuration; OTLP exporter), as far as they mean something here.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import msgspec

from modelyard.core.errors import InvalidConfig
from modelyard.core.telemetry import (
    DEFAULT_SAMPLE,
    TRACES_PATH,
    TraceOptions,
    check_headers,
    checked_endpoint,
)

log = logging.getLogger(__name__)

SERVICE = "modelyard-gateway"
_OFF = frozenset({"always_off", "parentbased_always_off"})
_ON = frozenset({"always_on", "parentbased_always_on"})


class Collector(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans are posted to."""

    url: str
    sample: float
    """Share of the requests that get a span, where the caller has not decided."""
    headers: tuple[tuple[str, str], ...] = ()
    """Secrets, maybe."""
    ca_file: str | None = None
    """Certificates that it is checked against; None: those of the system."""
    resource: tuple[tuple[str, str], ...] = (("service.name", SERVICE),)
    """Who sends."""


def collector_of(
    options: TraceOptions, environment: Mapping[str, str] = os.environ, where: str = "telemetry"
) -> Collector | None:
    """Where spans go; None: nowhere. Raises InvalidConfig, without a secret in it."""
    where = f"{where}.traces"
    check_headers(options.headers_env, f"{where}.headers_env")
    url = _url(options, environment, where)
    if url is None:
        return None
    ca_file = _first(environment, "CERTIFICATE")
    if ca_file is not None and not Path(ca_file[1]).is_file():
        raise InvalidConfig(
            f"{ca_file[0]}: there is no file {ca_file[1]}",
            next_step="name a PEM file with the certificates that the collector is checked against",
        )
    return Collector(
        url=url,
        sample=_sample(options, environment),
        headers=_headers(options, environment, where),
        ca_file=None if ca_file is None else ca_file[1],
        resource=_resource(environment),
    )


def _url(options: TraceOptions, environment: Mapping[str, str], where: str) -> str | None:
    if _is_true(environment, "OTEL_SDK_DISABLED"):
        return None
    if options.endpoint:
        return checked_endpoint(options.endpoint, f"{where}.endpoint")
    found = _first(environment, "ENDPOINT")
    if found is None or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "otlp":
        return None
    protocol = _first(environment, "PROTOCOL")
    if protocol is not None and protocol[1] != "http/protobuf":
        # Set for the whole machine, maybe: no reason not to serve.
        log.warning(
            "%s is %s; spans are sent as http/protobuf alone, so none are: set "
            "telemetry.traces.endpoint, or OTEL_EXPORTER_OTLP_TRACES_PROTOCOL and _ENDPOINT",
            *protocol,
        )
        return None
    variable, url = found
    if "_TRACES_" not in variable:  # the URL of a collector, below which each signal has its path
        url = url.rstrip("/") + TRACES_PATH
    return checked_endpoint(url, variable)


def _sample(options: TraceOptions, environment: Mapping[str, str]) -> float:
    if options.sample is not None:
        return options.sample
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").strip()
    if sampler in _OFF:
        return 0.0
    if sampler in _ON:
        return 1.0
    told = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if not told:
        return DEFAULT_SAMPLE
    try:
        share = float(told)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidConfig(
            f"OTEL_TRACES_SAMPLER_ARG: {told!r} is no share of requests",
            next_step="give a number from 0 to 1, such as 0.01, or set telemetry.traces.sample",
        )
    return share


def _headers(
    options: TraceOptions, environment: Mapping[str, str], where: str
) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    told = _first(environment, "HEADERS")
    for member in "" if told is None else told[1].split(","):
        name, _, value = member.partition("=")
        if name.strip():
            found[name.strip().lower()] = unquote(value.strip())
    if told is not None:
        check_headers(dict.fromkeys(found, "_"), told[0])
    for name, variable in options.headers_env.items():
        value = environment.get(variable, "").strip()
        if not value:
            raise InvalidConfig(
                f"{where}.headers_env.{name}: the environment variable {variable} is empty or not "
                "set",
                next_step="set it where the gateway is started",
            )
        found[name.lower()] = value
    for name, value in found.items():
        if not value.isascii() or not value.isprintable():
            raise InvalidConfig(
                f"the value of the header {name!r} for the collector holds characters that no "
                "header can carry",
                next_step="mend the variable that holds it",
            )
    return tuple(found.items())


def _resource(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = {"service.name": SERVICE}
    for member in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, _, value = member.partition("=")
        if name.strip():
            found[name.strip()] = unquote(value.strip())
    service = environment.get("OTEL_SERVICE_NAME", "").strip()
    return tuple((found | ({"service.name": service} if service else {})).items())


def _first(environment: Mapping[str, str], name: str) -> tuple[str, str] | None:
    """The variable for traces, else that for all signals, where it holds anything."""
    for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        value = environment.get(variable, "").strip()
        if value:
            return variable, value
    return None


def _is_true(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").strip().lower() == "true"
