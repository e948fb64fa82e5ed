"""The management API's messages: a full status as an example, and the schema of every message."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from modelyard.api import messages
from modelyard.core.deployments import DeploymentState
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase

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
            rollout=messages.RolloutBrief(
                id="assistant-3",
                version="yardling:2",
                strategy="canary",
                phase=Phase.STEPPING,
                step=1,
                steps=3,
                share=0.25,
                paused=True,
                reason="",
                waits_for="step 2 of 3, 25%, 40 s more",
            ),
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
    launcher="docker",
    image="modelyard:1",
    pull="never",
    cpus=(0, 1),
    memory_bytes=4_000_000_000,
    replicas=2,
    accelerators_per_replica=1,
    parallel=8,
    context_length=2048,
    threads=2,
    extra_args=("--flash-attn",),
    default=True,
)
MODEL = messages.ModelView(
    name="yardling",
    version=2,
    digest=DIGEST,
    aliases=("production",),
    parent="sha256:" + "cd" * 32,
    facts=messages.FactsView(
        format="safetensors",
        architecture="Qwen3ForCausalLM",
        parameters=1312768,
        dtype="F16",
        size_bytes=2694370,
        context_length=1024,
        vocabulary_size=1024,
        chat_template=True,
        licence="apache-2.0",
    ),
    metrics={"accuracy": 0.967},
    size_bytes=2694370,
    created_at=1789980000.0,
    quarantined="",
)
MODEL_PAGE = messages.ModelPage(models=(MODEL,), total=2, next="yardling:2")
MODEL_DETAILS = messages.ModelDetails(
    model=MODEL,
    recipe=messages.RecipeView(
        kind="finetune",
        tool="trl 1.0",
        options={"epochs": 3, "packing": True},
        seed=7,
        data_digest="sha256:" + "ef" * 32,
    ),
    children=("yardling-small:1",),
    files=(
        messages.FileView(path="model.safetensors", sha256="12" * 32, size_bytes=2632696),
        messages.FileView(path="config.json", sha256="34" * 32, size_bytes=920),
    ),
)
ALIAS_HISTORY = messages.AliasHistory(
    name="yardling",
    aliases={"production": 2},
    moves=(
        messages.AliasMoveView(
            at=1789990000.0,
            alias="production",
            version=2,
            actor="user:me",
            reason="better sums",
            origin="modelyard",
        ),
    ),
    warnings=(),
)
MESSAGES: dict[str, BaseModel] = {
    "management.status": STATUS,
    "management.deploy_request": DEPLOY_REQUEST,
    "management.model_page": MODEL_PAGE,
    "management.model_details": MODEL_DETAILS,
    "management.alias_history": ALIAS_HISTORY,
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
