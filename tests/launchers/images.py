"""Images made of this machine's own files, because a test asks no registry.

They hold this interpreter with its standard library and what those need of the system's libraries.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SITE = "/site"
WORKER_PACKAGES = ("msgspec", "httptools", "uvloop", "modelyard")
_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"}
    | {"site-packages", "dist-packages", "demo", "dashboard"}
)
_LIBRARY = re.compile(r"(/\S+\.so\S*)(?= \(0x)")
_PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


def import_worker(api: Any) -> str:
    """An image that runs the fake engine, for a launcher; its name. It has no shell."""
    return _import(api, _worker_files(), [f"ENV PYTHONPATH={SITE}"])


def import_base(api: Any) -> str:
    """What stands in for a slim Python image: pip, a shell, the common libraries; its name."""
    return _import(api, _base_files(), [])


def _import(api: Any, files: Iterable[tuple[str, str]], changes: list[str]) -> str:
    name = f"modelyard-test-{uuid.uuid4().hex[:12]}"
    path = f"{Path(_interpreter()).parent}:/usr/bin:/bin"
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.addfile(_scratch())
            for source, target in files:
                tar.add(source, target.lstrip("/"), recursive=False, filter=_anybody)
        api.import_image_from_file(archive, repository=name, changes=[f"ENV PATH={path}", *changes])
    return name


def _scratch() -> tarfile.TarInfo:
    folder = tarfile.TarInfo("tmp")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
    return folder


def _anybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, and readable by whoever the container runs as."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444 | (0o111 if entry.mode & 0o100 else 0)
    return entry


def _worker_files() -> Iterator[tuple[str, str]]:
    binaries = []
    for package in WORKER_PACKAGES:
        root = _folder(package)
        for path in _tree(root):
            yield path, f"{SITE}/{package}/{Path(path).relative_to(root)}"
            binaries += [path] if path.endswith(".so") else []
    yield from _python_files(binaries)


def _base_files() -> Iterator[tuple[str, str]]:
    asked = [_interpreter(), "-c", _PURELIB]
    purelib = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    pip = _folder("pip")
    for path in _tree(pip):
        yield path, f"{purelib}/pip/{Path(path).relative_to(pip)}"
    shell = os.path.realpath("/bin/sh")
    yield shell, "/bin/sh"
    # What wheels expect of any Linux with glibc: seen from those that are installed here.
    installed = Path(sysconfig.get_path("platlib")).rglob("*.so")
    yield from _python_files([shell, *map(str, installed)])


def _python_files(linked: list[str]) -> Iterator[tuple[str, str]]:
    """The interpreter, and the system's libraries that it and what is `linked` need."""
    interpreter = _interpreter()
    python3 = str(Path(interpreter).parent / "python3")
    standard = Path(sysconfig.get_path("stdlib"))
    for path in dict.fromkeys((interpreter, python3)):
        yield path, path
    for path in _tree(standard):
        yield path, path
    own = [interpreter, *map(str, (standard / "lib-dynload").glob("*.so"))]
    for library in _libraries([*own, *linked]):
        yield os.path.realpath(library), library


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _tree(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in _LEFT_OUT and not f.startswith("config-")]
        yield from (f"{folder}/{file}" for file in files if not file.endswith((".a", ".opt-1.pyc")))


def _libraries(binaries: list[str]) -> set[str]:
    """Shared libraries of the system that these are linked with, the loader among them."""
    told = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    outside = {path for path in _LIBRARY.findall(told) if "/site-packages/" not in path}
    return {path for path in outside if not path.startswith(sys.prefix)}
