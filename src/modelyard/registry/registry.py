"""The registry: what a program and the command line use. Each capability is a file of its own."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from modelyard.core.home import Home
from modelyard.core.refs import Ref
from modelyard.core.trust import TrustDecision, decide_trust
from modelyard.registry.aliasing import Aliases, History
from modelyard.registry.blobs import BlobStore
from modelyard.registry.catalogue import Catalogue
from modelyard.registry.diff import Comparer, VersionDiff
from modelyard.registry.exporting import Carrier
from modelyard.registry.fetcher import Fetcher
from modelyard.registry.gc import Collection, Collector
from modelyard.registry.holding import Holder
from modelyard.registry.hub import SCHEME, Hub
from modelyard.registry.importing import Importer
from modelyard.registry.integrity import Integrity
from modelyard.registry.keys import read_public_keys
from modelyard.registry.lineage import LineageNode, Lineages
from modelyard.registry.lookup import Page
from modelyard.registry.mirror import Mirror, Synced
from modelyard.registry.origin import Origin
from modelyard.registry.pins import Pin
from modelyard.registry.progress import Progress
from modelyard.registry.registration import Registrar, Registration
from modelyard.registry.removal import Removed, Remover
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
        tracking_uri = tracking_uri or f"sqlite:///{self.home.catalogue}"
        mirror = self._mirror = Mirror(self._stores, Catalogue(tracking_uri))
        self._registrar = Registrar(self._stores, mirror)
        self._importer = Importer(self._stores, self._registrar, tracking_uri)
        self._integrity = Integrity(self._stores)
        self._aliases = Aliases(self._stores, mirror)
        self._signatures = Signatures(self.home.signatures)
        self._carrier = Carrier(self._stores, self._integrity, self._registrar, self._signatures)
        self._comparer = Comparer(self._stores)
        self._lineages = Lineages(self._stores.records, self._stores.lookup)
        self._remover = Remover(self._stores, mirror)
        self._collector = Collector(self._stores)
        self._holder = Holder(self._stores)
        self._fetcher = Fetcher(Hub(self.home.downloads), self._registrar, self.home.blobs)

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
        origin: Origin | None = None,
        link: bool = False,
        tokenizer: Path | None = None,
        progress: Progress | None = None,
    ) -> Registration:
        """Copy a folder (or one GGUF file) into the registry as the next version of `name`.

        `path` may be an address on a hub, `hf://org/model@revision`; an interrupted fetch is
        continued by the next call. The same content again, under the same name, is no new version;
        it repairs blobs that were found damaged. `origin`: its parent, recipe, metrics and
        licence. `link`: take read-only files of the same file system in without a copy.
        `tokenizer`: a folder or file with a tokenizer that lies elsewhere.
        Raises InvalidRequest (what is wrong with the files), Conflict (they changed meanwhile),
        StorageError (disk full, not permitted), and what `Hub.fetched` does; nothing is registered
        then.
        """
        if isinstance(path, str) and path.startswith(SCHEME):
            return self._fetcher.register(name, path, progress, origin, tokenizer)
        return self._registrar.register(
            name, path, progress, link=link, origin=origin, tokenizer=tokenizer
        )

    def page(
        self, name: str | None = None, *, limit: int = 100, after: str | Ref | None = None
    ) -> Page:
        """At most `limit` versions, by name and newest first, after the one called `after`.

        Reads no more records than it returns. Raises NotFound (no such name), InvalidRequest.
        """
        return self._stores.lookup.page(name, limit, after)

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

    def pull(self, ref: str | Ref, folder: Path | str, *, progress: Progress | None = None) -> Path:
        """Copy a version's files to `folder`, hashed on the way; return it.

        `folder` must not be there, or be empty; it appears when it is whole. A call that was
        interrupted is continued by the next. Raises Conflict, IntegrityError, StorageError.
        """
        return self._carrier.pull(ref, Path(folder), progress)

    def export(
        self, ref: str | Ref, archive: Path | str, *, progress: Progress | None = None
    ) -> ModelVersion:
        """Write a version with its manifest, facts and lineage into one tar file.

        Raises Conflict (the file is there), IntegrityError, StorageError.
        """
        return self._carrier.export(ref, Path(archive), progress)

    def import_archive(
        self, archive: Path | str, *, name: str | None = None, progress: Progress | None = None
    ) -> Registration:
        """Register what `export` wrote, under its name there or `name`, with its lineage.

        Raises InvalidRequest, IntegrityError naming the damaged file, StorageError.
        """
        return self._carrier.import_archive(Path(archive), name, progress)

    def import_mlflow(
        self,
        address: str,
        *,
        name: str | None = None,
        tracking_uri: str | None = None,
        progress: Progress | None = None,
    ) -> Registration:
        """Register a model that MLflow holds, with the metrics of its run.

        `address`: `runs:/RUN_ID/PATH`, `models:/NAME/3` or `models:/NAME@ALIAS`, in the MLflow at
        `tracking_uri` (None: the catalogue). Repeated after an interruption it goes on.
        Raises InvalidRequest, NotFound, Unavailable, StorageError.
        """
        return self._importer.run(address, name, tracking_uri, progress)

    def diff(
        self, before: str | Ref, after: str | Ref, *, progress: Progress | None = None
    ) -> VersionDiff:
        """Compare files, facts, metrics and, byte for byte, the tensors of two versions.

        Raises NotFound, InvalidRequest or StorageError when a weight file can't be read.
        """
        return self._comparer.compare(before, after, progress)

    def lineage(self, ref: str | Ref) -> tuple[LineageNode, ...]:
        """The family of a version, from the oldest ancestor known: each before its children."""
        return self._lineages.of(ref)

    def children(self, ref: str | Ref) -> tuple[str, ...]:
        """The versions that were made of this one, as `name:3`."""
        return self._lineages.children(self.get(ref).digest)

    def remove(self, ref: str | Ref, *, reason: str = "", wait_s: float = 0.0) -> Removed:
        """Take a version out for good; its number is never given again, its bytes go with `gc`.

        Raises Conflict naming the aliases, deployments and children that need it, or when the
        registry is in use for longer than `wait_s` seconds.
        """
        return self._remover.remove(ref, reason, wait_s)

    def gc(self, *, dry_run: bool = False, wait_s: float = 0.0) -> Collection:
        """Remove the bytes that no version, alias, deployment, child or registration needs.

        Raises Conflict when the registry is in use for longer than `wait_s` seconds,
        IntegrityError when something that says what is needed can't be read; nothing is removed
        then. StorageError.
        """
        return self._collector.collect(dry_run, wait_s)

    def hold(self, holder: str, pins: Iterable[Pin]) -> None:
        """Keep these versions, and no others, for `holder`; durable on return.

        Neither `remove` nor `gc` touches what is held. Call it before the versions are used.
        Raises StorageError.
        """
        self._holder.hold(holder, pins)

    def in_use(self) -> AbstractContextManager[None]:
        """Hold `gc` and `remove` off meanwhile, for who stores blobs and then writes down why.

        Raises StorageError.
        """
        return self._stores.in_use()

    def aliases(self, name: str) -> dict[str, int]:
        """Alias → version number of one name."""
        return self._stores.aliases.current(name)

    def set_alias(self, ref: str | Ref, alias: str, *, reason: str = "") -> tuple[str, ...]:
        """Let `alias` of the ref's name mean this version from now on; return warnings.

        Raises NotFound, InvalidRequest, StorageError.
        """
        return self._aliases.set(ref, alias, reason)

    def remove_alias(self, name: str, alias: str, *, reason: str = "") -> tuple[str, ...]:
        """Let `alias` of `name` mean nothing from now on; return warnings.

        Raises NotFound, InvalidRequest, StorageError.
        """
        return self._aliases.remove(name, alias, reason)

    def history(self, name: str, *, at: float | None = None) -> History:
        """The moves of a name's aliases until the time `at` (Unix seconds; None: now), and what
        they meant then. Moves made in MLflow are taken over first.

        Raises NotFound, InvalidRequest, IntegrityError (a damaged journal).
        """
        return self._aliases.history(name, at)

    def sync_catalogue(self, *, thorough: bool = False) -> Synced:
        """Bring the MLflow catalogue into step, and take over alias moves that were made there.

        `thorough`: look for tampering with versions too. Raises Unavailable, StorageError.
        """
        return self._mirror.sync(thorough=thorough)

    def rebuild_catalogue(self, *, progress: Progress | None = None) -> Synced:
        """Make the MLflow catalogue hold what is registered, from manifests, records and journal.

        `progress` counts names. Raises Unavailable, StorageError, IntegrityError.
        """
        return self._mirror.sync(thorough=True, repair=True, progress=progress)

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
