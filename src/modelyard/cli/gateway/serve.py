"""`modelyard gateway --config FILE`: becomes the gateway process."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from modelyard.cli.options import resolve_home


def serve(config: Path, home: Path | None) -> NoReturn:
    """Run the gateway in the place of this process, so that signals and memory are its own."""
    arguments = ["--home", str(resolve_home(home).root), "--config", str(config)]
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: modules of the folder that it was started in are not ours.
    os.execv(  # noqa: S606 - no shell is wanted
        sys.executable, [sys.executable, "-P", "-m", "modelyard.gateway.main", *arguments]
    )
