"""Rollouts over the management API: planned, refused, steered, listed."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from modelyard.core.deployments import Deployment, Replica
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase, Rollout, Signal, move
from modelyard.state.store import Store

from .test_app import Runtime, api, error, registry, runtime, store

__all__ = ["api", "registry", "runtime", "store"]
WISH = {"ref": "yardling:1", "as_name": "chat"}


def _change(store: Store, change: Callable[[Rollout], Rollout]) -> None:
    """What the reconcile loop would do."""

    def step(present: Deployment | None) -> Deployment | None:
        assert present
        assert present.rollout
        return present.with_rollout(change(present.rollout))

    store.deployments.change("chat", step)


def _live(store: Store) -> None:
    for happened in (Signal.READY, Signal.PASSED, Signal.STEPS_OVER, Signal.ACKNOWLEDGED,
                     Signal.BAKED, Signal.DRAINED):  # fmt: skip
        _change(store, lambda rollout, happened=happened: move(rollout, happened, "", 6.0))  # type: ignore[misc]


async def test_a_first_version_is_asked_what_the_model_is_known_to_answer(
    api: httpx.AsyncClient,
) -> None:
    await api.post("/api/deployments", json=WISH)
    rollout = (await api.get("/api/rollouts/chat-1")).json()

    assert [test["name"] for test in rollout["plan"]["smoke"]] == ["it greets", "it adds"]
    assert (rollout["phase"], rollout["version"]) == ("launching", "yardling:1")
    assert (rollout["version_before"], rollout["waits_for"]) == ("", "chat-1 waits")


async def test_a_plan_is_told_and_nothing_is_started(api: httpx.AsyncClient, store: Store) -> None:
    await api.post("/api/deployments", json=WISH)
    _live(store)
    wish = {**WISH, "replicas": 2, "engine": "other", "plan": {"strategy": "canary"}}
    told = (await api.post("/api/deployments/plan", json=wish)).json()

    assert (told["version"], told["version_before"]) == ("yardling:1", "yardling:1")
    assert told["replicas_at_peak"] == 3
    assert any("5% for 60 s" in step for step in told["steps"])
    assert any("smoke test it adds" in gate for gate in told["gates"])
    assert [each["id"] for each in (await api.get("/api/rollouts")).json()["rollouts"]] == [
        "chat-1"
    ]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"stratgy": "canary"}, "stratgy"),
        ({"strategy": "big-bang"}, "big-bang"),
        ({"strategy": "canary", "steps": [{"share": 0.5}, {"share": 0.1}]}, "do not grow"),
        ({"strategy": "canary", "steps": [{"share": 1.0}]}, "leaves nothing to compare"),
        ({"strategy": "canary", "steps": [{"share": 0}]}, "tries nothing"),
        ({"steps": [{"share": 0.1}]}, "blue-green has no steps"),
        ({"smoke": [{"prompt": "?", "regex": "("}]}, "can't be read"),
        ({"smoke": [{"prompt": "?", "json_schema": {"type": "thing"}}]}, "JSON schema is none"),
        ({"smoke": [{"prompt": ""}]}, "smoke[0].prompt"),
        ({"bake_s": -1}, "bake_s"),
        ({"canary": {"alpha": 0}}, "no chance between 0 and 1"),
        ({"canary": {"judge": "gpt/help/1"}}, "canary.watch does not name quality"),
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused(
    api: httpx.AsyncClient, plan: dict[str, Any], words: str
) -> None:
    refused = await api.post("/api/deployments", json={**WISH, "plan": plan})

    assert refused.status_code == 400
    assert words in error(refused)["message"]
    assert (await api.get("/api/rollouts")).json() == {"rollouts": []}


async def test_what_nobody_trusts_is_refused_before_anything_starts(
    api: httpx.AsyncClient, runtime: Runtime
) -> None:
    runtime.distrusts = True
    refused = await api.post("/api/deployments", json=WISH)

    assert refused.status_code == 403
    assert "not signed" in error(refused)["message"]
    assert (await api.get("/api/deployments")).json() == {"deployments": []}


async def test_a_rollout_is_steered(api: httpx.AsyncClient, store: Store) -> None:
    await api.post("/api/deployments", json=WISH)
    nothing = await api.post("/api/deployments/chat/promote")
    assert nothing.status_code == 409
    assert "nothing to promote" in error(nothing)["message"]

    paused = (await api.post("/api/deployments/chat/pause")).json()
    assert paused["rollout"]["paused"]
    assert not (await api.post("/api/deployments/chat/resume")).json()["rollout"]["paused"]
    again = await api.post("/api/deployments/chat/resume")
    assert "not paused" in error(again)["message"]
    aborted = (await api.post("/api/deployments/chat/abort")).json()
    assert (aborted["rollout"]["phase"], aborted["state"]) == ("undoing", "failed")
    assert "by admin" in aborted["message"]
    kinds = [event["kind"] for event in (await api.get("/api/events")).json()["events"]]
    assert kinds == ["deployment.asked", "rollout.pause", "rollout.resume", "rollout.abort"]
    assert (await api.post("/api/deployments/chat/explode")).status_code == 400


async def test_going_back_is_at_once_while_the_version_before_stands_by(
    api: httpx.AsyncClient, store: Store
) -> None:
    await api.post("/api/deployments", json=WISH)
    _live(store)
    nothing = await api.post("/api/deployments/chat/rollback")
    assert nothing.status_code == 409
    assert "nothing to go back to: chat serves yardling:1" in error(nothing)["message"]

    await api.post("/api/deployments", json={**WISH, "engine": "other"})
    for happened in (Signal.READY, Signal.PASSED, Signal.STEPS_OVER, Signal.ACKNOWLEDGED):
        _change(store, lambda rollout, happened=happened: move(rollout, happened, "", 7.0))  # type: ignore[misc]
    assert (await api.get("/api/deployments/chat")).json()["live"] == "green"
    back = (await api.post("/api/deployments/chat/rollback")).json()
    assert (back["live"], back["rollout"]["phase"]) == ("blue", "undoing")


async def test_going_back_later_is_a_rollout_of_the_version_before(
    api: httpx.AsyncClient, store: Store
) -> None:
    await api.post("/api/deployments", json=WISH)
    _live(store)
    await api.post("/api/deployments", json={**WISH, "engine": "other"})
    _live(store)
    back = (await api.post("/api/deployments/chat/rollback")).json()

    assert (back["live"], back["incoming"]) == ("green", "blue")
    assert (back["rollout"]["id"], back["rollout"]["phase"]) == ("chat-3", "launching")
    rollouts = (await api.get("/api/rollouts", params={"deployment": "chat"})).json()["rollouts"]
    assert {each["id"]: each["phase"] for each in rollouts} == {
        "chat-3": "launching", "chat-2": "done", "chat-1": "done",
    }  # fmt: skip


async def test_the_last_lines_of_the_workers(api: httpx.AsyncClient, store: Store) -> None:
    await api.post("/api/deployments", json=WISH)
    store.replicas.put(
        Replica(
            id="chat-blue-1", deployment="chat", slot="blue", version=1, digest="sha256:1",
            engine="fake", launcher="process", state=ReplicaState.STOPPED, created_at=1.0,
            changed_at=1.0,
        )
    )  # fmt: skip
    [log] = (await api.get("/api/deployments/chat/logs", params={"lines": 1})).json()["logs"]

    assert (log["replica"], log["state"], log["lines"]) == ("chat-blue-1", "stopped", ["last"])


async def test_an_unknown_rollout_names_the_newest(api: httpx.AsyncClient) -> None:
    await api.post("/api/deployments", json=WISH)
    unknown = await api.get("/api/rollouts/chat-9")

    assert unknown.status_code == 404
    assert "chat-1" in error(unknown)["message"]
    assert Phase.LAUNCHING in (await api.get("/api/rollouts/chat-1")).text


async def test_a_next_version_keeps_the_number_of_replicas(
    api: httpx.AsyncClient, store: Store
) -> None:
    await api.post("/api/deployments", json={**WISH, "replicas": 3})
    _live(store)
    kept = (await api.post("/api/deployments/plan", json={**WISH, "engine": "other"})).json()
    fewer = {**WISH, "engine": "other", "replicas": 1}

    assert kept["replicas"] == 3
    assert (await api.post("/api/deployments/plan", json=fewer)).json()["replicas"] == 1
