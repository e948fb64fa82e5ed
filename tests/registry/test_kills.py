"""R4: a registration that is killed leaves a whole version or none, and can be done again."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.core.errors import NotFound
from modelyard.core.home import Home
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.registry import Registry

from .conftest import MakeModel

HARNESS = Path(__file__).with_name("harness.py")
KILLS = 12
MAX_POINT = 60

Attempt = Callable[[str, Path, int], int]


@pytest.fixture
def attempt(prepared_home: Home, empty_catalogue: Path) -> Iterator[Attempt]:
    """`attempt(NAME, MODEL, POINT)` → exit status, -9 after a kill."""
    with subprocess.Popen(
        [sys.executable, str(HARNESS), str(empty_catalogue)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as harness:
        assert harness.stdin is not None
        assert harness.stdout is not None
        stdin, stdout = harness.stdin, harness.stdout

        def run(name: str, model: Path, point: int) -> int:
            stdin.write(f"{prepared_home.root} {model} {name} {point}\n")
            stdin.flush()
            return int(stdout.readline())

        yield run
        stdin.close()
        assert harness.wait(timeout=30) == 0


def test_kills_leave_no_visible_half_version_and_nothing_that_stays(
    attempt: Attempt, prepared_home: Home, make_model: MakeModel
) -> None:
    model = make_model(size_bytes=CHUNK_BYTES + 4096)
    registry = Registry(prepared_home)
    draw = random.Random(20261123)
    points = [*range(1, 6), *(draw.randrange(6, MAX_POINT) for _ in range(KILLS - 5))]
    killed = 0
    for number, point in enumerate(points):
        name = f"m{number}"

        status = attempt(name, model, point)

        assert status in (-signal.SIGKILL, 0)
        killed += status != 0
        for version in registry.versions():  # what is visible is whole
            registry.load(f"{version.name}:{version.version}")
        if status == 0:
            assert registry.get(name).version == 1
    assert killed >= KILLS // 2

    assert attempt("last", model, 0) == 0

    assert registry.get("last").version == 1
    for folder in (prepared_home.blobs / "staging", prepared_home.versions / ".staging"):
        assert list(folder.iterdir()) == []
    assert not list(prepared_home.versions.glob("*/.unmirrored-*"))


def test_a_killed_registration_resumes_without_copying_what_is_whole(
    attempt: Attempt, prepared_home: Home, make_model: MakeModel
) -> None:
    model = make_model(size_bytes=CHUNK_BYTES + 4096)
    registry = Registry(prepared_home)
    point = 1
    while not (whole := stored(prepared_home)):
        assert attempt("x", model, point) == -signal.SIGKILL
        point += 4
    with pytest.raises(NotFound):
        registry.get("x")

    assert registry.register("x", model).created

    for path, inode in whole.items():
        assert path.stat().st_ino == inode


def stored(home: Home) -> dict[Path, int]:
    blobs = (home.blobs / "sha256").glob("*/*")
    return {path: path.stat().st_ino for path in blobs if path.stat().st_size > CHUNK_BYTES}
