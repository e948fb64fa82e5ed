"""Keys over the management API: shown once, kept as a hash, every change in the log (S8)."""

import httpx
import msgspec
import pytest

from modelyard.core.keyring import secret_hash
from modelyard.core.keys import KeyPut, KeyRevoked
from modelyard.core.records import RequestRecord
from modelyard.state.store import Store

from .test_app import Runtime, api, error, registry, runtime, store

__all__ = ["api", "registry", "runtime", "store"]


async def make(api: httpx.AsyncClient, **wish: object) -> dict[str, object]:
    reply = await api.post("/api/keys", json=wish)
    assert reply.status_code == 201, reply.text
    made: dict[str, object] = reply.json()
    return made


async def test_a_secret_is_shown_once_and_kept_as_a_hash(
    api: httpx.AsyncClient, store: Store, runtime: Runtime
) -> None:
    limits = {"limits": {"requests_per_min": 60}, "limits_by_model": {"m": {"tokens_per_day": 9}}}
    made = await make(api, tenant="blue", name="nightly", models=["m"], priority="low", **limits)

    secret = str(made["secret"])
    assert secret.startswith("sk-my-")
    assert len(secret) >= 49
    (entry,) = store.keys.after(0)
    assert isinstance(entry, KeyPut)
    assert entry.secret_sha256 == secret_hash(secret)
    assert secret not in msgspec.json.encode(entry).decode()
    assert runtime.announced == 1
    listed = (await api.get("/api/keys")).json()
    assert listed == {"keys": [made["key"]]}
    assert secret not in str(listed)
    assert entry.secret_sha256 not in str(listed)
    assert made["key"]["limits"] == [  # type: ignore[index]
        {"kind": "requests_per_min", "amount": 60.0, "model": None},
        {"kind": "tokens_per_day", "amount": 9.0, "model": "m"},
    ]
    events = (await api.get("/api/events")).json()["events"]
    assert events[-1]["kind"] == "key.created"
    assert secret not in str(events)


async def test_keys_are_revoked_and_rotated(api: httpx.AsyncClient, store: Store) -> None:
    first = await make(api, key_id="a", tenant="blue", limits={"requests_per_min": 5})
    rotated = (await api.post("/api/keys/a/rotate", json={"grace_s": 60})).json()

    assert rotated["secret"] != first["secret"]
    assert rotated["key"]["limits"] == first["key"]["limits"]  # type: ignore[index]
    entry = store.keys.after(1)[0]
    assert isinstance(entry, KeyPut)
    assert entry.former_sha256 == secret_hash(str(first["secret"]))
    assert entry.former_until == 65.0
    assert (await api.delete("/api/keys/a")).status_code == 204
    assert store.keys.after(2) == (KeyRevoked(seq=3, at=5.0, key_id="a"),)
    assert (await api.get("/api/keys")).json() == {"keys": []}
    for method, path in (("DELETE", "/api/keys/a"), ("POST", "/api/keys/a/rotate")):
        reply = await api.request(method, path, json={})
        assert reply.status_code == 404
        assert "modelyard keys list" in error(reply)["next_step"]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"tenant": "not a name"}, "'not a name' is not allowed"),
        ({"limits": {"requests_per_hour": 5}}, "there is no limit 'requests_per_hour'"),
        ({"limits": {"cost_per_day": 5}}, "cost_per_day needs prices"),
        ({"limits_by_model": {"m": {"cost_per_month": 5}}}, "'m' has none"),
        ({"limits": {"cost_per_day": -5}}, "money over 0"),
        ({"limits": {"requests_per_min": 0}}, "whole number over 0"),
        ({"limits": {"tokens_per_min": 1.5}}, "whole number over 0"),
        ({"expires_at": 4.0}, "expired already"),
        ({"priority": "urgent"}, "priority"),
        ({"secret": "mine"}, "secret"),
        ({"key_id": "a/b"}, "not allowed"),
    ],
)
async def test_what_can_not_be_held_is_not_made(
    api: httpx.AsyncClient, store: Store, wish: dict[str, object], said: str
) -> None:
    reply = await api.post("/api/keys", json=wish)
    assert reply.status_code in (400, 422)
    assert said in error(reply)["message"]
    assert store.keys.last_seq() == 0


async def test_an_id_is_given_once(api: httpx.AsyncClient) -> None:
    await make(api, key_id="a")
    reply = await api.post("/api/keys", json={"key_id": "a"})
    assert reply.status_code == 409


async def test_tenants_and_models_have_limits_of_their_own(
    api: httpx.AsyncClient, store: Store
) -> None:
    await make(api, tenant="blue")
    await make(api, tenant="blue")
    assert (
        await api.put("/api/tenants/blue", json={"limits": {"tokens_per_day": 1000}})
    ).is_success
    assert (await api.put("/api/limits/m", json={"limits": {"concurrent_requests": 8}})).is_success
    nested = await api.put("/api/limits/m", json={"limits_by_model": {"n": {"tokens_per_min": 5}}})
    assert nested.status_code == 400
    (tenant,) = (await api.get("/api/tenants")).json()["tenants"]
    assert (tenant["tenant"], tenant["keys"]) == ("blue", 2)
    assert tenant["limits"][0]["kind"] == "tokens_per_day"
    assert (await api.delete("/api/tenants/blue")).status_code == 204
    assert (await api.get("/api/keys")).json() == {"keys": []}
    assert (await api.delete("/api/tenants/blue")).status_code == 404
    assert store.keys.last_seq() == 5


async def test_usage_and_requests_are_told(
    api: httpx.AsyncClient, store: Store, runtime: Runtime
) -> None:
    record = RequestRecord(
        request_id="req-1", gateway="g", received_at=4.0, operation="chat", stream=False,
        outcome="completed", status=200, e2e_s=0.1, tenant="blue", key_id="a", model="m",
        prompt_tokens=3, completion_tokens=4,
    )  # fmt: skip
    store.records.add([record])
    (row,) = (await api.get("/api/usage?days=1&tenant=blue")).json()["usage"]
    assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (1, 3, 4)
    assert (await api.get("/api/usage?tenant=red")).json() == {"usage": []}

    told = (await api.get("/api/requests/req-1")).json()
    assert told["record"]["tenant"] == "blue"
    assert told["decisions"] == []
    runtime.remembered["req-1"] = {
        "record": {"request_id": "req-1"},
        "decisions": [{"decided": "x"}],
    }
    assert (await api.get("/api/requests/req-1")).json()["decisions"] == [{"decided": "x"}]
    assert (await api.get("/api/requests/none")).status_code == 404
