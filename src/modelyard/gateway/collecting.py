"""When Python's cycle collector runs in the gateway.

Requests make few cycles, and what lives long (routes, keys, modules) is looked at in vain: with
Python's own thresholds the collector took 8 of 180 µs of a small request (`scripts/bench observe`,
2026-11-24), without a byte to show for it. It stays on, for a cycle in a library would else grow.
"""

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 100
"""Objects made, net, before the young are looked at; runs of each age before the next older."""


def settle() -> None:
    """Set aside what was made until now, and look less often; call when the process has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
