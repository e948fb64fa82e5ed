"""What is told to others about requests, and where it goes: settings that both forms of the gateway
have, and that the supervisor hands to its process."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from modelyard.core.errors import InvalidConfig

DEFAULT_SAMPLE = 0.01
TRACES_PATH = "/v1/traces"
_URL = re.compile(
    r"https?://(?:\[[0-9a-fA-F:.]+\]|[^\s/:?#@\[\]]+)(?::(\d{1,5}))?(/[^\s?#]*)?", re.IGNORECASE
)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset({"host", "content-length", "content-type", "connection", "transfer-encoding"})


class TraceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans go. What is None here is taken from OpenTelemetry's variables, where those are
    set."""

    endpoint: str | None = None
    """URL of a collector's OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`."""
    sample: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of the requests that get a span, where the caller has not decided."""
    headers_env: dict[str, str] = {}
    """Headers of the export, and the environment variables that hold their values."""


class RequestLogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The log of finished requests: a line of JSON each."""

    file: str | None = None
    """Below the gateway's folder; None: none is kept."""
    max_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    """Then a new one is begun."""
    keep: Annotated[int, Meta(ge=0)] = 4
    """Older ones that stay."""
    content: bool = False
    """Prompts and answers too (promise O7): here, and nowhere else."""


class TelemetryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is told to tell."""

    traces: TraceOptions = TraceOptions()
    request_log: RequestLogOptions = RequestLogOptions()


def checked_endpoint(url: str, where: str) -> str:
    """The URL that spans are posted to; raises InvalidConfig. Without a path, the usual one."""
    found = _URL.fullmatch(url)
    if found is None or int(found[1] or 1) not in range(1, 1 << 16):
        # It is not shown: a URL that can't be read may hold a password.
        raise InvalidConfig(
            f"{where}: not the URL of a collector",
            next_step="write http(s)://HOST:PORT/v1/traces (OTLP over HTTP, usually port 4318), "
            "without user or query; a secret goes into headers_env",
        )
    return url if (found[2] or "/") != "/" else url.rstrip("/") + TRACES_PATH


def check_headers(headers_env: dict[str, str], where: str) -> None:
    """Raise InvalidConfig unless these are names of headers and of variables."""
    for name, variable in headers_env.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            raise InvalidConfig(
                f"{where}: {name!r} can't be set as a header",
                next_step="name a header such as authorization",
            )
        if not _VARIABLE.fullmatch(variable):
            raise InvalidConfig(
                f"{where}.{name}: not the name of an environment variable",
                next_step="name the variable that holds the value, never the value itself",
            )
