"""However a request ends: one record, and no count that stays (promise G3)."""

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from tests.gateway.rig import Engine, Rig, StartRig, chat, eventually

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 1000}


class End:
    """A request, and how it ends."""

    def __init__(
        self, body: Any, outcome: str, status: int, path: str = CHAT, key: str = "sk-alice"
    ) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.outcome = outcome
        self.status = status
        self.path = path
        self.headers = {"authorization": f"Bearer {key}"}


def _streamed(text: str, **fields: Any) -> dict[str, Any]:
    return chat(text, stream=True, **fields)


ENDS = {
    "whole": End(chat("x", max_tokens=9), "completed", 200),
    "streamed": End(_streamed("x", max_tokens=9), "completed", 200),
    "simple": End({"prompt": "x", "max_length": 9}, "completed", 200, "/generate"),
    "embedded": End({"model": "m", "input": "x"}, "completed", 200, "/v1/embeddings"),
    "refused by the engine": End(chat("[[fake: status=422]]"), "rejected", 422),
    "engine fails": End(chat("[[fake: status=500]]"), "failed", 502),
    "engine busy": End(chat("[[fake: status=429]]"), "failed", 503),
    "connection reset": End(_streamed("[[fake: refuse]]"), "failed", 502),
    "no answer at all": End(chat("[[fake: garbage=html]]"), "failed", 502),
    "not HTTP": End(_streamed("[[fake: garbage=chunk]]"), "failed", 502),
    "cut": End(chat("[[fake: truncate_after=3]]"), "failed", 502),
    "cut in mid-stream": End(_streamed("[[fake: truncate_after=3]]"), "failed", 502),
    "no first token": End(_streamed("[[fake: hang]]"), "failed", 504),
    "stalled in mid-stream": End(_streamed("[[fake: stall_after=3]]"), "failed", 504),
    "over its time": End(chat("[[fake: tokens=1000]]", **LONG), "failed", 504),
    "over its time, streamed": End(_streamed("[[fake: tokens=1000]]", **LONG), "failed", 504),
    "no such model": End(chat("x", model="gone"), "rejected", 404),
    "no such model, simple": End({"prompt": "x", "model_name": "z"}, "rejected", 404, "/generate"),
    "not JSON": End(b"{", "rejected", 400),
    "too large for the model": End(chat("x" * 6000), "rejected", 413),
    "over the limit": End(chat("x", max_tokens=90_000), "rejected", 429),
    "nobody's key": End(chat("x"), "rejected", 401, key="sk-nobody"),
    "a key for other models": End(chat("x"), "rejected", 403, key="sk-bob"),
    "not done by the engine": End({"model": "m", "input": "x"}, "rejected", 501, "/v1/responses"),
}


IMPATIENT = {"first_token_s": 0.4, "gap_s": 0.4, "total_s": 0.8}


def config(engines: list[Engine], timeouts: dict[str, float]) -> dict[str, Any]:
    bounds = {"concurrent_requests": 50, "tokens_per_min": 50_000}
    model = {
        "name": "m", "upstreams": [{"url": engine.url} for engine in engines],
        "operations": ["chat", "completions", "embeddings"], "max_body_bytes": 5000,
        "retries": {"max_attempts": 2, "backoff_base_s": 0.001}, "limits": bounds,
        "timeouts": timeouts,
        "queueing": {"max_waiting": 5, "deadline_s": 0.3},
    }  # fmt: skip
    keys = [{"id": "alice", "secret_env": "ALICE", "limits": bounds},
            {"id": "bob", "secret_env": "BOB", "models": []}]  # fmt: skip
    return {"models": [model], "keys": keys}


SECRETS = {"ALICE": "sk-alice", "BOB": "sk-bob"}


async def _nothing_stays(rig: Rig, engines: list[Engine]) -> None:
    await rig.until_at_rest()
    assert await rig.metric("modelyard_requests_waiting") == 0
    for engine in engines:
        await engine.until_idle()
    for limit in (await rig.admin("/admin/limits?key=alice&model=m"))["limits"]:
        if limit["kind"] == "concurrent_requests":
            assert limit["used"] == 0


async def _ask(rig: Rig, end: End) -> int:
    """The status; of a stream that was cut too."""
    async with rig.client.stream("POST", end.path, content=end.body, headers=end.headers) as reply:
        with contextlib.suppress(httpx.RemoteProtocolError):
            await reply.aread()
        return reply.status_code


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_every_end_is_one_record_and_no_count_stays(
    start_alone: StartRig, engines: list[Engine], end: End
) -> None:
    rig: Rig = await start_alone(config(engines, IMPATIENT if end.status == 504 else {}), SECRETS)

    status = await _ask(rig, end)

    (record,) = await eventually(rig.log, lambda found: len(found) == 1)
    assert (record.outcome, record.status) == (end.outcome, end.status)
    assert status in (end.status, 200)
    await _nothing_stays(rig, engines)


async def test_all_ends_at_once_leave_no_count_behind(
    start_alone: StartRig, engines: list[Engine]
) -> None:
    rig: Rig = await start_alone(config(engines, IMPATIENT), SECRETS)
    leaving = [asyncio.create_task(_ask(rig, ENDS[name])) for name in
               ("over its time", "no first token", "stalled in mid-stream")]  # fmt: skip
    await eventually(lambda: rig.metric("modelyard_requests_in_flight"), lambda count: count == 3)
    for task in leaving:
        task.cancel()

    await asyncio.gather(*(_ask(rig, end) for end in ENDS.values()))

    await _nothing_stays(rig, engines)
    records = await eventually(rig.log, lambda found: len(found) == len(ENDS) + 3)
    assert len({record.request_id for record in records}) == len(records)
    assert [r.outcome for r in records].count("cancelled") == 3
