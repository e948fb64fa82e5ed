"""Modelyard's own stand-alone gateway, configured as `modelyard conformance self` does it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.peer import Peer, Running

from modelyard.conformance.yard import EngineProcess, running_gateway


def _install(_cache: Path) -> str:
    return version("modelyard")


@contextmanager
def _start(_cache: Path, _place: Path, engines: Sequence[EngineProcess]) -> Iterator[Running]:
    with running_gateway(engines) as gateway:
        yield Running(gateway.target, gateway.exit_code)


MODELYARD = Peer(
    name="Modelyard",
    configs=("src/modelyard/conformance/yard.py",),
    install=_install,
    start=_start,
    not_claimed={},
)
