"""What the management API says and is told.

    GET    /api/status                      → Status
    GET    /api/deployments                 → {"deployments": [DeploymentView]}
    POST   /api/deployments                 DeployRequest → 202 DeploymentView
    GET    /api/deployments/{name}          → DeploymentView
    DELETE /api/deployments/{name}          → 202 DeploymentView
    PUT    /api/default-model               {"name": …} → 204
    GET    /api/models?name=&limit=N&after=NAME:3  → ModelPage
    GET    /api/models/{ref}                → ModelDetails
    GET    /api/models/{ref}/lineage        → {"family": [FamilyMember]}
    GET    /api/models/{name}/history?at=T  → AliasHistory
    PUT    /api/models/{name}/aliases/{alias}      AliasWish → AliasView
    GET    /api/events?after=SEQ&limit=N    → {"events": [EventView]}
    GET    /health                          → 200 {"status": "ok"}, no token needed

All but `/health` need `Authorization: Bearer <admin token>`. An error has OpenAI's form with two
more fields: {"error": {"message", "type", "code", "param", "next_step"}}.
Times are Unix seconds.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.core.deployments import DeploymentState
from modelyard.core.facts import Format
from modelyard.core.replicas import ReplicaState

Slot = Literal["blue", "green"]


class _Strict(BaseModel):
    """An unknown field is an error: a misspelt setting must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DeployRequest(_Strict):
    """Start a version under a public name, or replace the one that runs there."""

    ref: str
    """`name`, `name:3`, `name@alias` or `name@sha256:…`."""
    as_name: str | None = None
    """Public model name; None: the registered name."""
    engine: str | None = None
    """None: chosen from format, hardware and what is installed."""
    launcher: Literal["process"] = "process"
    replicas: int = Field(default=1, ge=1, le=1024)
    parallel: int = Field(default=4, ge=1, le=4096)
    context_length: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    extra_args: tuple[str, ...] = ()
    default: bool = False
    """Serve the simple API's `default` from now on."""


class ReplicaView(_Strict):
    """One worker."""

    id: str
    deployment: str
    version: int
    digest: str
    slot: Slot
    state: ReplicaState
    engine: str
    launcher: str
    pid: int | None
    url: str
    created_at: float
    ready_at: float | None
    error: str
    in_flight: int


class DeploymentView(_Strict):
    """One public model name."""

    name: str
    model: str
    version: int
    digest: str
    engine: str
    state: DeploymentState
    live: Slot | None
    incoming: Slot | None
    incoming_version: int | None
    replicas_wanted: int
    replicas_ready: int
    generation: int
    default: bool
    message: str
    created_at: float


class GatewayView(_Strict):
    """One gateway process, from its last report; `url` and `pid` of the first are the status's."""

    id: str
    pid: int
    url: str
    routes_version: int
    acknowledged: bool
    """It has applied the newest snapshot."""
    last_report_at: float
    records_waiting: int
    records_dropped: int


class GatewaySummary(_Strict):
    """The data plane."""

    url: str
    pid: int | None
    state: Literal["running", "away"]
    processes: tuple[GatewayView, ...]


class ControllerView(_Strict):
    """The controller itself."""

    url: str
    pid: int
    version: str
    started_at: float
    home: str
    routes_version: int


class Status(_Strict):
    """Everything that runs, at one moment."""

    gateway: GatewaySummary
    controller: ControllerView
    deployments: tuple[DeploymentView, ...]
    replicas: tuple[ReplicaView, ...]


class DeploymentList(_Strict):
    deployments: tuple[DeploymentView, ...]


class DefaultModel(_Strict):
    name: str


class FactsView(_Strict):
    """What was read from a version's own files."""

    format: Format
    architecture: str
    parameters: int
    dtype: str
    size_bytes: int
    context_length: int | None
    vocabulary_size: int | None
    chat_template: bool
    licence: str | None


class ModelView(_Strict):
    """One registered version; the first keys are those of `modelyard models list --json`."""

    name: str
    version: int
    digest: str
    aliases: tuple[str, ...]
    parent: str | None
    """Digest."""
    facts: FactsView
    metrics: dict[str, float]
    size_bytes: int
    created_at: float
    quarantined: str
    """Why it is out of service; empty while it is not."""


class ModelPage(_Strict):
    """Versions by name, the newest of each name first."""

    models: tuple[ModelView, ...]
    total: int
    """How many there are on all pages."""
    next: str | None
    """What to ask for as `after`; null at the end."""


class FileView(_Strict):
    path: str
    sha256: str
    size_bytes: int


class RecipeView(_Strict):
    """How a version was made from its parent."""

    kind: str
    tool: str
    options: dict[str, str | int | float | bool | None]
    seed: int | None
    data_digest: str | None


class ModelDetails(_Strict):
    """Everything of one version."""

    model: ModelView
    recipe: RecipeView | None
    children: tuple[str, ...]
    """Versions made of it, as `name:3`."""
    files: tuple[FileView, ...]


class FamilyMember(_Strict):
    """One content in a lineage; each stands before what was made of it."""

    digest: str
    depth: int
    """Generations below the oldest ancestor known."""
    versions: tuple[str, ...]
    recipe: RecipeView | None
    asked: bool


class Family(_Strict):
    family: tuple[FamilyMember, ...]


class AliasMoveView(_Strict):
    """One line of the alias journal."""

    at: float
    alias: str
    version: int | None
    """Null: the alias was removed."""
    actor: str
    reason: str
    origin: Literal["modelyard", "external"]


class AliasHistory(_Strict):
    """The moves of a name's aliases up to a time, and what they meant then."""

    name: str
    aliases: dict[str, int]
    moves: tuple[AliasMoveView, ...]
    warnings: tuple[str, ...]


class AliasWish(_Strict):
    """Let an alias mean this version of the name."""

    version: int = Field(ge=1)
    reason: str = ""


class AliasView(_Strict):
    """An alias after a move."""

    name: str
    alias: str
    version: int
    warnings: tuple[str, ...]


class EventView(_Strict):
    """One line of the journal."""

    seq: int
    at: float
    kind: str
    subject: str
    actor: str
    message: str
    details: dict[str, str | int | float | bool | None]


class EventList(_Strict):
    events: tuple[EventView, ...]
