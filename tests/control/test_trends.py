"""Totals of a real controller: exact whichever gateways send, however often, whoever is killed."""

import sqlite3
import threading
import time
from collections.abc import Sequence

import httpx
import msgspec
from tests.control.conftest import Controller, until
from tests.core.test_rollups import record

from modelyard.client import Client
from modelyard.core.home import Home
from modelyard.core.records import RequestRecord
from modelyard.core.rollups import Sums, summed_up
from modelyard.wire.feed import RecordBatch, RecordReceipt


def batch_of(gateway: str, number: int, size: int, now: float) -> list[RequestRecord]:
    return [
        msgspec.structs.replace(
            record(at, received_at=now - at, ttft_s=0.1 + at / 1000, prompt_tokens=at,
                   outcome="failed" if at % 7 == 0 else "completed"),
            request_id=f"req-{gateway}-{number}-{at}", gateway=gateway,
        )
        for at in range(size)
    ]  # fmt: skip


def send(home: Home, url: str, gateway: str, records: Sequence[RequestRecord]) -> bool:
    """As a gateway does; whether the controller said that it has them."""
    token = home.gateway_token.read_text().strip()
    body = msgspec.json.encode(RecordBatch(gateway=gateway, records=tuple(records)))
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(
            f"{url}/feed/records", content=body, headers=headers, timeout=30, trust_env=False
        )
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    msgspec.json.decode(answer.content, type=RecordReceipt)
    return True


def test_totals_are_exact_across_gateways_and_a_controller_that_is_killed(
    controller: Controller, home: Home
) -> None:
    client = controller.start()
    now = time.time()
    batches = [
        (gateway, batch_of(gateway, number, 150, now))
        for number in range(20)
        for gateway in ("a", "b")
    ]
    urls = [client.url]
    lock = threading.Lock()

    def gateway(name: str) -> None:
        waiting = [records for each, records in batches if each == name]
        while waiting:
            with lock:
                url = urls[-1]
            if send(home, url, name, waiting[0]):
                waiting.pop(0)
            else:
                time.sleep(0.05)

    threads = [threading.Thread(target=gateway, args=(name,), daemon=True) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for wanted in (300, 900):
        _wait_for(client, wanted)
        controller.kill()
        client.close()
        client = controller.start()
        with lock:
            urls.append(client.url)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for name, records in batches[:3]:  # once more, long after
        assert send(home, client.url, name, records)

    everything = [each for _, records in batches for each in records]
    meant = Sums()
    for sums in summed_up(everything)[0].values():
        meant.merge(sums)
    for hours in (1.0, 24.0, 24.0 * 40):
        told = client.summary("chat", hours)
        assert told.request_count == len(everything)
        assert (told.failed_count, told.tokens_in) == (meant.failed, meant.prompt_tokens)
        assert told.time_to_first_token.p99_s == meant.ttft.quantile(0.99)
    assert sum(row.requests for row in client.usage(3)) == len(everything)
    client.close()
    assert controller.end() == 0


def _wait_for(client: Client, count: int) -> None:
    until(lambda: sum(row.requests for row in client.usage(3)) >= count, f"{count} are counted")


def test_while_the_store_is_locked_nothing_stalls_and_nothing_is_lost(
    controller: Controller, home: Home
) -> None:
    client = controller.start()
    records = batch_of("a", 1, 100, time.time())
    assert send(home, client.url, "a", records[:50])
    with sqlite3.connect(home.state, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert not send(home, client.url, "a", records)  # to be sent again
        assert time.monotonic() - began < 25
        assert client.summary("chat", 1).request_count == 50  # readers wait for nobody
        assert client.live().at > 0
        other.execute("ROLLBACK")
    other.close()
    until(lambda: send(home, client.url, "a", records), "it is taken now")
    assert client.summary("chat", 1).request_count == 100
    until(lambda: client.live().machines, "the loops went on", 40.0)
    client.close()
    assert controller.end() == 0
