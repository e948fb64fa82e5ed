"""All checks, in the order in which they run: theme by theme, the end of the gateway last."""

from modelyard.conformance.check import Check
from modelyard.conformance.checks import caching, errors, leaving, limits, streaming

CHECKS: tuple[Check, ...] = (
    *leaving.CHECKS,
    *streaming.CHECKS,
    *errors.CHECKS,
    *limits.CHECKS,
    *caching.CHECKS,
)  # fmt: skip
"""Names are unique; `runner.choose` puts those last that end the gateway."""
