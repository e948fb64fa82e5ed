"""The routes of registered versions over a real registry."""

from collections.abc import AsyncIterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from modelyard.api.app import create_app
from modelyard.api.messages import AliasHistory, Family, ModelDetails, ModelPage
from modelyard.api.parts import About, ApiParts, Runtime
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry
from modelyard.registry.versions import Recipe
from modelyard.state.store import Store, open_sqlite


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    one = Registry(tmp_path_factory.mktemp("registered"))
    origin = Origin(parent="y:1", recipe=Recipe(kind="finetune", seed=7), metrics={"accuracy": 0.5})
    with as_file(files("modelyard.demo") / "yardling") as source:
        one.register("y", source / "1")
        one.register("y", source / "2", origin=origin)
    return one


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = open_sqlite(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
async def api(registry: Registry, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    about = About(url="", gateway_url="", pid=1, version="1", started_at=1.0, home="/home")
    app = create_app(
        ApiParts(
            token="token",
            about=about,
            store=store,
            registry=registry,
            choose_engine=lambda _facts, _wanted: "fake",
            check_schema=lambda _test: None,
            accelerators=lambda: 0,
            refuse=lambda _version: None,
            runtime=cast("Runtime", None),
            wake=lambda: None,
            announce_keys=lambda: None,
            clock=lambda: 5.0,
        )
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": "Bearer token"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


async def test_versions_come_in_pages(api: httpx.AsyncClient) -> None:
    answer = await api.get("/api/models", params={"limit": 1})
    first = ModelPage.model_validate_json(answer.content)
    second = ModelPage.model_validate_json(
        (await api.get("/api/models", params={"name": "y", "after": first.next})).content
    )

    assert [(model.name, model.version) for model in first.models] == [("y", 2)]
    assert (first.total, first.next) == (2, "y:2")
    assert [model.version for model in second.models] == [1]
    assert second.next is None
    assert first.models[0].facts.architecture == "Qwen3ForCausalLM"


async def test_a_version_shows_its_files_and_lineage(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    digest = registry.get("y:1").digest
    for ref in ("y:1", f"y@{digest}"):
        shown = ModelDetails.model_validate_json((await api.get(f"/api/models/{ref}")).content)
        assert shown.model.digest == digest
    child = ModelDetails.model_validate_json((await api.get("/api/models/y")).content)
    family = Family.model_validate_json((await api.get("/api/models/y:1/lineage")).content).family

    assert shown.children == ("y:2",)
    assert "model.safetensors" in {file.path for file in shown.files}
    assert child.recipe is not None
    assert (child.model.parent, child.recipe.seed) == (digest, 7)
    assert [(member.versions, member.asked) for member in family] == [
        (("y:1",), True),
        (("y:2",), False),
    ]


async def test_an_alias_is_moved_and_its_history_told(
    api: httpx.AsyncClient, store: Store, registry: Registry
) -> None:
    for version in (1, 2):
        wish = {"version": version, "reason": f"version {version} is better"}
        moved = await api.put("/api/models/y/aliases/production", json=wish)
        assert moved.status_code == 200, moved.text

    told = AliasHistory.model_validate_json((await api.get("/api/models/y/history")).content)
    assert [(move.alias, move.version) for move in told.moves] == [
        ("production", 1),
        ("production", 2),
    ]
    assert told.moves[1].reason == "version 2 is better"
    assert told.aliases == {"production": 2}
    assert registry.get("y@production").version == 2
    assert [event.kind for event in store.events.after(0, 9)] == ["alias.moved"] * 2


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/api/models/z", 404, "there is y"),
        ("GET", "/api/models/y:9", 404, "there is y:1, y:2"),
        ("GET", "/api/models?name=z", 404, "there is y"),
        ("GET", "/api/models?limit=0", 400, "limit"),
        ("GET", "/api/models?after=y", 400, "begin after"),
        ("GET", "/api/models/z/history", 404, "there is y"),
        ("PUT", "/api/models/y/aliases/v3", 400, "alias"),
        ("PUT", "/api/models/y:1/aliases/best", 400, "name"),
    ],
)
async def test_what_is_wrong_is_named(
    api: httpx.AsyncClient, method: str, path: str, status: int, words: str
) -> None:
    json = {"version": 1} if method == "PUT" else None
    answer = await api.request(method, path, json=json)

    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


async def test_the_token_is_needed(api: httpx.AsyncClient) -> None:
    api.headers["Authorization"] = "Bearer wrong"
    assert (await api.get("/api/models")).status_code == 401
