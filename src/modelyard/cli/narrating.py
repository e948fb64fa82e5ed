"""Tells on stderr how a deployment moves, line by line as it changes."""

import re
import sys
import time

from modelyard.api.messages import DeploymentView

_COUNTDOWN = re.compile(r", \d+ s more|\d+ s more; ")


class Narrator:
    """One line for each change, with the seconds since the command was given."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = ""

    def __call__(self, view: DeploymentView) -> None:
        """Tell what is new."""
        line = told(view)
        same = _COUNTDOWN.sub("", line)  # a line each second would tell nothing
        if same != self._last:
            self._last = same
            print(f"{time.monotonic() - self._began:6.1f} s  {line}", file=sys.stderr)


def told(view: DeploymentView) -> str:
    """Where the deployment is, in one line."""
    rollout = view.rollout
    if rollout is None:
        return f"{view.state.value}, {view.replicas_ready} of {view.replicas_wanted} replicas ready"
    line = f"{rollout.version} {'paused, ' if rollout.paused else ''}{rollout.phase.value}"
    if rollout.reason:
        line += f": {rollout.reason.splitlines()[0]}"
    elif rollout.waits_for:
        line += f": {rollout.waits_for}"
    return line
