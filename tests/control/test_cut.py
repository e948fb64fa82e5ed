"""What a drain that ran out of its budget cuts is counted, and told, once."""

import os
import signal
import time

import msgspec
from tests.control.conftest import Controller, until
from tests.control.test_controller import FAKE, QUICK, Follow, bring_up, ready

from modelyard.api.messages import DeployRequest
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase
from modelyard.core.routes import Policy
from modelyard.state.store import open_sqlite

LEFT_S = 6.0
"""Of the drain budget when the controller comes back: a gateway reports within it."""


def test_a_request_is_cut_once_however_long_its_worker_takes_to_end(
    controller: Controller, follow: Follow
) -> None:
    with controller.start() as client:
        gateway = follow(client)
        bring_up(client, FAKE)
        [before] = ready(client)
        assert before.pid
        gateway.in_flight[before.id] = 1
        bring_up(client, DeployRequest(ref="yardling:2", engine="fake", plan=QUICK))
        until(
            lambda: [r for r in client.status().replicas if r.state is ReplicaState.DRAINING],
            "the former worker drains",
        )
    controller.kill()
    os.kill(before.pid, signal.SIGSTOP)  # it takes no notice of SIGTERM, and is killed later
    store = open_sqlite(controller.home.state)
    [draining] = [r for r in store.replicas.all() if r.id == before.id]
    long_ago = time.time() - Policy().timeouts.total_s + LEFT_S
    store.replicas.put(msgspec.structs.replace(draining, changed_at=long_ago))
    store.close()
    with controller.start() as again:
        other = follow(again)
        other.in_flight[before.id] = 1
        until(lambda: again.rollout("yardling-2").phase is Phase.DONE, "the drain is over", 40)
        report = again.rollout("yardling-2")
        told = [event for event in again.events(limit=1000) if event.kind == "replica.cut"]

    assert (report.finished, report.cut) == (0, 1)
    assert [event.subject for event in told] == [before.id]
