"""Settings of one home: flags before environment before HOME/config.yaml before defaults.

    gateway:                 MODELYARD_GATEWAY__HOST, …
      host: 127.0.0.1        address that clients reach
      port: 8000
      drain_s: 30            seconds that requests in flight get when Modelyard is stopped
      when_spool_full: drop  refuse: new requests get 503 rather than go unrecorded
      tls: null              {cert_file: …, key_file: …}, PEM; a relative path begins at the folder
                             of config.yaml
      request_log:
        file: null           a line of JSON for each finished request; below HOME/gateway
        max_bytes: 67108864  then a new file is begun
        keep: 4              older files that stay
        content: false       true: prompts and answers too, in this file and nowhere else
    telemetry:
      traces:
        endpoint: null       OTLP over HTTP: http://127.0.0.1:4318/v1/traces
        sample: null         share of the requests that get a span, 0 to 1; null: 0.01
        headers_env: {}      headers of the export, and the variables that hold their values
                             (null and {}: what OpenTelemetry's OTEL_… variables say)
    controller:
      host: 127.0.0.1        address of the management API
      port: 8001
    registry:
      tracking_uri: null     the team's MLflow, as http://HOST:5000; null: SQLite in the home
      trust:
        require_signed: false  true: only versions signed by one of these keys are served
        public_keys: []        PEM files; a relative path begins at the folder of config.yaml
    state:
      url: null              postgresql://USER@HOST:5432/DATABASE; null: SQLite in the home
      records_days: 7        how long the record of each request is kept; sums are kept longer
      records_rows: 150000   more records than that go earlier, the oldest first
    cost:                    what running replicas costs; where nothing is said, it is unknown
      currency: EUR          of all prices and limits of money, as ISO 4217 calls it
      replica_hour: {process: null, docker: null}      of one replica, by launcher
      accelerator_hour: {process: null, docker: null}  of each of its accelerators, beside that
    alerts:
      every_s: 15            seconds between two looks
      defaults: true         false: the rules below alone
      rules: {}              NAME: {kind: …, …}; one by the name of a default rule changes it, null
                             switches it off (docs/observability.md lists kinds and keys)
      webhooks: {}           NAME: {url: …, secret_file: …, format: json or slack}

An unknown key is an error: a misspelt setting must not be ignored.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from modelyard.core.alerting import AnyRule, read_rules
from modelyard.core.cost import PriceList
from modelyard.core.errors import InvalidConfig
from modelyard.core.home import Home
from modelyard.core.receivers import WebhookWish, read_webhooks
from modelyard.core.telemetry import RequestLogOptions, TelemetryOptions, TraceOptions

ENV_PREFIX = "MODELYARD_"
_NESTING = "__"


class TlsSettings(BaseModel):
    """What the gateway shows to its clients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert_file: Path
    key_file: Path


class RequestLogSettings(BaseModel):
    """The log of finished requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str | None = None
    """Below HOME/gateway; None: none is kept."""
    max_bytes: int = Field(default=RequestLogOptions().max_bytes, ge=1)
    keep: int = Field(default=RequestLogOptions().keep, ge=0)
    content: bool = False
    """Prompts and answers too (promise O7)."""


class GatewaySettings(BaseModel):
    """Where the data plane listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight get when Modelyard is stopped."""
    when_spool_full: Literal["refuse", "drop"] = "drop"
    """Refuse new requests with 503 rather than leave them unrecorded (the choice where keys have
    budgets), or drop their records and count them."""
    tls: TlsSettings | None = None
    request_log: RequestLogSettings = RequestLogSettings()


class ControllerSettings(BaseModel):
    """Where the management API listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8001, ge=0, le=65535)


class TrustSettings(BaseModel):
    """Whose signatures count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    require_signed: bool = False
    public_keys: tuple[Path, ...] = ()

    def keys_of(self, home: Home) -> tuple[Path, ...]:
        """The files meant, seen from the folder of the home's config.yaml."""
        return tuple(home.config.parent / key.expanduser() for key in self.public_keys)

    @model_validator(mode="after")
    def _some_key_can_sign(self) -> "TrustSettings":
        if self.require_signed and not self.public_keys:
            raise ValueError("require_signed is true and public_keys is empty: nothing would pass")
        return self


class RegistrySettings(BaseModel):
    """What holds for registered versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trust: TrustSettings = TrustSettings()
    tracking_uri: str | None = None
    """Of the MLflow that shows what is registered; None: SQLite in the home."""

    @field_validator("tracking_uri")
    @classmethod
    def _means_the_same_everywhere(cls, uri: str | None) -> str | None:
        if not uri:  # an empty environment variable takes back what the file says
            return None
        if "://" not in uri:
            raise ValueError("not a URI such as http://HOST:5000 or sqlite:////PATH/mlflow.db")
        if uri.startswith("sqlite:///") and uri[10:11] != "/":
            raise ValueError("a relative path; write sqlite://// and the absolute one")
        return uri


class StateSettings(BaseModel):
    """Where the controller keeps its state."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr | None = None
    """Of a PostgreSQL database, a secret where it holds a password; None: SQLite in the home."""
    records_days: float = Field(default=7.0, gt=0, le=36_500)
    """How long the record of each request is kept; what they add up to is kept longer."""
    records_rows: int = Field(default=150_000, ge=1000)
    """More of them go earlier, the oldest first."""

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None  # an empty environment variable takes back what the file says
        scheme = url.get_secret_value().partition("://")[0]
        if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
            raise ValueError("not a URL such as postgresql://USER@HOST:5432/DATABASE")
        return url

    def plain_url(self) -> str | None:
        """To connect with, and for nothing else."""
        return None if self.url is None else self.url.get_secret_value()


_Money = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class LauncherPrices(BaseModel):
    """A price for each way to start a replica; None: nobody said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    process: _Money | None = None
    docker: _Money | None = None


class CostSettings(BaseModel):
    """What running replicas costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    replica_hour: LauncherPrices = LauncherPrices()
    accelerator_hour: LauncherPrices = LauncherPrices()

    def prices(self) -> PriceList:
        """As the rest of the program has it."""
        return PriceList(
            currency=self.currency,
            replica_hour=self.replica_hour.model_dump(exclude_none=True),
            accelerator_hour=self.accelerator_hour.model_dump(exclude_none=True),
        )


class TraceSettings(BaseModel):
    """Where spans of requests go; what is open is taken from OpenTelemetry's variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    sample: float | None = Field(default=None, ge=0, le=1)
    headers_env: dict[str, str] = {}
    """Names of headers, and of the environment variables that hold their values."""


class TelemetrySettings(BaseModel):
    """What is sent to others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    traces: TraceSettings = TraceSettings()


class AlertSettings(BaseModel):
    """What raises an alert, and who is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_s: float = Field(default=15.0, ge=0.1, le=60)
    defaults: bool = True
    rules: dict[str, dict[str, Any] | None] = {}
    webhooks: dict[str, dict[str, Any] | None] = {}

    def in_force(self) -> tuple[tuple[AnyRule, ...], tuple[WebhookWish, ...]]:
        """The rules and the webhooks; InvalidConfig names what is none, and the key."""
        rules = read_rules(self.rules, defaults=self.defaults)
        return rules, read_webhooks(self.webhooks)


class Settings(BaseModel):
    """All settings."""

    # Hidden, for an input may be a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    gateway: GatewaySettings = GatewaySettings()
    controller: ControllerSettings = ControllerSettings()
    registry: RegistrySettings = RegistrySettings()
    state: StateSettings = StateSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def telemetry_options(self) -> TelemetryOptions:
        """What the gateway is told to tell, as its process takes it."""
        return TelemetryOptions(
            traces=TraceOptions(**self.telemetry.traces.model_dump()),
            request_log=RequestLogOptions(**self.gateway.request_log.model_dump()),
        )

    cost: CostSettings = CostSettings()
    alerts: AlertSettings = AlertSettings()


def load_settings(file: Path, flags: Mapping[str, Mapping[str, object]]) -> Settings:
    """Read `file` if it is there, the environment, and the flags that were given.

    Raises InvalidConfig that names the key at fault, and the nearest one known.
    """
    from_file = _read(file)

    class Sources(BaseSettings, Settings):
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX,
            env_nested_delimiter=_NESTING,
            extra="forbid",
            frozen=True,
            hide_input_in_errors=True,
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    given: dict[str, Any] = {section: dict(values) for section, values in flags.items() if values}
    try:
        settings = Settings.model_validate(Sources(**given).model_dump())
    except ValidationError as error:
        raise _invalid(error, file) from error
    settings.alerts.in_force()
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise InvalidConfig(
            f"{file} can't be read: {what}", next_step="mend the file, or move it away"
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidConfig(
            f"{file} holds no settings but a {type(found).__name__}",
            next_step=f"write sections such as: {', '.join(Settings.model_fields)}",
        )
    return {str(key): value for key, value in found.items()}


def _invalid(error: ValidationError, file: Path) -> InvalidConfig:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    where = f"{file} or {ENV_PREFIX}{_NESTING.join(path).upper()}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.0)
        nearest = ".".join([*path[:-1], *near])
        return InvalidConfig(
            f"{file}: unknown key {key!r}",
            next_step=f"did you mean {nearest!r}? known there: {', '.join(known)}",
            param=key,
        )
    return InvalidConfig(f"{key}: {first['msg']}", next_step=f"see {where}", param=key)


def _known_keys(section: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in section:
        kind = model.model_fields[part].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)
