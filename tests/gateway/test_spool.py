"""Records: kept while nobody takes them, bounded, each sent until it is taken."""

import asyncio
import contextlib
import errno
from pathlib import Path

import msgspec
import pytest
from tests.gateway.rig import eventually

from modelyard.core.records import RequestRecord
from modelyard.gateway.spool import MAX_BATCH, Receipt, RecordSpool, SpoolPolicy
from modelyard.wire.feed import RecordBatch


def _record(number: int) -> RequestRecord:
    return RequestRecord(
        request_id=f"req-{number}", gateway="g", received_at=0.0, operation="chat", stream=False,
        outcome="completed", status=200, e2e_s=0.1,
    )  # fmt: skip


def _spool(folder: Path, **policy: object) -> RecordSpool:
    spool = RecordSpool(folder, "g", SpoolPolicy(**policy))  # type: ignore[arg-type]
    spool.open()
    return spool


async def _deliver(spool: RecordSpool, taken: list[str], *, refusing: int = 0) -> None:
    """Run the spool against a controller that refuses so many batches first."""
    left = refusing

    async def post(body: bytes) -> Receipt:
        nonlocal left
        left -= 1
        if left >= 0:
            return "later"
        batch = msgspec.json.decode(body, type=RecordBatch)
        taken.extend(record.request_id for record in batch.records)
        return "taken"

    running = asyncio.create_task(spool.run(post))
    await eventually(lambda: spool.waiting, lambda waiting: waiting == 0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_records_are_sent_in_order_and_once(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    for number in range(MAX_BATCH + 5):
        spool.put(_record(number))
    taken: list[str] = []

    await _deliver(spool, taken, refusing=2)

    assert taken == [f"req-{number}" for number in range(MAX_BATCH + 5)]
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_what_a_killed_gateway_left_is_sent_by_the_next(tmp_path: Path) -> None:
    first = _spool(tmp_path)
    first.put(_record(1))
    first.flush()
    await asyncio.to_thread((tmp_path / "half.part").write_bytes, b'{"gatew')
    taken: list[str] = []

    await _deliver(_spool(tmp_path), taken)

    assert taken == ["req-1"]


@pytest.mark.parametrize(("when_full", "refuses"), [("drop", False), ("refuse", True)])
def test_a_full_spool_does_what_the_policy_says(
    tmp_path: Path, when_full: str, refuses: bool
) -> None:
    spool = _spool(tmp_path, max_bytes=1, when_full=when_full)
    assert not spool.refuses
    spool.put(_record(1))
    spool.flush()

    spool.put(_record(2))

    assert spool.refuses is refuses
    assert spool.dropped == 1


def test_a_folder_that_can_not_be_written_counts_what_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = _spool(folder)
    spool.put(_record(1))
    folder.rmdir()

    spool.flush()

    assert spool.dropped == 1
    assert spool.waiting == 0


async def test_a_batch_that_nobody_takes_is_set_aside_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds up none of those behind it."""
    (tmp_path / "a-empty.json").write_bytes(b"")
    (tmp_path / "a-torn.json").write_bytes(b'{"gateway":')
    (tmp_path / "a-folder.json").mkdir()
    spool = _spool(tmp_path)
    spool.put(_record(1))
    taken: list[str] = []

    async def post(body: bytes) -> Receipt:
        try:
            batch = msgspec.json.decode(body, type=RecordBatch)
        except msgspec.DecodeError:
            return "refused"
        taken.extend(record.request_id for record in batch.records)
        return "taken"

    running = asyncio.create_task(spool.run(post))
    await eventually(lambda: taken, bool)
    await eventually(lambda: spool.waiting, lambda waiting: waiting == 0)
    running.cancel()

    names = await asyncio.to_thread(lambda: sorted(file.name for file in tmp_path.iterdir()))
    assert names == ["a-empty.json.refused", "a-folder.json", "a-torn.json.refused"]
    assert "a-torn.json.refused" in caplog.text
    assert "a-folder.json" in caplog.text


def test_a_disk_that_refuses_everything_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = _spool(tmp_path)
    spool.put(_record(1))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    spool.flush()

    assert spool.dropped == 1
