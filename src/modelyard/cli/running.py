"""What run records in the home say, read without asking the controller (it may be away)."""

import json

from modelyard.core.errors import Unavailable
from modelyard.core.home import Home


def gateway_url(home: Home) -> str:
    """URL of the home's gateway from this machine; Unavailable when none was started there."""
    try:
        record = json.loads((home.run / "gateway.json").read_bytes())
        url = str(record["url"])
        return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"nothing runs on the home {home.root}",
            next_step=f"start it with: modelyard up --home {home.root}",
        ) from None
