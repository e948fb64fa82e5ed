"""What comes second gives way, and it alone."""

import os
import threading

from modelyard.control.yielding import second


def test_its_thread_gives_way_and_no_other() -> None:
    with second("records") as pool:
        found = pool.submit(os.sched_getscheduler, 0).result()
        named = pool.submit(lambda: threading.current_thread().name).result()

    assert found == os.SCHED_BATCH
    assert named.startswith("records")
    assert os.sched_getscheduler(0) != os.SCHED_BATCH
