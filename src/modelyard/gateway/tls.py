"""What the gateway shows to its clients, taken up anew when its files change."""

import ssl
from pathlib import Path

from modelyard.core.errors import InvalidConfig


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS 1.2 and newer with this certificate; raises InvalidConfig."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load(context, cert_file, key_file)
    return context


def load(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    """Let new connections see this certificate; the others go on with the one they have.

    Raises InvalidConfig, and changes nothing, when the files don't belong together.
    """
    for file in (cert_file, key_file):
        if not file.is_file():
            raise InvalidConfig(
                f"tls: {file} is not there", next_step="give PEM files of certificate and key"
            )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, _no_password)
        context.load_cert_chain(cert_file, key_file, _no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidConfig(
            f"tls: {cert_file} and {key_file} can't be used: {error}",
            next_step="give a certificate and the unencrypted key that belongs to it, as PEM",
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")
