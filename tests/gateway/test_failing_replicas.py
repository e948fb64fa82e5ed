"""Replicas that fail: another is tried while nothing was sent; a cut stream never looks whole."""

import httpx
import pytest
from tests.gateway.rig import NOWHERE, Engine, Rig, StartRig, chat, model_route

from modelyard.core.routes import Policy, Retries, Timeouts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    ["status=500", "status=503", "status=429 retry_after_s=2", "refuse", "truncate_after=0"],
)
async def test_another_replica_answers_while_nothing_was_sent(
    rig: Rig, engines: list[Engine], fault: str, stream: bool
) -> None:
    """Promise G5, its first half."""
    await engines[0].fault(fault)

    replies = [
        await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=4, stream=stream))
        for _ in range(2)
    ]

    assert [reply.status_code for reply in replies] == [200, 200]
    assert sorted(reply.headers["x-modelyard-attempts"] for reply in replies) == ["1", "2"]
    records = await rig.records(2)
    tried_twice = max(records, key=lambda record: len(record.attempts))
    assert [attempt.replica for attempt in tried_twice.attempts] == ["r0", "r1"]
    assert tried_twice.attempts[1].outcome == "completed"
    assert tried_twice.replica == "r1"
    await rig.until_at_rest()


@pytest.mark.parametrize("fault", ["truncate_after=5", "crash_after=5"])
async def test_a_stream_that_was_cut_never_looks_whole(
    start_rig: StartRig, spare_engine: Engine, fault: str
) -> None:
    """Promise G4: an error event, no `[DONE]`, a body that does not end, outcome `failed`."""
    timeouts = Timeouts(gap_s=0.3)
    rig = await start_rig(model_route([spare_engine.url], policy=Policy(timeouts=timeouts)))
    received = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with rig.client.stream(
            "POST",
            "/v1/chat/completions",
            json=chat(f"[[fake: tokens=50 {fault}]]", max_tokens=50, stream=True),
        ) as reply:
            assert reply.status_code == 200
            async for part in reply.aiter_raw():
                received += part

    assert b"[DONE]" not in received
    assert received.rsplit(b"\n\n", 2)[1].startswith(b'data: {"error":')
    (record,) = await rig.records(1)
    assert record.outcome == "failed"
    assert record.completion_tokens
    assert record.tokens_estimated
    await rig.until_at_rest()


async def test_after_the_first_byte_there_is_no_retry(rig: Rig, engines: list[Engine]) -> None:
    """Promise G5, its second half."""
    for engine in engines:
        await engine.fault("truncate_after=3")
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=20, stream=True))

    (record,) = await rig.records(1)
    assert len(record.attempts) == 1


@pytest.mark.parametrize(
    ("timeouts", "fault", "said"),
    [
        (Timeouts(first_token_s=0.2), "hang", "first_token_s"),
        (Timeouts(gap_s=0.2), "stall_after=3", "gap_s"),
        (Timeouts(total_s=0.3), "tokens=1000", "total_s"),
    ],
)
async def test_each_timeout_is_its_own(
    start_rig: StartRig, engines: list[Engine], timeouts: Timeouts, fault: str, said: str
) -> None:
    """Promise G6. Seen in the error; the replica is left at once."""
    rig = await start_rig(model_route([engines[0].url], policy=Policy(timeouts=timeouts)))
    body = chat(f"[[fake: {fault}]]", max_tokens=1000, stream=True)
    try:
        reply = await rig.client.post("/v1/chat/completions", json=body)
    except httpx.RemoteProtocolError:
        pass
    else:
        assert reply.status_code == 504
        assert said in reply.json()["error"]["message"]
    (record,) = await rig.records(1)
    assert (record.outcome, record.error_code) == ("failed", "upstream_timeout")
    assert record.attempts[0].outcome == "timeout"
    await engines[0].until_idle()
    await rig.until_at_rest()


async def test_what_the_client_did_wrong_is_not_retried(rig: Rig, engines: list[Engine]) -> None:
    for engine in engines:
        await engine.fault("status=400")

    reply = await rig.client.post("/v1/chat/completions", json=chat("x"))

    assert reply.status_code == 400
    (record,) = await rig.records(1)
    assert (record.outcome, len(record.attempts)) == ("rejected", 1)
    assert record.attempts[0].outcome == "refused"


async def test_when_no_replica_is_there_the_answer_is_503_at_once(start_rig: StartRig) -> None:
    rig = await start_rig(model_route([]))

    reply = await rig.client.post("/v1/chat/completions", json=chat("x"))

    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.elapsed.total_seconds() < 0.5


async def test_a_replica_that_is_not_there_is_an_upstream_error(start_rig: StartRig) -> None:
    rig = await start_rig(model_route([NOWHERE], policy=Policy(retries=Retries())))

    reply = await rig.client.post("/v1/chat/completions", json=chat("x"))

    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_unreachable"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["html", "chunk"])
async def test_garbage_is_not_passed_off_as_an_answer(
    start_rig: StartRig, engines: list[Engine], stream: bool, kind: str
) -> None:
    rig = await start_rig(model_route([engines[0].url]))

    reply = await rig.client.post(
        "/v1/chat/completions", json=chat(f"[[fake: garbage={kind}]]", stream=stream)
    )

    assert reply.status_code == 502
    (record,) = await rig.records(1)
    assert record.outcome == "failed"


async def test_a_kept_connection_that_went_stale_costs_no_request(
    start_rig: StartRig, engines: list[Engine]
) -> None:
    rig = await start_rig(model_route([engines[0].url]))
    for _ in range(3):
        reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))
        assert reply.status_code == 200
    await engines[0].fault("refuse", times=1)

    reply = await rig.client.post("/v1/chat/completions", json=chat("x", max_tokens=1))

    assert reply.status_code == 200
    assert reply.headers["x-modelyard-attempts"] == "1"
