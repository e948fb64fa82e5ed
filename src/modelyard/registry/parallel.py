"""The same work over many items, on all cores."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from modelyard.registry.progress import Tally

_MAX_WORKERS = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item], tally: Tally) -> list[Result]:
    """Run `work` over the items in threads; when one fails, or Ctrl-C, the others stop too."""
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="registry") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            tally.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
