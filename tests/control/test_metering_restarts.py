"""Capacity of real workers over a real controller's restarts (O6)."""

import time

from tests.control.conftest import Controller, until
from tests.control.test_controller import bring_up, ready

from modelyard.api.cost_messages import CostRow
from modelyard.client import Client

HOURLY = 3600.0
"""One a second."""
NANOS = 10**9


def capacity(client: Client) -> CostRow:
    return client.costs(by="model").total


def test_the_time_of_a_worker_is_counted_once_however_often_its_controller_is_killed(
    controller: Controller,
) -> None:
    controller.home.config.write_text(f"cost: {{replica_hour: {{process: {HOURLY}}}}}\n")
    with controller.start() as client:
        bring_up(client)
        [replica] = ready(client)
        until(lambda: (capacity(client).replica_ms or 0) > 0, "it is counted")
    for _ in range(2):
        controller.kill()
        time.sleep(1.5)  # its worker runs on
        client = controller.start()
        client.close()
    with Client.from_home(controller.home) as client:
        seen = time.time()
        until(
            lambda: (capacity(client).replica_ms or 0) >= (seen - replica.created_at) * 1000,
            "the absence is counted",
        )
        counted = capacity(client)
        age_s = time.time() - replica.created_at
        assert counted.replica_ms is not None
        assert counted.replica_ms <= age_s * 1000 + 100
        assert counted.capacity_nanos is not None
        assert abs(counted.capacity_nanos - counted.replica_ms * NANOS / 1000) <= 10_000
