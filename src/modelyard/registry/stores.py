"""Everything that the registry keeps in one home, for those who work on it.

One lock keeps what is being stored from being cleaned up: whoever adds bytes, or reads those of a
version, holds it together with others (`in_use`); the one who removes holds it alone (`alone`).
"""

import contextlib
import fcntl
import getpass
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import Conflict
from modelyard.core.home import Home
from modelyard.registry.aliases import AliasJournal
from modelyard.registry.blobs import BlobStore, LocalBlobStore
from modelyard.registry.lookup import Lookup
from modelyard.registry.manifest import ManifestStore
from modelyard.registry.pins import Pins
from modelyard.registry.quarantine import Quarantine
from modelyard.registry.reading import storage_error
from modelyard.registry.staging import make_folder
from modelyard.registry.trees import Trees
from modelyard.registry.versions import VersionStore

_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The parts of one home's registry."""

    home: Home
    blobs: BlobStore
    manifests: ManifestStore
    records: VersionStore
    aliases: AliasJournal
    quarantine: Quarantine
    trees: Trees
    pins: Pins
    lookup: Lookup

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold off `alone` meanwhile; any number of threads and processes at once.

        Waits while somebody cleans up, which takes seconds. Raises StorageError.
        """
        with self._lock_file() as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self, wait_s: float) -> Iterator[None]:
        """Nobody else adds or reads meanwhile; Conflict when somebody does for over `wait_s`."""
        deadline = time.monotonic() + wait_s
        with self._lock_file() as fd:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise _busy() from None
                    time.sleep(_POLL_S)
            yield

    @contextlib.contextmanager
    def _lock_file(self) -> Iterator[int]:
        path = self.home.registry_lock
        try:
            make_folder(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, "locking the registry", self.home.root) from error
        try:
            yield fd
        finally:
            os.close(fd)


def open_stores(home: Home) -> Stores:
    """The stores under `home`; nothing is touched yet."""
    manifests = ManifestStore(home.manifests)
    records = VersionStore(home.versions)
    aliases = AliasJournal(home.alias_journal)
    quarantine = Quarantine(home.quarantine)
    return Stores(
        home=home,
        blobs=LocalBlobStore(home.blobs),
        manifests=manifests,
        records=records,
        aliases=aliases,
        quarantine=quarantine,
        trees=Trees(home.trees),
        pins=Pins(home.pins),
        lookup=Lookup(records, manifests, aliases, quarantine),
    )


def actor() -> str:
    """`user:NAME` of who runs this process."""
    try:
        return f"user:{getpass.getuser()}"
    except (OSError, KeyError):  # no entry in the user database, as in some containers
        return f"user:{os.getuid()}"


def home_of(chosen: Home | Path | str | None) -> Home:
    """`chosen` as an absolute home; None is MODELYARD_HOME or the user's data folder."""
    if isinstance(chosen, Home):
        return Home(chosen.root.absolute())
    if chosen is None:
        chosen = os.environ.get("MODELYARD_HOME") or _default_root()
    return Home(Path(chosen).absolute())


def _default_root() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("modelyard", appauthor=False))


def _busy() -> Conflict:
    return Conflict(
        "a registration, check or launch is using the registry; nothing was removed",
        next_step="run the same command when it is done, or let it wait with --wait SECONDS",
    )
