"""A gateway with some of its observing taken out, to see what that costs.

python -m benchmarks._observe_gateway PARTS …the gateway's own arguments
PARTS: `off` (what was reserved is settled, estimates learn, nobody is told), `metrics`
(no record is kept, no explanation), `all` (as it ships).
"""

import sys

from modelyard.gateway import main
from modelyard.gateway.accounting import Accounting
from modelyard.gateway.explanations import Explanations
from modelyard.gateway.spool import RecordSpool


def _nothing(*_: object) -> None:
    """Instead of something that is measured."""


def take_out(parts: str) -> None:
    """Before the gateway is built."""
    if parts == "off":
        Accounting._tell = _nothing  # type: ignore[method-assign]
    elif parts == "metrics":
        RecordSpool.put = _nothing  # type: ignore[method-assign]
        Explanations.keep = _nothing  # type: ignore[method-assign]
    elif parts != "all":
        raise SystemExit(f"{parts!r} is none of off, metrics, all")


if __name__ == "__main__":
    take_out(sys.argv[1])
    sys.exit(main.main(sys.argv[2:]))
