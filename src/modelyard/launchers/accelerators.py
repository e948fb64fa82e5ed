"""The accelerators of this machine, and which of them are free."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from modelyard.core.errors import LaunchFailed

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_ASK_S = 10.0
Holders = Callable[[], Collection[str]]
"""Device ids that the workers of one launcher hold; may block."""


def list_accelerators() -> tuple[str, ...]:
    """Numbers of the NVIDIA GPUs, as nvidia-smi lists them; none where it is not there or fails.

    Where `CUDA_VISIBLE_DEVICES` is set for this process, only those that it names: the others are
    somebody else's.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed question to the driver's own tool
            [tool, "--list-gpus"], capture_output=True, text=True, timeout=_ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    found = {}
    for line in listed.stdout.splitlines():
        if line.startswith("GPU "):
            number, _, rest = line.removeprefix("GPU ").partition(":")
            found[number] = rest.rpartition("UUID: ")[2].rstrip(") ")
    visible = os.environ.get(VISIBLE)
    return tuple(found) if visible is None else _named(visible, found)


def count_accelerators() -> int:
    """How many there are for this process."""
    return len(list_accelerators())


def choose_accelerators(
    wanted: int, there: Sequence[str], held: Collection[str]
) -> tuple[str, ...]:
    """Device ids for a worker, none of those that others hold; raises LaunchFailed."""
    free = [device for device in there if device not in held]
    if wanted > len(free):
        raise LaunchFailed(
            f"no free accelerator: {wanted} are wanted, and {len(free)} of {len(there)} are free",
            next_step="take something away with: modelyard undeploy NAME",
        )
    return tuple(free[:wanted])


class Accelerators:
    """Who has which, over all launchers of a controller.

    Nothing is kept here: what is held is read from where the workers run, so a controller that
    starts again knows it, and a worker that ends has given its own back.
    """

    def __init__(self, there: Callable[[], Sequence[str]] = list_accelerators) -> None:
        self._there = there
        self._holders: list[Holders] = []
        self._taking = threading.Lock()

    def held_by(self, holders: Holders) -> None:
        """Ask these, too, before anything is taken."""
        self._holders.append(holders)

    @contextlib.contextmanager
    def taken(self, wanted: int) -> Iterator[tuple[str, ...]]:
        """Device ids for a worker that is to be started before this is left: from then on, its
        launcher names them as held. Raises LaunchFailed when too few are free."""
        if not wanted:
            yield ()
            return
        with self._taking:  # two launches must not choose the same
            held = {device for holders in self._holders for device in holders()}
            yield choose_accelerators(wanted, self._there(), held)


def _named(visible: str, found: dict[str, str]) -> tuple[str, ...]:
    """Those that the variable names by number or by the beginning of their UUID; as CUDA reads
    it, what follows a name that fits nothing is hidden."""
    named: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        fits = [
            number
            for number, uuid in found.items()
            if name == number or (name.startswith("GPU-") and uuid.startswith(name))
        ]
        if len(fits) != 1 or fits[0] in named:
            break
        named.append(fits[0])
    return tuple(named)
