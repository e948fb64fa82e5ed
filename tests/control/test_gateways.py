"""What gateways reported is the same for everybody who reads it, whenever they do."""

import threading

from modelyard.control.gateways import Gateways
from modelyard.wire.feed import GATEWAY_DEAD_AFTER_S, GatewayReport


def _report(name: str) -> GatewayReport:
    return GatewayReport(
        gateway=name, pid=1, url="http://127.0.0.1:1", epoch="e", routes_version=1, keys_seq=0,
        in_flight={"r": 1},
    )  # fmt: skip


def test_one_that_fell_silent_is_forgotten() -> None:
    now = [100.0]
    gateways = Gateways("e", lambda: now[0])
    gateways.heard(_report("silent"))
    now[0] += GATEWAY_DEAD_AFTER_S
    gateways.heard(_report("loud"))
    now[0] += 1
    assert [g.id for g in gateways.living()] == ["loud"]


def test_none_is_lost_and_none_comes_twice_while_threads_read() -> None:
    """A living gateway that is missed for a moment would let a version before be stopped under
    its requests."""
    gateways = Gateways("e", lambda: 100.0)
    missed: list[str] = []
    ending = threading.Event()

    def read() -> None:
        while not ending.is_set():
            try:
                gateways.living()
            except RuntimeError as error:
                missed.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1500):
        name = f"g{number}"
        gateways.heard(_report(name))
        if name not in {g.id for g in gateways.living()}:
            missed.append(name)
    ending.set()
    for reader in readers:
        reader.join()

    assert missed == []
    assert len(gateways.living()) == 1500
