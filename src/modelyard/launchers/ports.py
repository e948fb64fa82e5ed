"""Free ports of this machine's loopback address."""

import socket
from collections import deque

_HOST = "127.0.0.1"


class FreePorts:
    """Hands out ports that nobody listens on, none twice in a row."""

    def __init__(self) -> None:
        self._given: deque[int] = deque(maxlen=64)

    def take(self) -> int:
        """A port that was free a moment ago."""
        while True:
            with socket.socket() as probe:
                probe.bind((_HOST, 0))
                port = int(probe.getsockname()[1])
            # One just given away is not listened on yet.
            if port not in self._given:
                self._given.append(port)
                return port
