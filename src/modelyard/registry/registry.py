"""The registry: what a program and the command line use. Each capability is a file of its own."""

from collections.abc import Iterable
from pathlib import Path

from modelyard.core.home import Home
from modelyard.core.refs import Ref
from modelyard.core.trust import TrustDecision, decide_trust
from modelyard.registry.aliasing import Aliases
from modelyard.registry.blobs import BlobStore
from modelyard.registry.catalogue import Catalogue
from modelyard.registry.integrity import Integrity
from modelyard.registry.keys import read_public_keys
from modelyard.registry.mirror import Mirror
from modelyard.registry.progress import Progress
from modelyard.registry.registration import Registrar, Registration
from modelyard.registry.signing import Signature, Signatures
from modelyard.registry.stores import home_of, open_stores
from modelyard.registry.versions import ModelVersion


class Registry:
    """Verified, immutable, deduplicated model versions under one home.

    Safe to use from several threads and processes at once.
    """

    def __init__(
        self, home: Home | Path | str | None = None, *, tracking_uri: str | None = None
    ) -> None:
        """`home`: None is the user's data folder, or MODELYARD_HOME. Nothing is touched yet.

        `tracking_uri`: of the MLflow catalogue; None is SQLite in the home.
        """
        self.home = home_of(home)
        self._stores = open_stores(self.home)
        self.blobs: BlobStore = self._stores.blobs
        catalogue = Catalogue(tracking_uri or f"sqlite:///{self.home.catalogue}")
        mirror = Mirror(self._stores, catalogue)
        self._registrar = Registrar(self._stores, mirror)
        self._integrity = Integrity(self._stores)
        self._aliases = Aliases(self._stores, mirror)
        self._signatures = Signatures(self.home.signatures)

    def get(self, ref: str | Ref) -> ModelVersion:
        """Look a version up; `name` alone is the newest. No network, no MLflow.

        Raises NotFound naming those that exist, InvalidRequest, IntegrityError.
        """
        return self._stores.lookup.get(ref)

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, or those of one name, by name and number."""
        return self._stores.lookup.versions(name)

    def register(
        self,
        name: str,
        path: Path | str,
        *,
        link: bool = False,
        progress: Progress | None = None,
    ) -> Registration:
        """Copy a folder (or one GGUF file) into the registry as the next version of `name`.

        The same content again, under the same name, is no new version; it repairs blobs that were
        found damaged. `link`: take read-only files of the same file system in without a copy.
        Raises InvalidRequest (what is wrong with the files), Conflict (they changed meanwhile),
        StorageError (disk full, not permitted); nothing is registered then.
        """
        return self._registrar.register(name, path, progress, link=link)

    def verify(self, ref: str | Ref, *, progress: Progress | None = None) -> None:
        """Hash every stored byte of a version.

        Raises IntegrityError naming the first damaged file; the version, and every other one with
        the same bytes, is quarantined then.
        """
        self._integrity.verify(ref, progress)

    def load(self, ref: str | Ref, *, progress: Progress | None = None) -> Path:
        """Return a read-only folder with the version's files, every byte hashed by this call.

        Raises IntegrityError as `verify` does, and for a version that is quarantined; StorageError.
        """
        return self._integrity.load(ref, progress)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias → version number of one name."""
        return self._stores.aliases.current(name)

    def set_alias(self, ref: str | Ref, alias: str, *, reason: str = "") -> tuple[str, ...]:
        """Let `alias` of the ref's name mean this version from now on; return warnings.

        Raises NotFound, InvalidRequest, StorageError.
        """
        return self._aliases.set(ref, alias, reason)

    def sign(self, ref: str | Ref, key: Path, *, password: bytes | None = None) -> Signature:
        """Sign a version's files with a private key (PEM, elliptic curve); reads no weights.

        Raises NotFound, InvalidRequest (the key can't sign), IntegrityError, StorageError.
        """
        return self._signatures.sign(self.get(ref), key, password)

    def trust(
        self, ref: str | Ref, public_keys: Iterable[Path], *, require_signed: bool = False
    ) -> TrustDecision:
        """Say whether a version may be served, by its signatures with one of `public_keys` (PEM).

        Reads no weights: `verify` and `load` hash them. Raises NotFound, InvalidRequest (a key
        that can't be read), IntegrityError.
        """
        version = self.get(ref)
        checks = self._signatures.check(version, read_public_keys(public_keys))
        return decide_trust(str(version), checks, require_signed=require_signed)
