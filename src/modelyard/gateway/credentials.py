"""What upstreams are spoken with: secrets by name, and the certificates that are trusted."""

import ssl
from collections.abc import Mapping
from pathlib import Path


class Credentials:
    """Names are in routes and configuration; the secrets, in here alone, are never shown."""

    def __init__(
        self, secrets: Mapping[str, str] | None = None, ca_file: Path | None = None
    ) -> None:
        """`ca_file`: PEM certificates beside which no others are trusted; None: the system's."""
        self._headers = {
            name: f"Bearer {secret}".encode() for name, secret in (secrets or {}).items()
        }
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None

    @property
    def names(self) -> frozenset[str]:
        """Those that there are."""
        return frozenset(self._headers)

    def header(self, name: str) -> bytes:
        """The value of the `authorization` header."""
        return self._headers[name]

    def tls(self) -> ssl.SSLContext:
        """One context for all upstreams: it holds every certificate that is trusted."""
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self._ca_file)
        return self._context

    def __repr__(self) -> str:
        return f"Credentials({sorted(self._headers)})"
