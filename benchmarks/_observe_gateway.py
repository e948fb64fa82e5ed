"""A gateway with some of its observing taken out, to see what that costs.

python -m benchmarks._observe_gateway PARTS …the gateway's own arguments
PARTS: `off` (no metrics, no record, no explanation: what was reserved is settled, no more),
`metrics` (no record, no explanation), `all` (as it ships).
"""

import sys

from modelyard.core.records import Outcome
from modelyard.gateway import accounting, main
from modelyard.gateway.accounting import Accounting
from modelyard.gateway.calls import Call
from modelyard.gateway.spool import RecordSpool


def _settle_only(
    self: Accounting, call: Call, outcome: Outcome, status: int, code: str | None
) -> None:
    self.open.remove(call)
    usage = call.usage
    reservation, call.reservation = call.reservation, None
    if reservation is not None:
        reservation.settle(
            0 if usage is None else (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        )


def _nothing(*_: object) -> None:
    """Instead of something that is measured."""


def take_out(parts: str) -> None:
    """Before the gateway is built."""
    if parts == "off":
        Accounting.finish = _settle_only  # type: ignore[method-assign]
    elif parts == "metrics":
        RecordSpool.put = _nothing  # type: ignore[method-assign]
        accounting.Explanations.keep = _nothing  # type: ignore[method-assign]
    elif parts != "all":
        raise SystemExit(f"{parts!r} is none of off, metrics, all")


if __name__ == "__main__":
    take_out(sys.argv[1])
    sys.exit(main.main(sys.argv[2:]))
