"""Which replica has the beginning of a prompt in its cache: a bounded memory of what went where.

A prompt is cut into blocks; a block's key is the hash of everything up to its end, with the tenant
and the version's digest, so that equal keys mean equal beginnings of one tenant's prompts on one
version. The idea: SGLang's cache-aware router, without its tree. Nothing in here grows with time or
with the length of a request (promise G12): the least recently used keys make room.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import Protocol

BLOCK_BYTES = 1024
MAX_BLOCKS = 64
"""What lies behind these is not looked at."""
MAX_KEYS = 50_000
"""About 8 MB."""


class Buffer(Protocol):
    """Bytes, or what can be seen as such."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


def prefix_keys(tenant: str, digest: str, prompt: Sequence[Buffer]) -> list[bytes]:
    """Keys of the prompt's beginnings, the shortest first; none when it is shorter than a block.

    `prompt` is its parts in order, such as the messages.
    """
    running = hashlib.blake2b(f"{digest}\0{tenant}\0".encode(), digest_size=12)
    keys: list[bytes] = []
    room = BLOCK_BYTES
    for part in prompt:
        view = memoryview(part)
        at = 0
        while at < len(view):
            taken = view[at : at + room]
            running.update(taken)
            at += len(taken)
            room -= len(taken)
            if room == 0:
                keys.append(running.digest())
                if len(keys) == MAX_BLOCKS:
                    return keys
                room = BLOCK_BYTES
    return keys


class PrefixIndex:
    """Key of a beginning → the replica that got it last."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._replicas: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas)

    def find(self, keys: Sequence[bytes], among: Container[str]) -> tuple[str | None, int]:
        """The replica of `among` with the longest beginning, and its blocks; (None, 0) if none."""
        for count in range(len(keys), 0, -1):
            replica = self._replicas.get(keys[count - 1])
            if replica is not None and replica in among:
                return replica, count
        return None, 0

    def note(self, keys: Sequence[bytes], replica: str) -> None:
        """A prompt with these beginnings goes to `replica`."""
        # The longest first: the short beginnings, which others share, then stay longest.
        for key in reversed(keys):
            self._replicas[key] = replica
            self._replicas.move_to_end(key)
        while len(self._replicas) > self._max_keys:
            self._replicas.popitem(last=False)
