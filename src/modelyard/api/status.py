"""Everything that runs, at one moment."""

from fastapi import APIRouter

from modelyard.api.messages import ControllerView, GatewaySummary, GatewayView, Status
from modelyard.api.parts import ApiParts
from modelyard.api.views import deployment_view, replica_view
from modelyard.core.replicas import ALIVE


def router(parts: ApiParts) -> APIRouter:
    """The routes of this noun."""
    routes = APIRouter()

    @routes.get("/api/status")
    def status() -> Status:
        replicas = parts.store.replicas.all()
        default = parts.store.meta.default_model()
        in_flight = parts.runtime.in_flight()
        return Status(
            gateway=_gateway(parts),
            controller=ControllerView(
                url=parts.about.url,
                pid=parts.about.pid,
                version=parts.about.version,
                started_at=parts.about.started_at,
                home=parts.about.home,
                routes_version=parts.runtime.routes_version(),
            ),
            deployments=tuple(
                deployment_view(
                    deployment,
                    replicas,
                    default,
                    waits_for=parts.runtime.waits_for(deployment.rollout)
                    if deployment.rollout
                    else "",
                )
                for deployment in parts.store.deployments.all()
            ),
            replicas=tuple(
                replica_view(replica, in_flight) for replica in replicas if replica.state in ALIVE
            ),
        )

    @routes.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return routes


def _gateway(parts: ApiParts) -> GatewaySummary:
    newest = parts.runtime.routes_version()
    processes = tuple(
        GatewayView(
            id=gateway.id,
            pid=gateway.pid,
            url=gateway.url,
            routes_version=gateway.routes_version,
            acknowledged=gateway.routes_version >= newest,
            last_report_at=gateway.reported_at,
            records_waiting=gateway.records_waiting,
            records_dropped=gateway.records_dropped,
        )
        for gateway in parts.runtime.gateways()
    )
    first = processes[0] if processes else None
    return GatewaySummary(
        url=first.url if first else parts.about.gateway_url,
        pid=first.pid if first else None,
        state="running" if first else "away",
        processes=processes,
    )
