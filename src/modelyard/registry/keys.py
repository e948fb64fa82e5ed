"""Key pairs for signing: PEM files of elliptic-curve keys (P-256, P-384, P-521).

A key's id is the SHA-256 of its public half in PEM, which is how model-signing names it in a
signature. Private keys are read, used and forgotten; no message holds anything of one.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry.reading import storage_error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_CURVES = {"secp256r1", "secp384r1", "secp521r1"}
_CAP_BYTES = 64 * 1024
_MADE_BY = "make a pair with: modelyard models keygen KEY.pem"


class KeyPair(msgspec.Struct, frozen=True):
    """Two files that `make_key_pair` wrote."""

    key_id: str
    private: Path
    public: Path


def make_key_pair(private: Path) -> KeyPair:
    """Write a new P-256 key to `private` (mode 0600) and its public half beside it.

    `release.pem` → `release.pub.pem`. Raises Conflict when either is there, StorageError.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = private.with_name(f"{private.stem}.pub.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for path in (private, public):
        if os.path.lexists(path):
            raise Conflict(
                f"{path} is there already", next_step="choose another name; keys are not replaced"
            )
    try:
        _write_new(private, secret, 0o600)
        _write_new(public, _pem(key.public_key()), 0o644)
    except OSError as error:
        raise storage_error(error, "writing the key pair", private.parent) from error
    return KeyPair(_key_id(key.public_key()), private, public)


def read_private_key_id(path: Path, password: bytes | None) -> str:
    """Check that a private key can sign, and return its id.

    Raises InvalidRequest: not there, readable by other users, encrypted without the right
    password, or no elliptic-curve key.
    """
    from cryptography.hazmat.primitives import serialization

    data = _read(path, "private key")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InvalidRequest(
            f"the private key {path} can be read by other users",
            next_step=f"close it first: chmod 600 {path}",
        )
    try:
        key = serialization.load_pem_private_key(data, password)
    except TypeError as error:  # what cryptography raises for a password too few or too many
        raise InvalidRequest(
            f"the private key {path} is {'not encrypted' if password else 'encrypted'}",
            next_step="give no password for it"
            if password
            else "put its password into MODELYARD_KEY_PASSWORD",
        ) from error
    except ValueError as error:
        wrong = "the password is wrong, or it" if password else "it"
        raise InvalidRequest(
            f"{path} can't be read as a private key: {wrong} is no private key in PEM",
            next_step=_MADE_BY,
        ) from error
    return _key_id(_elliptic(key.public_key(), path))


def read_public_keys(paths: Iterable[Path]) -> dict[str, Path]:
    """Key id → file; raises InvalidRequest naming the file that is no public key."""
    from cryptography.hazmat.primitives import serialization

    keys: dict[str, Path] = {}
    for path in paths:
        try:
            key = serialization.load_pem_public_key(_read(path, "public key"))
        except ValueError as error:
            raise InvalidRequest(
                f"{path} can't be read as a public key: it is no public key in PEM",
                next_step="give the .pub.pem file of the pair; "
                "openssl pkey -in PRIVATE.pem -pubout makes it",
            ) from error
        keys[_key_id(_elliptic(key, path))] = path
    return keys


def _elliptic(key: object, path: Path) -> "EllipticCurvePublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise InvalidRequest(
            f"{path} is no elliptic-curve key of P-256, P-384 or P-521", next_step=_MADE_BY
        )
    return key


def _key_id(key: "EllipticCurvePublicKey") -> str:
    return hashlib.sha256(_pem(key)).hexdigest()


def _pem(key: "EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_CAP_BYTES)
    except OSError as error:
        raise InvalidRequest(
            f"can't read the {what} {path}: {error.strerror or error}",
            next_step="check that it exists and that this user may read it",
        ) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask
        file.write(data)
        file.flush()
        os.fsync(fd)
