"""Deployments: asked for, looked at, taken away. The reconcile loop does the rest."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from modelyard.api.messages import (
    DefaultModel,
    DeploymentList,
    DeploymentView,
    DeployRequest,
    LogList,
    LogView,
    PlanView,
)
from modelyard.api.parts import ApiParts
from modelyard.api.plans import accelerators_at_peak, plan_view
from modelyard.api.views import deployment_view
from modelyard.core.accelerators import refuse_shortage
from modelyard.core.deployments import Deployment, Event, SlotSpec
from modelyard.core.errors import IntegrityError, InvalidConfig, InvalidRequest, NotFound
from modelyard.core.plans import read_plan
from modelyard.core.reconcile import members
from modelyard.core.refs import check_name
from modelyard.core.restarts import RestartRule, failures_in_a_row
from modelyard.core.rollout import Plan
from modelyard.core.wishes import (
    aborted,
    deployed,
    paused,
    promoted,
    resumed,
    rolled_back,
    undeployed,
)


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    wishes = _Wishes(parts)
    routes = APIRouter(prefix="/api")

    @routes.get("/deployments")
    def list_deployments() -> DeploymentList:
        return DeploymentList(deployments=wishes.views())

    @routes.post("/deployments", status_code=202)
    def deploy(request: DeployRequest, response: Response) -> DeploymentView:
        view, changed = wishes.deploy(request)
        if not changed:
            response.status_code = 200
        return view

    @routes.post("/deployments/plan")
    def plan(request: DeployRequest) -> PlanView:
        return wishes.planned(request)

    @routes.get("/deployments/{name}")
    def show(name: str) -> DeploymentView:
        return wishes.view(wishes.find(name))

    @routes.delete("/deployments/{name}", status_code=202)
    def undeploy(name: str) -> DeploymentView:
        return wishes.undeploy(name)

    @routes.post("/deployments/{name}/{verb}", status_code=202)
    def steer(name: str, verb: Verb) -> DeploymentView:
        return wishes.steer(name, verb)

    @routes.get("/deployments/{name}/logs")
    def logs(name: str, lines: Annotated[int, Query(ge=1, le=10_000)] = 100) -> LogList:
        return wishes.logs(name, lines)

    @routes.put("/default-model", status_code=204)
    def set_default(wish: DefaultModel) -> None:
        wishes.set_default(wish.name)

    return routes


Verb = Literal["promote", "pause", "resume", "abort", "rollback"]


class _Wishes:
    """Turns requests into changes of the state."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._store = parts.store

    def views(self) -> tuple[DeploymentView, ...]:
        replicas = self._store.replicas.all()
        default = self._store.meta.default_model()
        return tuple(
            deployment_view(deployment, replicas, default, waits_for=self._waits_for(deployment))
            for deployment in self._store.deployments.all()
        )

    def _waits_for(self, deployment: Deployment) -> str:
        rollout = deployment.rollout
        return "" if rollout is None else self._parts.runtime.waits_for(rollout)

    def view(self, deployment: Deployment, note: str = "") -> DeploymentView:
        replicas = self._store.replicas.all()
        default = self._store.meta.default_model()
        return deployment_view(deployment, replicas, default, note, self._waits_for(deployment))

    def find(self, name: str) -> Deployment:
        deployment = self._store.deployments.get(name)
        if deployment is None:
            raise self._unknown(name)
        return deployment

    def deploy(self, request: DeployRequest) -> tuple[DeploymentView, bool]:
        """The deployment as it is now, and whether anything was asked that was not there."""
        name, spec, plan = self._wish(request)
        now = self._parts.clock()
        before: list[Deployment | None] = []

        def step(present: Deployment | None) -> Deployment:
            before.append(present)
            self._refuse_shortage(name, spec, present, plan)
            return deployed(
                present, name, spec, now=now, plan=plan, broken=broken, generations=generations
            )

        broken, generations = self._is_broken(name), self._generations(name)
        after = self._store.deployments.change(name, step)
        if after is None:  # pragma: no cover - `deployed` always returns one
            raise self._unknown(name)
        changed = after != before[0]
        if request.default or self._store.meta.default_model() is None:
            self._store.meta.set_default_model(name)
        if changed:
            self._tell("deployment.asked", name, f"{spec.model}:{spec.version} on {spec.engine}")
        self._parts.wake()
        note = "" if changed else f"{spec.model}:{spec.version} is there already; nothing changed"
        return self.view(after, note), changed

    def undeploy(self, name: str) -> DeploymentView:
        self.find(name)

        def step(present: Deployment | None) -> Deployment | None:
            return None if present is None else undeployed(present, self._parts.clock())

        after = self._store.deployments.change(name, step)
        if after is None:
            raise self._unknown(name)
        if self._store.meta.default_model() == name:
            self._store.meta.set_default_model(None)
        self._tell("deployment.undeployed", name)
        self._parts.wake()
        return self.view(after)

    def set_default(self, name: str) -> None:
        self.find(name)
        self._store.meta.set_default_model(name)
        self._tell("default_model.set", name)
        self._parts.wake()

    def planned(self, request: DeployRequest) -> PlanView:
        """What `deploy` would do, refused for the same reasons; nothing is changed."""
        name, spec, plan = self._wish(request)
        present = self._store.deployments.get(name)
        after = deployed(present, name, spec, now=self._parts.clock(), plan=plan)
        live = None if present is None or present.live is None else present.slot(present.live)
        self._refuse_shortage(name, spec, present, plan)
        return plan_view(after, spec, live, plan)

    def _refuse_shortage(
        self, name: str, spec: SlotSpec, present: Deployment | None, plan: Plan
    ) -> None:
        if spec.accelerators_per_replica == 0:
            return
        live = None if present is None or present.live is None else present.slot(present.live)
        needed = accelerators_at_peak(spec, live, plan)
        refuse_shortage(name, needed, self._store.deployments.all(), self._parts.accelerators())

    def steer(self, name: str, verb: Verb) -> DeploymentView:
        """Go on, stay, or go back."""
        self.find(name)
        now, actor = self._parts.clock(), "admin"

        def step(present: Deployment | None) -> Deployment | None:
            if present is None:
                return None
            match verb:
                case "promote":
                    return promoted(present, now, actor)
                case "pause":
                    return paused(present, now)
                case "resume":
                    return resumed(present, now)
                case "abort":
                    return aborted(present, now, actor)
                case "rollback":
                    return rolled_back(present, now, actor, self._plan_back(present))

        after = self._store.deployments.change(name, step)
        if after is None:
            raise self._unknown(name)
        self._tell(f"rollout.{verb}", name)
        self._parts.wake()
        return self.view(after)

    def logs(self, name: str, lines: int) -> LogList:
        """The last lines that its workers wrote, the youngest worker first."""
        self.find(name)
        said = self._parts.runtime.logs(name, lines)
        own = [r for r in self._store.replicas.all() if r.id in said]
        return LogList(
            logs=tuple(
                LogView(
                    replica=replica.id,
                    version=replica.version,
                    state=replica.state,
                    lines=tuple(said[replica.id]),
                )
                for replica in sorted(own, key=lambda replica: -replica.created_at)
            )
        )

    def _plan_back(self, present: Deployment) -> Plan:
        """What the version before is asked before it is live again."""
        other = present.slot("green" if present.live == "blue" else "blue")
        # Where both could not run at once on the way here, they can't on the way back.
        exclusive = present.rollout is not None and present.rollout.exclusive
        written = {"strategy": "recreate"} if exclusive else {}
        return read_plan(written, "" if other is None else _known_as(other))

    def _wish(self, request: DeployRequest) -> tuple[str, SlotSpec, Plan]:
        """Public name, what should run there, and how it becomes live; whatever can be refused
        before anything starts is refused here."""
        name = check_name(request.as_name) if request.as_name else None
        spec = self._spec(request)
        try:
            plan = read_plan(request.plan or {}, _known_as(spec))
            for test in plan.smoke:
                self._parts.check_schema(test)
        except InvalidConfig as error:
            raise InvalidRequest(error.message, next_step=error.next_step, param="plan") from None
        return name or spec.model, spec, plan

    def _spec(self, request: DeployRequest) -> SlotSpec:
        version = self._parts.registry.get(request.ref)
        if version.quarantined:
            raise IntegrityError(
                f"{version.name}:{version.version} is quarantined: {version.quarantined}",
                next_step="register its files again from a good copy, and deploy that version",
            )
        self._parts.refuse(version)
        spec = SlotSpec(
            model=version.name,
            version=version.version,
            digest=version.digest,
            engine=self._parts.choose_engine(version.facts, request.engine),
            launcher=request.launcher,
            image=request.image,
            pull=request.pull,
            cpus=request.cpus,
            memory_bytes=request.memory_bytes,
            replicas=request.replicas or self._replicas_of(request.as_name or version.name),
            accelerators_per_replica=request.accelerators_per_replica,
            parallel=request.parallel,
            context_length=request.context_length,
            threads=request.threads,
            extra_args=request.extra_args,
        )
        self._parts.check_launch(spec)
        return spec

    def _replicas_of(self, name: str) -> int:
        """As many as are live; 1 where nothing is."""
        present = self._store.deployments.get(name)
        if present is None or present.live is None:
            return 1
        spec = present.slot(present.live)
        return 1 if spec is None else spec.replicas

    def _is_broken(self, name: str) -> bool:
        """Whether the live slot's last worker ended in a way that no retry mends."""
        present = self._store.deployments.get(name)
        if present is None or present.live is None:
            return False
        own = [r for r in self._store.replicas.all() if r.deployment == name]
        return failures_in_a_row(members(present, present.live, own), RestartRule()).fatal

    def _generations(self, name: str) -> int:
        """How many a deployment of this name has had: the report of each is kept."""
        return max(
            (each.rollout.generation for each in self._store.rollouts.list(name, 1)), default=0
        )

    def _tell(self, kind: str, subject: str, message: str = "") -> None:
        event = Event(
            at=self._parts.clock(), kind=kind, subject=subject, actor="user:admin", message=message
        )
        self._store.events.append(event)

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(d.name for d in self._store.deployments.all()) or "none"
        return NotFound(
            f"no deployment is called {name!r}; there are: {known}",
            next_step="deploy a registered version with: modelyard deploy NAME:VERSION",
            param="name",
        )


def _known_as(spec: SlotSpec) -> str:
    """The model whose answers are known; the fake engine gives its own, whatever it is to run."""
    return "" if spec.engine == "fake" else spec.model
