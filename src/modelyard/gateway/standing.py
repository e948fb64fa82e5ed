"""How the gateway stands: what `/health` and `/ready` tell."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Standing:
    """Changed by whoever brings routes, and by the drain; read by the pages."""

    url: str = ""
    draining: bool = False
    has_routes: bool = False
    """Whether routes are in force, from the controller, from disk or from a file."""
    source: Literal["controller", "file"] = "controller"
    connected: bool = False
    """Whether the last request to the controller was answered; a file that could be read."""
    problem: str = ""
    """Why the newest configuration is not in force; empty when it is."""
