"""What run records in the home say, read without asking the controller (it may be away)."""

import json

from modelyard.core.errors import Unavailable
from modelyard.core.home import Home


def gateway_url(home: Home) -> str:
    """URL of the home's gateway; Unavailable when none was started there."""
    try:
        record = json.loads((home.run / "gateway.json").read_bytes())
        return str(record["url"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"nothing runs on the home {home.root}",
            next_step=f"start it with: modelyard up --home {home.root}",
        ) from None
