"""Judges over the management API: what they may say, and where it is shown."""

from typing import Any

import httpx
import msgspec
import pytest

from modelyard.core.records import RequestRecord
from modelyard.state.store import Store

from .test_app import api, error, registry, runtime, store

__all__ = ["api", "registry", "runtime", "store"]
JUDGE = "gpt-x/helpful/3"
SAID = {"request_id": "q1", "judge": JUDGE, "score": 0.75}
RECORD = RequestRecord(
    request_id="q1", gateway="g", received_at=4.0, operation="chat", stream=False,
    outcome="completed", status=200, e2e_s=0.1, model="chat", digest="sha256:1",
)  # fmt: skip


async def _post(api: httpx.AsyncClient, *scores: dict[str, Any]) -> httpx.Response:
    return await api.post("/api/scores", json={"scores": scores})


async def test_what_judges_say_is_shown_with_the_request(
    api: httpx.AsyncClient, store: Store
) -> None:
    store.records.add([RECORD])
    other = {"request_id": "q1", "judge": "b", "score": None, "reason": "its reply was cut"}
    assert (await _post(api, SAID, other)).json() == {
        "accepted": 2, "duplicates": 0, "unknown": 0,
    }  # fmt: skip

    told = (await api.get("/api/requests/q1")).json()

    assert told["scores"] == [
        {"judge": "b", "score": None, "reason": "its reply was cut", "at": 5.0},
        {"judge": JUDGE, "score": 0.75, "reason": "", "at": 5.0},
    ]


async def test_what_a_judge_said_first_stands(api: httpx.AsyncClient, store: Store) -> None:
    store.records.add([RECORD])
    again = {**SAID, "score": 0.1}
    first = (await _post(api, SAID, again)).json()
    second = (await _post(api, again)).json()

    assert (first["accepted"], first["duplicates"]) == (1, 1)
    assert (second["accepted"], second["duplicates"]) == (0, 1)
    assert [each.score for each in store.scores.of("q1")] == [0.75]


async def test_a_request_whose_record_is_still_on_its_way_may_be_judged(
    api: httpx.AsyncClient,
) -> None:
    assert (await _post(api, SAID)).json()["unknown"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 1.01}, "less than or equal to 1"),
        ({"score": -0.01}, "greater than or equal to 0"),
        ({"score": "0.5"}, "valid number"),
        ({"score": True}, "valid number"),
        ({"score": None}, "why"),
        ({"score": None, "reason": "  "}, "why"),
        ({"judge": ""}, "judge"),
        ({"judge": "a\0b"}, "judge"),
        ({"judge": "j" * 129}, "judge"),
        ({"request_id": "q" * 129}, "request_id"),
        ({"reason": "r" * 501}, "reason"),
        ({"verdict": "good"}, "verdict"),
    ],
)
async def test_what_is_no_score_is_refused_whole(
    api: httpx.AsyncClient, store: Store, change: dict[str, Any], words: str
) -> None:
    refused = await _post(api, {**SAID, "request_id": "q0"}, {**SAID, **change})

    assert refused.status_code == 400
    assert words in error(refused)["message"]
    assert store.scores.of("q0") == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_no_number_is_no_score(api: httpx.AsyncClient, number: str) -> None:
    body = f'{{"scores": [{{"request_id": "q1", "judge": "j", "score": {number}}}]}}'
    refused = await api.post(
        "/api/scores", content=body, headers={"content-type": "application/json"}
    )

    assert refused.status_code == 400


async def test_a_batch_has_its_bounds(api: httpx.AsyncClient) -> None:
    many = [{**SAID, "request_id": f"q{n}"} for n in range(1001)]

    assert (await _post(api)).status_code == 400
    assert (await _post(api, *many)).status_code == 400
    assert (await _post(api, *many[1:])).json()["accepted"] == 1000


async def test_what_is_still_to_be_judged_is_told_to_each_judge(
    api: httpx.AsyncClient, store: Store
) -> None:
    change = msgspec.structs.replace
    store.records.add([
        RECORD,
        change(RECORD, request_id="q2"),
        change(RECORD, request_id="failed", outcome="failed"),
        change(RECORD, request_id="a smoke test", key_id="modelyard"),
        change(RECORD, request_id="long ago", received_at=-100.0),
    ])  # fmt: skip
    await _post(api, SAID)

    async def due(judge: str) -> list[str]:
        told = await api.get("/api/scores/due", params={"judge": judge, "seconds": 60})
        return [each["request_id"] for each in told.json()["requests"]]

    assert await due(JUDGE) == ["q2"]
    assert await due("another") == ["q1", "q2"]
