"""The management API over a real store and a real registry, without a reconcile loop."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from modelyard.api.app import create_app
from modelyard.api.parts import About, ApiParts
from modelyard.control.smoke import check_schema
from modelyard.core.deployments import Deployment, Replica
from modelyard.core.errors import Unsupported, Untrusted
from modelyard.core.facts import ModelFacts
from modelyard.core.gateways import GatewayFacts
from modelyard.core.home import Home
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Rollout
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion
from modelyard.state.store import Store, open_sqlite

TOKEN = "the-admin-token"
GATEWAY = GatewayFacts(
    id="g",
    pid=7,
    url="http://127.0.0.1:8000",
    reported_at=1.0,
    routes_version=2,
    in_flight={"chat-blue-1": 3},
)


class Runtime:
    """What a controller would know."""

    def __init__(self) -> None:
        self.known: tuple[GatewayFacts, ...] = (GATEWAY,)
        self.woken = 0
        self.distrusts = False
        self.announced = 0
        self.remembered: dict[str, Mapping[str, Any]] = {}

    def gateways(self) -> tuple[GatewayFacts, ...]:
        return self.known

    def in_flight(self) -> Mapping[str, int]:
        return {"chat-blue-1": 3}

    def routes_version(self) -> int:
        return 2

    def explanation(self, request_id: str) -> Mapping[str, Any] | None:
        return self.remembered.get(request_id)

    def waits_for(self, rollout: Rollout) -> str:
        return f"{rollout.id} waits"

    def told(self, rollout: Rollout) -> Rollout:
        return rollout

    def logs(self, deployment: str, lines: int) -> Mapping[str, Sequence[str]]:
        return {f"{deployment}-blue-1": ["first", "last"][-lines:]}

    def refuse(self, version: ModelVersion) -> None:
        if self.distrusts:
            raise Untrusted(f"{version} is not signed")

    def announce(self) -> None:
        self.announced += 1

    def wake(self) -> None:
        self.woken += 1


def choose(facts: ModelFacts, wanted: str | None) -> str:
    if wanted == "none-such":
        raise Unsupported("no engine runs this model")
    return wanted or f"engine-for-{facts.format}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    one = Registry(Home(tmp_path_factory.mktemp("registered")))
    with as_file(files("modelyard.demo") / "yardling" / "1") as source:
        one.register("yardling", source)
    return one


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_sqlite(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
async def api(
    store: Store, registry: Registry, runtime: Runtime
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        ApiParts(
            token=TOKEN,
            about=About(
                url="http://127.0.0.1:8001",
                gateway_url="http://127.0.0.1:8000",
                pid=9,
                version="1",
                started_at=1.0,
                home="/home",
            ),
            store=store,
            registry=registry,
            choose_engine=choose,
            check_schema=check_schema,
            accelerators=lambda: 0,
            refuse=runtime.refuse,
            runtime=runtime,
            wake=runtime.wake,
            announce_keys=runtime.announce,
            clock=lambda: 5.0,
        )
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


def error(response: httpx.Response) -> dict[str, Any]:
    told: dict[str, Any] = response.json()["error"]
    assert set(told) == {"message", "type", "code", "param", "next_step"}
    return told


async def test_everything_but_health_needs_the_token(api: httpx.AsyncClient) -> None:
    api.headers["Authorization"] = "Bearer wrong"
    assert (await api.get("/health")).json() == {"status": "ok"}
    for method, path in (
        ("GET", "/api/status"),
        ("POST", "/api/deployments"),
        ("GET", "/api/nothing"),
    ):
        refused = await api.request(method, path, content=b"{")
        assert refused.status_code == 401
        assert error(refused)["code"] == "invalid_api_key"


async def test_a_deployment_is_asked_for(
    api: httpx.AsyncClient, store: Store, runtime: Runtime
) -> None:
    answer = await api.post("/api/deployments", json={"ref": "yardling:1", "as_name": "chat"})
    assert answer.status_code == 202
    view = answer.json()
    assert (view["name"], view["model"], view["version"]) == ("chat", "yardling", 1)
    assert (view["state"], view["incoming"], view["generation"]) == ("starting", "blue", 1)
    assert view["engine"] == "engine-for-safetensors"
    assert view["default"]
    assert runtime.woken == 1
    kept = store.deployments.get("chat")
    assert kept
    assert kept.blue
    assert kept.blue.digest == view["digest"]
    again = await api.post("/api/deployments", json={"ref": "yardling:1", "as_name": "chat"})
    assert again.status_code == 200
    assert "nothing changed" in again.json()["message"]
    other = {"ref": "yardling:1", "as_name": "chat", "engine": "other"}
    refused = await api.post("/api/deployments", json=other)
    assert refused.status_code == 409
    assert "moving to yardling:1" in error(refused)["message"]
    journal = (await api.get("/api/events")).json()["events"]
    assert [event["kind"] for event in journal] == ["deployment.asked"]


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"ref": "nobody:1"}, 404, None, "nobody"),
        ({"ref": "yardling:x"}, 400, "ref", "not a version number"),
        ({"ref": "yardling:1", "replcas": 2}, 400, "replcas", "replcas"),
        ({"ref": "yardling:1", "replicas": 0}, 400, "replicas", "replicas"),
        ({"ref": "yardling:1", "as_name": "../x"}, 400, "name", "not allowed"),
        ({"ref": "yardling:1", "engine": "none-such"}, 501, None, "no engine"),
        ({}, 400, "ref", "ref"),
    ],
)
async def test_a_bad_wish_names_what_is_wrong(
    api: httpx.AsyncClient, body: dict[str, object], status: int, param: str | None, words: str
) -> None:
    refused = await api.post("/api/deployments", json=body)
    assert refused.status_code == status
    told = error(refused)
    assert words in told["message"]
    if param:
        assert told["param"] == param
    assert (await api.get("/api/deployments")).json() == {"deployments": []}


async def test_errors_of_the_protocol_have_the_form_too(api: httpx.AsyncClient) -> None:
    json = {"content-type": "application/json"}
    broken = await api.post("/api/deployments", content=b"{not json", headers=json)
    assert (broken.status_code, error(broken)["message"]) == (400, "the body is not JSON")
    missing = await api.get("/api/nothing")
    assert (missing.status_code, error(missing)["code"]) == (404, "not_found")
    wrong = await api.put("/api/deployments")
    assert wrong.status_code == 405
    assert error(wrong)
    unknown = await api.get("/api/deployments/chat")
    assert unknown.status_code == 404
    assert "there are: none" in error(unknown)["message"]


async def test_a_fault_of_ours_tells_no_secrets(api: httpx.AsyncClient, store: Store) -> None:
    store.close()
    store.deployments.all = _fail  # type: ignore[method-assign]
    failed = await api.get("/api/deployments")
    assert failed.status_code == 500
    assert "the-secret" not in failed.text
    assert error(failed)["next_step"]


def _fail() -> list[Deployment]:
    raise RuntimeError("the-secret")


async def test_the_status_shows_what_runs(
    api: httpx.AsyncClient, store: Store, runtime: Runtime
) -> None:
    await api.post("/api/deployments", json={"ref": "yardling:1", "as_name": "chat"})
    replica = Replica(
        id="chat-blue-1",
        deployment="chat",
        slot="blue",
        version=1,
        digest="sha256:1",
        engine="fake",
        launcher="process",
        state=ReplicaState.READY,
        pid=11,
        created_at=1.0,
        changed_at=1.0,
        ready_at=2.0,
        generation=1,
    )
    store.replicas.put(replica)
    store.deployments.change(
        "chat", lambda d: d and msgspec.structs.replace(d, live="blue", rollout=None)
    )
    status = (await api.get("/api/status")).json()
    assert status["deployments"][0]["state"] == "live"
    assert status["replicas"][0]["in_flight"] == 3
    assert status["gateway"] | {"processes": None} == {
        "url": "http://127.0.0.1:8000",
        "pid": 7,
        "state": "running",
        "processes": None,
    }
    assert status["gateway"]["processes"][0]["acknowledged"]
    runtime.known = ()
    assert (await api.get("/api/status")).json()["gateway"] == {
        "url": "http://127.0.0.1:8000",
        "pid": None,
        "state": "away",
        "processes": [],
    }


async def test_a_deployment_is_taken_away(api: httpx.AsyncClient, store: Store) -> None:
    await api.post("/api/deployments", json={"ref": "yardling:1", "as_name": "chat"})
    gone = await api.delete("/api/deployments/chat")
    assert (gone.status_code, gone.json()["state"]) == (202, "stopping")
    assert store.meta.default_model() is None
    assert (await api.delete("/api/deployments/other")).status_code == 404


async def test_the_default_model_is_one_that_is_deployed(
    api: httpx.AsyncClient, store: Store
) -> None:
    for name in ("one", "two"):
        await api.post("/api/deployments", json={"ref": "yardling:1", "as_name": name})
    assert store.meta.default_model() == "one"
    assert (await api.put("/api/default-model", json={"name": "two"})).status_code == 204
    assert store.meta.default_model() == "two"
    assert (await api.put("/api/default-model", json={"name": "three"})).status_code == 404
