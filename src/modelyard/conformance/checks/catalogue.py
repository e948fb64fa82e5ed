"""All checks, in the order in which they run: theme by theme, the end of the gateway last."""

from modelyard.conformance.check import Check
from modelyard.conformance.checks import (
    bodies,
    breakers,
    caching,
    drain,
    errors,
    failover,
    fallbacks,
    http,
    keys,
    leaving,
    limits,
    parsing,
    routing,
    streaming,
    timeouts,
    truncation,
    usage,
)

CHECKS: tuple[Check, ...] = (
    *leaving.CHECKS,
    *streaming.CHECKS,
    *truncation.CHECKS,
    *failover.CHECKS,
    *timeouts.CHECKS,
    *breakers.CHECKS,
    *errors.CHECKS,
    *keys.CHECKS,
    *parsing.CHECKS,
    *http.CHECKS,
    *bodies.CHECKS,
    *usage.CHECKS,
    *routing.CHECKS,
    *limits.CHECKS,
    *caching.CHECKS,
    *fallbacks.CHECKS,
    *drain.CHECKS,
)  # fmt: skip
"""Names are unique; `runner.choose` puts those last that end the gateway."""
