"""All of the controller's state, one class per entity over one database. Synchronous."""

from pathlib import Path

from modelyard.core.errors import StorageError
from modelyard.core.home import Home
from modelyard.state.alerts import Alerts
from modelyard.state.capacity import CapacityTable
from modelyard.state.counts import Counts
from modelyard.state.database import Database
from modelyard.state.deployments import Deployments
from modelyard.state.events import Journal
from modelyard.state.keylog import KeyLog
from modelyard.state.machines import Machines
from modelyard.state.meta import Meta
from modelyard.state.ownership import Ownership
from modelyard.state.records import Records
from modelyard.state.replicas import Replicas
from modelyard.state.rollouts import Rollouts
from modelyard.state.scores import Scores
from modelyard.state.snapshots import Snapshots
from modelyard.state.spending import Spending
from modelyard.state.trends import Trends
from modelyard.state.usage import UsageTable


class Store:
    """The entities, and the database that they share."""

    def __init__(self, url: str, *, sole: bool = False) -> None:
        """Open the database at `url` and bring its schema up to date; StorageError if it can't.

        `sole`: for the one controller that decides in it; Conflict when another one does.
        """
        self._database = Database(url)
        self._ownership: Ownership | None = None
        try:
            if sole:
                self._ownership = Ownership(self._database)
            self._database.migrate(owned=sole)
            if self._ownership is not None:
                self._ownership.mark()
        except BaseException:
            self.close()
            raise
        self.meta = Meta(self._database)
        self.deployments = Deployments(self._database)
        self.rollouts = Rollouts(self._database)
        self.replicas = Replicas(self._database)
        self.events = Journal(self._database)
        self.snapshots = Snapshots(self._database)
        self.keys = KeyLog(self._database)
        self.records = Records(self._database)
        self.usage = UsageTable(self._database)
        self.trends = Trends(self._database)
        self.scores = Scores(self._database)
        self.machines = Machines(self._database)
        self.counts = Counts(self._database)
        self.capacity = CapacityTable(self._database)
        self.spending = Spending(self._database)
        self.alerts = Alerts(self._database)

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""
        return self._database.place

    def confirm(self) -> None:
        """For the one controller: see that it still is; Conflict when another has taken over.

        Raises StorageError while the database is away.
        """
        if self._ownership is not None:
            self._ownership.confirm()

    def close(self) -> None:
        """Close the database, and let another controller have it."""
        if self._ownership is not None:
            self._ownership.release()
        self._database.close()


def open_store(home: Home, url: str | None, *, sole: bool = False) -> Store:
    """Open the state of `home`: at `url`, or in its own SQLite file."""
    return Store(url, sole=sole) if url is not None else open_sqlite(home.state)


def open_sqlite(path: Path) -> Store:
    """Open the store in the file at `path`, which is made where it is missing."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"can't make the folder {path.parent}: {error.strerror}",
            next_step="choose a --home that you may write to",
        ) from error
    return Store(f"sqlite:///{path}")
