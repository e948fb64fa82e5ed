"""The typed client of the management API. Synchronous; errors are those of `core/errors.py`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from modelyard.api.alert_client import AlertClient
from modelyard.api.cost_messages import CostReport
from modelyard.api.messages import (
    AliasHistory,
    AliasView,
    AliasWish,
    DefaultModel,
    DeploymentList,
    DeploymentView,
    DeployRequest,
    EventList,
    EventView,
    Explained,
    Family,
    FamilyMember,
    KeyCreated,
    KeyList,
    KeyView,
    KeyWish,
    LimitsWish,
    LogList,
    LogView,
    ModelDetails,
    ModelPage,
    PlanView,
    RolloutList,
    RolloutView,
    RotateWish,
    Status,
    TenantList,
    TenantView,
    UsageList,
    UsageRow,
)
from modelyard.api.messages_scores import DueList, DueView, ScoreReceipt, ScoresWish, ScoreWish
from modelyard.api.trend_messages import Live, Summary, Trends
from modelyard.core import errors
from modelyard.core.deployments import NEXT_STEP_MARK, DeploymentState
from modelyard.core.errors import LaunchFailed, ModelyardError, NotFound, Unavailable
from modelyard.core.home import Home
from modelyard.core.rollout import OVER, Phase, generation_of

Verb = Literal["promote", "pause", "resume", "abort", "rollback"]
ROUTED = frozenset({Phase.BAKING, Phase.DRAINING, Phase.DONE})
"""Phases in which the candidate serves, and every gateway knows."""
GONE_BACK = frozenset({Phase.UNDOING, Phase.UNDONE})
_TIMEOUT_S = 30.0
_POLL_S = 0.1
_ACKNOWLEDGEMENT_S = 5.0
_Answer = TypeVar("_Answer", bound=BaseModel)


class Client:
    """Talks to one controller."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        self.alerts = AlertClient(self._send)

    @classmethod
    def from_home(cls, home: Home) -> "Client":
        """The client of what runs on `home`; Unavailable when nothing does."""
        try:
            record = (home.run / "controller.json").read_bytes()
            token = home.admin_token.read_text().strip()
        except FileNotFoundError as error:
            raise _nothing_runs(home) from error
        except OSError as error:
            raise errors.Forbidden(
                f"can't read {error.filename}: {error.strerror}",
                next_step="run this as the user that started Modelyard on this home",
            ) from error
        return cls(_Record.model_validate_json(record).url, token)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> Status:
        """Everything that runs."""
        return self._ask(Status, "GET", "/api/status")

    def deploy(self, request: DeployRequest) -> DeploymentView:
        """Ask for a version to run under a public name; `wait_until_live` tells how it went."""
        body = request.model_dump(mode="json")
        return self._ask(DeploymentView, "POST", "/api/deployments", json=body)

    def deployments(self) -> tuple[DeploymentView, ...]:
        """All of them, by name."""
        return self._ask(DeploymentList, "GET", "/api/deployments").deployments

    def deployment(self, name: str) -> DeploymentView:
        """One of them; NotFound names those that there are."""
        return self._ask(DeploymentView, "GET", f"/api/deployments/{_segment(name)}")

    def undeploy(self, name: str) -> DeploymentView:
        """Take it away; its requests in flight finish."""
        return self._ask(DeploymentView, "DELETE", f"/api/deployments/{_segment(name)}")

    def plan(self, request: DeployRequest) -> PlanView:
        """What `deploy` would do; refused for the same reasons."""
        body = request.model_dump(mode="json")
        return self._ask(PlanView, "POST", "/api/deployments/plan", json=body)

    def steer(self, name: str, verb: Verb) -> DeploymentView:
        """`promote`, `pause`, `resume`, `abort` or `rollback` a deployment; Conflict when there is
        nothing to."""
        return self._ask(DeploymentView, "POST", f"/api/deployments/{_segment(name)}/{verb}")

    def logs(self, name: str, lines: int = 100) -> tuple[LogView, ...]:
        """The last lines of its workers, the youngest worker first."""
        path = f"/api/deployments/{_segment(name)}/logs"
        return self._ask(LogList, "GET", path, params={"lines": lines}).logs

    def rollouts(self, deployment: str | None = None, limit: int = 50) -> tuple[RolloutView, ...]:
        """The newest first, of one deployment or of all."""
        query: dict[str, Any] = {"limit": limit}
        query |= {} if deployment is None else {"deployment": deployment}
        return self._ask(RolloutList, "GET", "/api/rollouts", params=query).rollouts

    def rollout(self, rollout_id: str) -> RolloutView:
        """One of them; NotFound names the newest."""
        return self._ask(RolloutView, "GET", f"/api/rollouts/{_segment(rollout_id)}")

    def set_default(self, name: str) -> None:
        """Let it serve the simple API's `default`."""
        body = DefaultModel(name=name).model_dump(mode="json")
        self._send("PUT", "/api/default-model", json=body)

    def models(
        self, name: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> ModelPage:
        """A page of registered versions, by name and newest first; `after` is the last one's
        `next`."""
        query = {"name": name, "limit": limit, "after": after}
        given = {key: value for key, value in query.items() if value is not None}
        return self._ask(ModelPage, "GET", "/api/models", params=given)

    def model(self, ref: str) -> ModelDetails:
        """One version with its files; NotFound names the nearest."""
        return self._ask(ModelDetails, "GET", f"/api/models/{_segment(ref)}")

    def lineage(self, ref: str) -> tuple[FamilyMember, ...]:
        """The family of a version, each member before what was made of it."""
        return self._ask(Family, "GET", f"/api/models/{_segment(ref)}/lineage").family

    def history(self, name: str, at: float | None = None) -> AliasHistory:
        """The moves of a name's aliases until `at` (Unix seconds; None: now)."""
        query = {} if at is None else {"at": at}
        return self._ask(AliasHistory, "GET", f"/api/models/{_segment(name)}/history", params=query)

    def set_alias(self, name: str, alias: str, version: int, reason: str = "") -> AliasView:
        """Let `alias` mean this version of `name`."""
        body = AliasWish(version=version, reason=reason).model_dump(mode="json")
        path = f"/api/models/{_segment(name)}/aliases/{_segment(alias)}"
        return self._ask(AliasView, "PUT", path, json=body)

    def create_key(self, wish: KeyWish) -> KeyCreated:
        """Make a key; its secret is shown this once."""
        return self._ask(KeyCreated, "POST", "/api/keys", json=wish.model_dump(mode="json"))

    def keys(self) -> tuple[KeyView, ...]:
        """All keys that were not revoked."""
        return self._ask(KeyList, "GET", "/api/keys").keys

    def revoke_key(self, key_id: str) -> None:
        """End a key: new requests with it get 401 within a second."""
        self._send("DELETE", f"/api/keys/{_segment(key_id)}")

    def rotate_key(self, key_id: str, grace_s: float = 0.0) -> KeyCreated:
        """Give a key another secret; the one before is taken for `grace_s` seconds more."""
        body = RotateWish(grace_s=grace_s).model_dump(mode="json")
        return self._ask(KeyCreated, "POST", f"/api/keys/{_segment(key_id)}/rotate", json=body)

    def tenants(self) -> tuple[TenantView, ...]:
        """Those that have keys or limits."""
        return self._ask(TenantList, "GET", "/api/tenants").tenants

    def set_tenant(self, tenant: str, wish: LimitsWish) -> None:
        """Bound what all keys of a tenant may use together."""
        body = wish.model_dump(mode="json")
        self._send("PUT", f"/api/tenants/{_segment(tenant)}", json=body)

    def drop_tenant(self, tenant: str) -> None:
        """End a tenant, with all its keys."""
        self._send("DELETE", f"/api/tenants/{_segment(tenant)}")

    def set_model_limits(self, model: str, wish: LimitsWish) -> None:
        """Bound what all callers of a public model name may use together."""
        self._send("PUT", f"/api/limits/{_segment(model)}", json=wish.model_dump(mode="json"))

    def usage(self, days: int = 30, tenant: str | None = None) -> tuple[UsageRow, ...]:
        """What keys used, by day, of the last `days` days."""
        query: dict[str, Any] = {"days": days} | ({} if tenant is None else {"tenant": tenant})
        return self._ask(UsageList, "GET", "/api/usage", params=query).usage

    def summary(self, model: str, hours: float = 24.0) -> Summary:
        """A model's last hours summed up; NotFound names the models that somebody asked for."""
        return self._ask(Summary, "GET", "/api/summary", params={"model": model, "hours": hours})

    def trends(self, model: str, hours: float = 24.0, step: int | None = None) -> Trends:
        """The same in stretches of `step` seconds; None: as fits the hours."""
        query: dict[str, Any] = {"model": model, "hours": hours}
        query |= {} if step is None else {"step": step}
        return self._ask(Trends, "GET", "/api/trends", params=query)

    def live(self) -> Live:
        """What goes on at this moment."""
        return self._ask(Live, "GET", "/api/live")

    def costs(
        self,
        days: int = 30,
        by: str = "tenant",
        *,
        tenant: str | None = None,
        model: str | None = None,
        top: int | None = None,
    ) -> CostReport:
        """What requests cost and what was idle, of the last `days` days of UTC."""
        wanted = {"days": days, "by": by, "tenant": tenant, "model": model, "top": top}
        query = {name: value for name, value in wanted.items() if value is not None}
        return self._ask(CostReport, "GET", "/api/costs", params=query)

    def explain(self, request_id: str) -> Explained:
        """Why a request went as it did; NotFound when nobody knows of it."""
        return self._ask(Explained, "GET", f"/api/requests/{_segment(request_id)}")

    def judge(self, scores: Sequence[ScoreWish]) -> ScoreReceipt:
        """Tell what a judge said of answers, 1,000 at most at once."""
        wish = ScoresWish(scores=tuple(scores))
        return self._ask(ScoreReceipt, "POST", "/api/scores", json=wish.model_dump())

    def due(self, judge: str, limit: int = 100, seconds: float = 3600.0) -> tuple[DueView, ...]:
        """Requests of the last `seconds` that a judge has said nothing of, the oldest first."""
        query: dict[str, Any] = {"judge": judge, "limit": limit, "seconds": seconds}
        return self._ask(DueList, "GET", "/api/scores/due", params=query).requests

    def events(self, after: int = 0, limit: int = 100) -> tuple[EventView, ...]:
        """At most `limit` lines of the journal after `after`."""
        query = {"after": after, "limit": limit}
        return self._ask(EventList, "GET", "/api/events", params=query).events

    def wait_for(
        self,
        asked: DeploymentView,
        timeout_s: float = 600.0,
        on_change: Callable[[DeploymentView], None] | None = None,
    ) -> DeploymentView:
        """`wait_until_live` for what `deploy` answered; how the last rollout ended is history."""
        last = asked.rollout
        former = last.id if last is not None and last.phase in OVER else None
        return self.wait_until_live(
            asked.name, asked.generation, timeout_s, on_change, former=former
        )

    def wait_until_live(
        self,
        name: str,
        generation: int,
        timeout_s: float = 600.0,
        on_change: Callable[[DeploymentView], None] | None = None,
        *,
        former: str | None = None,
    ) -> DeploymentView:
        """Return when `generation` is live and the gateways that run route to it.

        `former`: id of a rollout that was over before. Raises LaunchFailed with the reason when it
        was given up, Unavailable after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        seen: DeploymentView | None = None
        while True:
            view = self.deployment(name)
            if view != seen:
                seen = view
                if on_change is not None:
                    on_change(view)
            if view.state is DeploymentState.STOPPING:
                raise NotFound(f"{name} was taken away", next_step="deploy it again")
            rollout, history = view.rollout, ""
            if rollout is not None and (
                rollout.id == former or generation_of(rollout.id) < generation
            ):
                history, rollout = rollout.reason, None
            if rollout is not None and rollout.phase in GONE_BACK:
                raise _launch_failed(view.message or rollout.reason, rollout.id)
            switched = rollout is None or rollout.phase in ROUTED
            if view.generation >= generation and (switched or view.incoming is None):
                if view.message not in ("", history):
                    raise _launch_failed(view.message)
                if switched and view.state is DeploymentState.LIVE:
                    self._wait_until_routed(min(deadline, time.monotonic() + _ACKNOWLEDGEMENT_S))
                    return view
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{name} was not live within {timeout_s:g} s (it is {view.state})",
                    next_step="it goes on in the background; `modelyard status` shows it",
                )
            time.sleep(_POLL_S)

    def _wait_until_routed(self, deadline: float) -> None:
        """Give the gateways a moment to apply the newest routes; one that lags is not waited for
        longer: it has its own line in the status."""
        while time.monotonic() < deadline:
            if all(process.acknowledged for process in self.status().gateway.processes):
                return
            time.sleep(_POLL_S / 4)

    def _ask(self, kind: type[_Answer], method: str, path: str, **options: Any) -> _Answer:
        return kind.model_validate_json(self._send(method, path, **options).content)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unavailable(
                f"no answer from the controller at {self.url}: {error}",
                next_step="start it with: modelyard up",
            ) from error
        if response.is_error:
            raise _error_of(response)
        return response


def _launch_failed(told: str, rollout_id: str = "") -> LaunchFailed:
    """The error in a deployment's message, with what it says to do next."""
    message, _, next_step = told.partition(f"\n{NEXT_STEP_MARK}")
    report = f"modelyard rollouts show {rollout_id} shows how it went; " if rollout_id else ""
    return LaunchFailed(
        message,
        next_step=next_step
        or f"{report}mend it, then deploy again; "
        "all that its workers wrote is in logs/replicas of the home",
    )


def _segment(text: str) -> str:
    """As one part of a path, whatever it holds."""
    return quote(text, safe=":@")


class _Record(BaseModel):
    url: str


def _nothing_runs(home: Home) -> Unavailable:
    return Unavailable(
        f"nothing runs on the home {home.root}",
        next_step=f"start it with: modelyard up --home {home.root}",
    )


def _error_of(response: httpx.Response) -> ModelyardError:
    """The error that the controller raised, as the same class."""
    try:
        told = response.json()["error"]
        message, code, param = told["message"], told["code"], told.get("param")
        next_step = told.get("next_step") or ""
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            f"the controller answered {response.status_code} without a reason",
            next_step="see logs/controller.log in the home",
        )
    kind = _CLASSES.get(code, ModelyardError)
    return kind(message, next_step=next_step, param=param)


_CLASSES: dict[str, type[ModelyardError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ModelyardError)
}
