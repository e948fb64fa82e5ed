"""An image made of this machine's own files, because a test asks no registry.

It holds this interpreter with its standard library, what those need of the system's libraries, the
fake engine and the few packages that it imports; no shell.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SITE = "/site"
PACKAGES = ("msgspec", "httptools", "uvloop", "modelyard")
_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"}
    | {"site-packages", "dist-packages", "demo", "dashboard"}
)
_LIBRARY = re.compile(r"(/\S+\.so\S*)(?= \(0x)")


def build(api: Any, user: str = "") -> str:
    """Import the image; its name. Remove it with `api.remove_image`."""
    name = f"modelyard-test-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        write(archive)
        path = f"{Path(_interpreter()).parent}:/usr/bin:/bin"
        changes = [f"ENV PATH={path}", f"ENV PYTHONPATH={SITE}", "ENV SECRET_OF=the-image"]
        if user:
            changes.append(f"USER {user}")
        api.import_image_from_file(str(archive), repository=name, changes=changes)
    return name


def write(archive: Path) -> None:
    """The image's files as a tar."""
    with tarfile.open(archive, "w") as tar:
        for source, target in _files():
            tar.add(source, target.lstrip("/"), recursive=False, filter=_anybody)


def _anybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, and readable by whoever the container runs as."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444 | (0o111 if entry.mode & 0o100 else 0)
    return entry


def _files() -> Iterator[tuple[str, str]]:
    interpreter = _interpreter()
    standard = Path(sysconfig.get_path("stdlib"))
    binaries = [interpreter, *map(str, (standard / "lib-dynload").glob("*.so"))]
    yield interpreter, interpreter
    python3 = str(Path(interpreter).parent / "python3")
    if python3 != interpreter:
        yield python3, python3
    for path in _tree(standard):
        yield path, path
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in _tree(root):
            yield path, f"{SITE}/{package}/{Path(path).relative_to(root)}"
            if path.endswith(".so"):
                binaries.append(path)
    for library in _libraries(binaries):
        yield os.path.realpath(library), library


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _tree(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in _LEFT_OUT and not f.startswith("config-")]
        yield from (f"{folder}/{file}" for file in files if not file.endswith((".a", ".opt-1.pyc")))


def _libraries(binaries: list[str]) -> set[str]:
    """Shared libraries of the system that these are linked with, the loader among them."""
    told = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    return set(_LIBRARY.findall(told))
