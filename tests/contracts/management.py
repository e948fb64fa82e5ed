"""The management API's messages: a full status as an example, and the schema of every message."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from modelyard.api import messages
from modelyard.core.deployments import DeploymentState
from modelyard.core.replicas import ReplicaState

DIGEST = "sha256:" + "ab" * 32

STATUS = messages.Status(
    gateway=messages.GatewaySummary(
        url="http://127.0.0.1:8000",
        pid=4242,
        state="running",
        processes=(
            messages.GatewayView(
                id="gateway-1",
                pid=4242,
                url="http://127.0.0.1:8000",
                routes_version=42,
                acknowledged=True,
                last_report_at=1790000010.0,
                records_waiting=0,
                records_dropped=0,
            ),
        ),
    ),
    controller=messages.ControllerView(
        url="http://127.0.0.1:8001",
        pid=4241,
        version="0.1.0",
        started_at=1790000000.0,
        home="/home/me/.local/share/modelyard",
        routes_version=42,
    ),
    deployments=(
        messages.DeploymentView(
            name="assistant",
            model="yardling",
            version=1,
            digest=DIGEST,
            engine="llamacpp",
            state=DeploymentState.MOVING,
            live="blue",
            incoming="green",
            incoming_version=2,
            replicas_wanted=1,
            replicas_ready=1,
            generation=3,
            default=True,
            message="",
            created_at=1789990000.0,
        ),
    ),
    replicas=(
        messages.ReplicaView(
            id="assistant-blue-1",
            deployment="assistant",
            version=1,
            digest=DIGEST,
            slot="blue",
            state=ReplicaState.READY,
            engine="llamacpp",
            launcher="process",
            pid=4243,
            url="http://127.0.0.1:40001",
            created_at=1790000000.0,
            ready_at=1790000002.0,
            error="",
            in_flight=1,
        ),
    ),
)
DEPLOY_REQUEST = messages.DeployRequest(
    ref="yardling:1",
    as_name="assistant",
    engine="llamacpp",
    replicas=2,
    parallel=8,
    context_length=2048,
    threads=2,
    extra_args=("--flash-attn",),
    default=True,
)
MESSAGES: dict[str, BaseModel] = {
    "management.status": STATUS,
    "management.deploy_request": DEPLOY_REQUEST,
}


def schema() -> dict[str, Any]:
    """JSON schema of every public message of the management API."""
    public = sorted(
        (
            found
            for name, found in vars(messages).items()
            if isinstance(found, type)
            and issubclass(found, BaseModel)
            and found.__module__ == messages.__name__
            and not name.startswith("_")
        ),
        key=lambda model: model.__name__,
    )
    _, definitions = models_json_schema([(model, "serialization") for model in public])
    return definitions
