"""Signatures of versions: OpenSSF model-signing bundles, made with key pairs, offline.

    SIGNATURES/DIGEST/KEYID.json    one signature per key

Signed is the list of files with their SHA-256, taken from the manifest: no byte is hashed again,
and every file is in it, empty ones too (model-signing's own listing in shards leaves them out).
The bundle lies beside the manifest, so that signing changes no digest. It holds for the content,
whatever name it is registered under, and model-signing's own tools accept it for the files.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelyard.core.refs import DIGEST_PREFIX
from modelyard.core.trust import SignatureCheck
from modelyard.registry.keys import read_private_key_id
from modelyard.registry.reading import storage_error
from modelyard.registry.staging import Staging, publish_bytes
from modelyard.registry.versions import ModelVersion

if TYPE_CHECKING:
    from model_signing import hashing

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_CAP_BYTES = 256 * 1024 * 1024
"""A bundle has about 270 bytes per file."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What `sign` did."""

    key_id: str
    path: Path
    """Where the bundle lies."""


class Signatures:
    """The signatures of one home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = Staging(folder / ".staging")

    def key_ids(self, digest: str) -> list[str]:
        """Ids of the keys that signed; whether the signatures hold is for `check` to say."""
        return sorted(path.stem for path in self._of(digest).glob("*.json"))

    def sign(self, version: ModelVersion, key: Path, password: bytes | None = None) -> Signature:
        """Sign the manifest's files with a private key (PEM); replaces what that key signed before.

        Raises InvalidRequest (the key), StorageError.
        """
        key_id = read_private_key_id(key, password)
        from model_signing import signing

        target = self._of(version.digest) / f"{key_id}.json"
        config = signing.Config().set_hashing_config(_listed(version))
        # Its annotation says str; what it hands the password to takes bytes.
        config.use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]
        try:
            self._staging.sweep()
            with self._staging.file() as staged:
                config.sign(version.digest, staged.path)
                staged.publish(target)
        except OSError as error:
            raise storage_error(error, f"signing {version}", self._folder) from error
        return Signature(key_id=key_id, path=target)

    def bundles(self, digest: str) -> dict[str, bytes]:
        """All bundles by the id of their key, as they lie there."""
        return {path.stem: path.read_bytes() for path in sorted(self._of(digest).glob("*.json"))}

    def take(self, digest: str, bundles: Mapping[str, bytes | msgspec.Raw]) -> None:
        """Keep bundles that came with a version; those of keys that signed here stay.

        Nothing is believed of them: `check` holds each against the keys that are trusted.
        """
        for key_id, bundle in bundles.items():
            data = bytes(bundle)
            target = self._of(digest) / f"{key_id}.json"
            if _KEY_ID.fullmatch(key_id) and len(data) <= _CAP_BYTES and not target.exists():
                publish_bytes(self._staging, target, data)

    def check(self, version: ModelVersion, trusted: Mapping[str, Path]) -> list[SignatureCheck]:
        """Hold every signature against the trusted keys (id → public PEM file)."""
        checks = []
        for key_id in self.key_ids(version.digest):
            public = trusted.get(key_id)
            path = self._of(version.digest) / f"{key_id}.json"
            problem = "" if public is None else _problem(version, path, public)
            checks.append(
                SignatureCheck(key_id=key_id, trusted=public is not None, problem=problem)
            )
        return checks

    def _of(self, digest: str) -> Path:
        return self._folder / digest.removeprefix(DIGEST_PREFIX)


def _problem(version: ModelVersion, path: Path, public: Path) -> str:
    """Why the bundle is no signature of the version's files by this key; empty when it is one."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        problem = _unfit(path)
        if problem:
            return problem
        config = verifying.Config().set_hashing_config(_listed(version))
        config.use_elliptic_key_verifier(public_key=public).verify(version.digest, path)
    except InvalidSignature:
        return "its signature is not that key's"
    except Exception as error:  # noqa: BLE001 - a damaged bundle makes its parsers raise anything
        return (
            f"it can't be verified ({' '.join(str(error).split())[:160] or type(error).__name__})"
        )
    return ""


def _unfit(path: Path) -> str:
    """What model-signing would do more than verify: read what is too large, or print a warning."""
    if path.stat().st_size > _CAP_BYTES:
        return f"its bundle is larger than {_CAP_BYTES} bytes"
    bundle = json.loads(path.read_bytes())
    if not bundle["verificationMaterial"]["publicKey"].get("hint"):
        return "it does not name its key"
    return ""


def _listed(version: ModelVersion) -> "hashing.Config":
    """A hashing configuration that hashes nothing: it hands over what the manifest lists."""
    from model_signing import hashing
    from model_signing import manifest as listings
    from model_signing._hashing.hashing import Digest  # no public name leads to it

    kind = listings.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    )
    listing = listings.Manifest(
        version.digest.removeprefix(DIGEST_PREFIX),
        [
            kind.new_item(file.path, Digest("sha256", bytes.fromhex(file.sha256)))
            for file in version.manifest.files
        ],
        kind,
    )

    class Listed(hashing.Config):
        def hash(self, model_path: object, *, files_to_hash: object = None) -> listings.Manifest:
            return listing

    return Listed()  # type: ignore[no-untyped-call] # it has its base's constructor
