"""All checks, in the order in which they run: theme by theme, the end of the gateway last."""

from modelyard.conformance.check import Check
from modelyard.conformance.checks import errors, leaving, streaming

CHECKS: tuple[Check, ...] = (
    *leaving.CHECKS,
    *streaming.CHECKS,
    *errors.CHECKS,
)  # fmt: skip
"""Names are unique; `runner.choose` puts those last that end the gateway."""
