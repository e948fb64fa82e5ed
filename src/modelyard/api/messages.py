"""What the management API says and is told: one file, so that the whole of it can be seen.

    GET    /api/status                      → Status
    GET    /api/deployments                 → {"deployments": [DeploymentView]}
    POST   /api/deployments                 DeployRequest → 202 DeploymentView
    GET    /api/deployments/{name}          → DeploymentView
    DELETE /api/deployments/{name}          → 202 DeploymentView
    POST   /api/deployments/plan            DeployRequest → PlanView; nothing is started
    POST   /api/deployments/{name}/promote | pause | resume | abort | rollback
                                            → 202 DeploymentView
    GET    /api/deployments/{name}/logs?lines=N → {"logs": [LogView]}
    GET    /api/rollouts?deployment=NAME&limit=N → {"rollouts": [RolloutView]}, the newest first
    GET    /api/rollouts/{id}               → RolloutView
    PUT    /api/default-model               {"name": …} → 204
    GET    /api/models?name=&limit=N&after=NAME:3  → ModelPage
    GET    /api/models/{ref}                → ModelDetails
    GET    /api/models/{ref}/lineage        → {"family": [FamilyMember]}
    GET    /api/models/{name}/history?at=T  → AliasHistory
    PUT    /api/models/{name}/aliases/{alias}      AliasWish → AliasView
    GET    /api/keys                        → {"keys": [KeyView]}
    POST   /api/keys                        KeyWish → 201 KeyCreated, the only time that the secret
                                            is shown
    DELETE /api/keys/{id}                   → 204; new requests get 401 within a second
    POST   /api/keys/{id}/rotate            {"grace_s": …} → KeyCreated
    GET    /api/tenants                     → {"tenants": [TenantView]}
    PUT    /api/tenants/{tenant}            LimitsWish → 204
    DELETE /api/tenants/{tenant}            → 204, with all its keys
    PUT    /api/limits/{model}              LimitsWish → 204; of all callers together
    GET    /api/usage?days=N&tenant=T       → {"usage": [UsageRow]}
    GET    /api/requests/{id}               → Explained
    POST   /api/scores                      ScoresWish → ScoreReceipt (`api/messages_scores.py`)
    GET    /api/scores/due?judge=J&limit=N&seconds=S → DueList: what J has said nothing of
    GET    /api/events?after=SEQ&limit=N    → {"events": [EventView]}
    GET    /health                          → 200 {"status": "ok"}, no token needed

All but `/health` need `Authorization: Bearer <admin token>`. An error has OpenAI's form with two
more fields: {"error": {"message", "type", "code", "param", "next_step"}}.
Times are Unix seconds.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.messages_scores import ScoreView
from modelyard.core.deployments import DeploymentState, PullPolicy
from modelyard.core.facts import Format
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase

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
    launcher: Literal["process", "docker"] = "process"
    image: str | None = Field(default=None, min_length=1, max_length=500)
    """What its containers are made of: `name:tag` or `name@sha256:…`."""
    pull: PullPolicy = "missing"
    """Whether the image is fetched before a launch."""
    cpus: tuple[Annotated[int, Field(ge=0, le=65_535)], ...] | None = Field(
        default=None, min_length=1, max_length=4096
    )
    """Processor numbers that a replica may run on; None: any."""
    memory_bytes: int | None = Field(default=None, ge=16 * 1024**2)
    """Bound on a replica's memory; None: none."""
    replicas: int | None = Field(default=None, ge=1, le=1024)
    """None: as many as are live under the name; 1 where nothing is."""
    accelerators_per_replica: int = Field(default=0, ge=0, le=1024)
    parallel: int = Field(default=4, ge=1, le=4096)
    context_length: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    extra_args: tuple[str, ...] = ()
    default: bool = False
    """Serve the simple API's `default` from now on."""
    plan: dict[str, Any] | None = None
    """How it becomes live (docs/deployments.md); None: blue-green, with smoke tests."""


class RolloutBrief(_Strict):
    """Where a deployment's move is."""

    id: str
    version: str
    """`NAME:3`."""
    strategy: str
    phase: Phase
    step: int
    """From 0."""
    steps: int
    share: float
    """Of the requests, what the candidate gets while it is not live."""
    paused: bool
    reason: str
    """Why it goes, or went, back."""
    waits_for: str
    """For people; empty when it is over."""


class EntryView(_Strict):
    """One line of a rollout's history."""

    at: float
    phase: Phase
    step: int
    why: str


class SmokeView(_Strict):
    """How a smoke test ended."""

    test: str
    passed: bool
    told: str
    answer: str
    ttft_s: float | None


class RolloutView(_Strict):
    """One rollout, as it stands or ended."""

    id: str
    deployment: str
    version: str
    version_before: str
    """Empty: nothing was live."""
    phase: Phase
    step: int
    started_at: float
    entered_at: float
    paused: bool
    reason: str
    waits_for: str
    history: tuple[EntryView, ...]
    smoke: tuple[SmokeView, ...]
    finished: int
    cut: int
    """Requests that were in flight on replicas when these drained: those that came to their end,
    and those that the drain budget ended."""
    finding: dict[str, Any] | None
    """What the comparison showed last (`core/canary.py`)."""
    plan: dict[str, Any]


class RolloutList(_Strict):
    rollouts: tuple[RolloutView, ...]


class PlanView(_Strict):
    """What `deploy` would do."""

    deployment: str
    version: str
    digest: str
    version_before: str
    """Empty: nothing is live."""
    engine: str
    replicas: int
    replicas_at_peak: int
    """Replicas of both versions that run at once."""
    accelerators_at_peak: int
    steps: tuple[str, ...]
    """What happens, in order, a line each."""
    gates: tuple[str, ...]
    """What must hold, a line each."""
    plan: dict[str, Any]


class LogView(_Strict):
    """The last lines that one worker wrote."""

    replica: str
    version: int
    state: ReplicaState
    lines: tuple[str, ...]


class LogList(_Strict):
    logs: tuple[LogView, ...]


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
    rollout: RolloutBrief | None = None
    """The move that is under way, or was the last."""


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


class LimitView(_Strict):
    """A bound on what one may use, over all models or of one."""

    kind: str
    amount: float
    model: str | None


class LimitsWish(_Strict):
    """Bounds by kind: requests_per_min, tokens_per_min, concurrent_requests, tokens_per_day,
    tokens_per_month."""

    limits: dict[str, float] = {}
    limits_by_model: dict[str, dict[str, float]] = {}


class KeyWish(LimitsWish):
    """A key to be made."""

    key_id: str | None = None
    """Chosen by the caller, or drawn."""
    name: str = Field(default="", max_length=200)
    tenant: str = "default"
    models: tuple[str, ...] | None = None
    """Public names that it may ask; null: all."""
    priority: Literal["high", "normal", "low"] = "normal"
    expires_at: float | None = None


class KeyView(_Strict):
    """A key, without its secret, which nobody has but its holder."""

    key_id: str
    name: str
    tenant: str
    models: tuple[str, ...] | None
    limits: tuple[LimitView, ...]
    priority: Literal["high", "normal", "low"]
    created_at: float
    expires_at: float | None


class KeyCreated(_Strict):
    """A key and its secret, which is shown this once."""

    key: KeyView
    secret: str


class KeyList(_Strict):
    keys: tuple[KeyView, ...]


class RotateWish(_Strict):
    """Give a key another secret."""

    grace_s: float = Field(default=0.0, ge=0, le=30 * 86_400)
    """For so long the secret of before is taken too."""


class TenantView(_Strict):
    """Whoever has keys together."""

    tenant: str
    keys: int
    limits: tuple[LimitView, ...]


class TenantList(_Strict):
    tenants: tuple[TenantView, ...]


class UsageRow(_Strict):
    """What one key used of one model on one day of UTC."""

    day: int
    """Days since 1970."""
    tenant: str
    key_id: str
    model: str
    requests: int
    unsuccessful: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int = 0
    """Billionths of the reporting currency, as far as prices are known."""
    priced: int = 0
    """Requests whose cost is known; those that got to no replica cost nothing."""


class UsageList(_Strict):
    usage: tuple[UsageRow, ...]


class Explained(_Strict):
    """Why a request went as it did."""

    record: dict[str, Any]
    """Its record, as `core/records.py` has it."""
    decisions: tuple[dict[str, Any], ...]
    """What was decided on its way, in order; empty when its gateway no longer remembers."""
    scores: tuple[ScoreView, ...] = ()
    """What judges said of the answer."""


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
