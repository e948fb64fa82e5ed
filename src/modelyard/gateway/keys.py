"""The keys in force, kept on disk for the next start; whom a request comes from."""

import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import Forbidden, InvalidConfig, Unauthenticated
from modelyard.core.keyring import Gap, Keyring
from modelyard.core.keys import KeyLogEntry, KeyPut
from modelyard.core.pinning import PINNED_BY, SLOT_HEADER
from modelyard.gateway.request import Request

log = logging.getLogger(__name__)
_BEARER = b"bearer "


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down: hashes of secrets, never secrets."""

    epoch: str
    seq: int
    entries: tuple[KeyLogEntry, ...]


class KeyTable:
    """Applies the log of changes; knows a key by its secret."""

    def __init__(self, file: Path | None, token: Callable[[], str]) -> None:
        """`file`: where the keys are kept; None: nowhere. `token`: what the controller shows."""
        self._file = file
        self._token = token
        self.ring = Keyring()
        self.epoch = ""

    @property
    def seq(self) -> int:
        """The last entry applied."""
        return self.ring.seq

    def load(self) -> None:
        """Take over what was kept. Keys that can't be read let nobody in (promise S8)."""
        if self._file is None:
            return
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Kept)
            self.ring.apply(kept.entries, reset=True)
        except FileNotFoundError:
            return
        except (OSError, ValueError, Gap, msgspec.MsgspecError) as error:
            raise InvalidConfig(
                f"the kept keys {self._file} can't be used: {error}",
                next_step="start the controller and remove the file: the keys come from it again",
            ) from None
        self.ring.seq = kept.seq
        self.epoch = kept.epoch

    def apply(self, epoch: str, entries: Sequence[KeyLogEntry], *, reset: bool) -> None:
        """Put changes into force, all or none.

        Raises Gap when some are missing, InvalidConfig when a limit can't be enforced; then
        everything stays as it was.
        """
        if not entries and not reset:
            return
        try:
            self.ring.apply(entries, reset=reset)
        except ValueError as error:
            raise InvalidConfig(str(error), next_step="change the limit") from None
        self.epoch = epoch

    def store(self) -> None:
        """Write down what is in force, whole or not at all; what fails is logged."""
        if self._file is None:
            return
        kept = Kept(epoch=self.epoch, seq=self.ring.seq, entries=self.ring.entries())
        partial = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as out:
                out.write(msgspec.json.encode(kept))
                out.flush()
                os.fsync(out.fileno())
            partial.rename(self._file)
        except OSError as error:
            log.error("the keys can't be kept in %s: %s", self._file, error.strerror)

    def who(self, request: Request) -> KeyPut | None:
        """The key that a request shows; None where none is needed. Raises Unauthenticated."""
        if SLOT_HEADER.encode() in request.headers:
            return self._controller(request)
        if not self.ring.required:
            return None
        secret = _shown(request)
        if not secret:
            raise Unauthenticated(
                "no API key was sent", next_step="send it as 'Authorization: Bearer KEY'"
            )
        key = self.ring.find(secret, time.time())
        if key is None:
            raise Unauthenticated(
                "the API key is not known, has expired or was revoked",
                next_step="make another with: modelyard keys create",
            )
        return key

    def _controller(self, request: Request) -> KeyPut:
        """Whoever names a slot must be the controller: others would get around the shares."""
        token = self._token().encode()
        if not token or not hmac.compare_digest(_shown(request), token):
            raise Forbidden(
                f"the header {SLOT_HEADER} is the controller's", next_step="leave it out"
            )
        return KeyPut(seq=0, at=0.0, key_id=PINNED_BY, secret_sha256="", tenant=PINNED_BY)


def _shown(request: Request) -> bytes:
    """The secret in OpenAI's header, or in Anthropic's."""
    value = request.headers.get(b"authorization", b"")
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    return request.headers.get(b"x-api-key", b"").strip()
