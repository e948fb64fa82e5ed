"""Deployments: asked for, looked at, taken away. The reconcile loop does the rest."""

from fastapi import APIRouter, Response

from modelyard.api.messages import DefaultModel, DeploymentList, DeploymentView, DeployRequest
from modelyard.api.parts import ApiParts
from modelyard.api.views import deployment_view
from modelyard.core.deployments import Deployment, Event, SlotSpec
from modelyard.core.errors import IntegrityError, NotFound
from modelyard.core.reconcile import members
from modelyard.core.refs import check_name
from modelyard.core.restarts import RestartRule, failures_in_a_row
from modelyard.core.wishes import deployed, undeployed


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

    @routes.get("/deployments/{name}")
    def show(name: str) -> DeploymentView:
        return wishes.view(wishes.find(name))

    @routes.delete("/deployments/{name}", status_code=202)
    def undeploy(name: str) -> DeploymentView:
        return wishes.undeploy(name)

    @routes.put("/default-model", status_code=204)
    def set_default(wish: DefaultModel) -> None:
        wishes.set_default(wish.name)

    return routes


class _Wishes:
    """Turns requests into changes of the state."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._store = parts.store

    def views(self) -> tuple[DeploymentView, ...]:
        replicas = self._store.replicas.all()
        default = self._store.meta.default_model()
        return tuple(
            deployment_view(deployment, replicas, default)
            for deployment in self._store.deployments.all()
        )

    def view(self, deployment: Deployment, note: str = "") -> DeploymentView:
        replicas = self._store.replicas.all()
        return deployment_view(deployment, replicas, self._store.meta.default_model(), note)

    def find(self, name: str) -> Deployment:
        deployment = self._store.deployments.get(name)
        if deployment is None:
            raise self._unknown(name)
        return deployment

    def deploy(self, request: DeployRequest) -> tuple[DeploymentView, bool]:
        """The deployment as it is now, and whether anything was asked that was not there."""
        name = check_name(request.as_name) if request.as_name else None
        spec = self._spec(request)
        name = name or spec.model
        now = self._parts.clock()
        before: list[Deployment | None] = []

        def step(present: Deployment | None) -> Deployment:
            before.append(present)
            return deployed(present, name, spec, now=now, broken=broken)

        broken = self._is_broken(name)
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
            return None if present is None else undeployed(present)

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

    def _spec(self, request: DeployRequest) -> SlotSpec:
        version = self._parts.registry.get(request.ref)
        if version.quarantined:
            raise IntegrityError(
                f"{version.name}:{version.version} is quarantined: {version.quarantined}",
                next_step="register its files again from a good copy, and deploy that version",
            )
        return SlotSpec(
            model=version.name,
            version=version.version,
            digest=version.digest,
            engine=self._parts.choose_engine(version.facts, request.engine),
            launcher=request.launcher,
            replicas=request.replicas,
            parallel=request.parallel,
            context_length=request.context_length,
            threads=request.threads,
            extra_args=request.extra_args,
        )

    def _is_broken(self, name: str) -> bool:
        """Whether the live slot's last worker ended in a way that no retry mends."""
        present = self._store.deployments.get(name)
        if present is None or present.live is None:
            return False
        own = [r for r in self._store.replicas.all() if r.deployment == name]
        return failures_in_a_row(members(present, present.live, own), RestartRule()).fatal

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
