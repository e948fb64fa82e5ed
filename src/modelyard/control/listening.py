"""Takes a port before anything else is started, so that a taken one is told in one line."""

import ipaddress
import socket

from modelyard.core.errors import Conflict, Forbidden

_BACKLOG = 512


def check_loopback(host: str, option: str) -> None:
    """Raise Forbidden for an address that others can reach: there is no API key yet."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Forbidden(
            f"{option} {host} is not a loopback address, and no API key exists",
            next_step="use 127.0.0.1, and a reverse proxy or an SSH tunnel to reach it from afar",
        )


def listen(host: str, port: int, option: str) -> socket.socket:
    """A listening socket; Conflict names the port and the option that chooses another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio switches Nagle's algorithm off only where it is, and with it on
    # each answer of two writes waits for the client's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"can't listen on {host}:{port}: {error.strerror}",
            next_step=f"end what listens there, or choose another port with {option}",
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """`http://host:port` of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
