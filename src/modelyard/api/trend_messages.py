"""What the management API says of traffic over time.

    GET /api/summary?model=NAME&hours=H        → Summary
    GET /api/trends?model=NAME&hours=H&step=S  → Trends; S: seconds of a point, a multiple of 60
    GET /api/live                              → Live; cheap enough to be asked every second

Times are Unix seconds, amounts of money are in the reporting currency. What nobody has measured is
null.
"""

from pydantic import BaseModel, ConfigDict

from modelyard.api.messages import RolloutBrief
from modelyard.core.deployments import DeploymentState


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Quantiles(_Told):
    """Seconds that a half, 95 % and 99 % of the completed requests took at most; within 2 %."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Times(Quantiles):
    """The same, and their exact average."""

    average_s: float | None


class Figures(_Told):
    """What requests add up to."""

    request_count: int
    completed_count: int
    failed_count: int
    """Those that Modelyard or a replica failed."""
    cancelled_count: int
    """Those whose client left."""
    rejected_count: int
    """Those that were at fault themselves, or over a limit."""
    limited_count: int
    """Of them, those over a limit."""
    cached_count: int
    """Those answered without a replica."""
    error_rate: float | None
    """Share of the failed among the completed and the failed."""
    request_rate: float
    """Requests per second."""
    response_time: Times
    """Until the last byte."""
    time_to_first_token: Times
    """Until the first byte."""
    inter_token_time: Quantiles
    """Mean time between two events of a stream."""
    token_rate: float
    """Tokens of answers per second."""
    tokens_in: int
    tokens_out: int
    """Those of cached answers are not counted again."""
    cost: float | None
    """Of the requests whose price is known; null when it is for none."""
    priced_count: int
    """How many these are."""


class Use(_Told):
    """A quantity that was looked at from time to time."""

    average: float | None
    most: float | None


class WorkersView(_Told):
    """What the workers of a version in a slot use together."""

    memory_bytes: Use
    """Resident."""
    cpus: Use
    """Processors in use."""
    gpu_memory_bytes: Use


class VersionFigures(Figures):
    """One version in one slot."""

    version: int
    """0: a remote upstream, or none got to answer."""
    digest: str
    slot: str
    workers: WorkersView | None


class GpuView(_Told):
    """One GPU."""

    index: int
    name: str
    busy_share: Use
    """0 to 1."""
    memory_bytes: Use
    memory_total_bytes: int
    power_w: Use
    temperature_c: Use


class MachineView(_Told):
    """The machine of the controller."""

    host: str
    memory_bytes: Use
    memory_total_bytes: int
    cpu_share: Use
    """Of all processors, 0 to 1."""
    load_1m: Use
    gpus: tuple[GpuView, ...]


class Summary(Figures):
    """One model over some hours; `since` and `until` are those of the steps that were summed up:
    what is old is kept in longer ones."""

    model: str
    hours: float
    since: float
    until: float
    workers: WorkersView | None
    """All workers of the model together."""
    versions: tuple[VersionFigures, ...]
    machines: tuple[MachineView, ...]


class Point(Figures):
    """One stretch of time."""

    at: float
    """When it began."""
    length_s: float
    """The last may not be over."""


class Trends(_Told):
    """One model, stretch by stretch, those without requests included."""

    model: str
    hours: float
    step_s: int
    points: tuple[Point, ...]


class LiveModel(_Told):
    """One deployment at this moment."""

    name: str
    model: str
    version: int
    """The live one; 0 while none is."""
    state: DeploymentState
    replicas: dict[str, int]
    """How many are in each state."""
    in_flight: int
    figures: Figures
    rollout: RolloutBrief | None
    """Under way, with what it waits for."""
    message: str


class LiveAlert(_Told):
    """One alert that fires."""

    rule: str
    subject: str
    severity: str
    since: float
    told: str


class Live(_Told):
    """What `modelyard top` shows. Rates and times are those of the last one to two minutes."""

    at: float
    window_s: float
    """So many seconds."""
    gateways: int
    """Processes that report."""
    records_waiting: int
    """What they have not yet handed over."""
    models: tuple[LiveModel, ...]
    elsewhere: Figures
    """Requests that got to none of these."""
    alerts: tuple[LiveAlert, ...]
    """The oldest first."""
    machines: tuple[MachineView, ...]
