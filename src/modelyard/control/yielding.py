"""Giving way: on a machine that also serves requests, storing their records comes second.

`SCHED_BATCH` (sched(7)) marks a thread that computes: it preempts nobody when it wakes, and what
wakes preempts it. Its share stays as large as any, so that no lock or interpreter is held by what
gets no time. Processes started from such a thread are marked, too: it must start none.
"""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor


def second(name: str) -> ThreadPoolExecutor:
    """One thread that gives way to all others."""
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_give_way)


def _give_way() -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it: the work is done all the same
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
