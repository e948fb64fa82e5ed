"""What goes on at this moment, in one answer."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fastapi import APIRouter

from modelyard.api.figures import figures, machine_view, together
from modelyard.api.parts import ApiParts
from modelyard.api.trend_messages import Live, LiveAlert, LiveModel
from modelyard.api.views import deployment_view
from modelyard.core.deployments import Deployment, Replica
from modelyard.core.replicas import ALIVE
from modelyard.core.rollups import Series, Span, Step, Sums


def router(parts: ApiParts) -> APIRouter:
    """The route of this noun."""
    routes = APIRouter(prefix="/api")

    @routes.get("/live")
    def live() -> Live:
        now = parts.clock()
        minute = Step.MINUTE.begin(now)
        # The minute that has begun says little in its first seconds: with the one before.
        window = Span(Step.MINUTE, minute - 60, minute + 60)
        window_s = now - window.since
        series = parts.store.trends.totals((window,))
        machines = parts.store.machines.total((window,))
        deployments = parts.store.deployments.all()
        replicas = parts.store.replicas.all()
        names = {deployment.name for deployment in deployments}
        gateways = parts.runtime.gateways()
        return Live(
            at=now,
            window_s=window_s,
            gateways=len(gateways),
            records_waiting=sum(gateway.records_waiting for gateway in gateways),
            models=tuple(_model(parts, each, replicas, series, window_s) for each in deployments),
            elsewhere=figures(
                together(sums for key, sums in series.items() if key.model not in names), window_s
            ),
            alerts=tuple(
                LiveAlert(
                    rule=alert.rule,
                    subject=alert.subject,
                    severity=alert.severity,
                    since=alert.since,
                    told=alert.told,
                )
                for alert in parts.store.alerts.firing()
            ),
            machines=tuple(machine_view(host, sums) for host, sums in sorted(machines.items())),
        )

    return routes


def _model(
    parts: ApiParts,
    deployment: Deployment,
    replicas: Sequence[Replica],
    series: Mapping[Series, Sums],
    window_s: float,
) -> LiveModel:
    rollout = deployment.rollout
    waits_for = parts.runtime.waits_for(rollout) if rollout is not None else ""
    view = deployment_view(deployment, replicas, None, waits_for=waits_for)
    own = [each for each in replicas if each.deployment == deployment.name]
    in_flight = parts.runtime.in_flight()
    return LiveModel(
        name=deployment.name,
        model=view.model,
        version=view.version if view.live is not None else 0,
        state=view.state,
        replicas=dict(Counter(each.state.value for each in own if each.state in ALIVE)),
        in_flight=sum(in_flight.get(each.id, 0) for each in own),
        figures=figures(
            together(sums for key, sums in series.items() if key.model == deployment.name),
            window_s,
        ),
        rollout=view.rollout if rollout is not None and not rollout.over else None,
        message=view.message,
    )
