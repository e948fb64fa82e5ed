"""Proof: damage is found and named, kills leave whole versions or none (promises R4, R5, R6).

Damages: a stored version is damaged in one random way (a bit flipped, a file cut short, emptied,
lengthened, removed, swapped with another, replaced by a link; the manifest too) and checked: the
check fails and names the file, and registering the folder again repairs it. A tenth as many
checks of undamaged versions must pass. In loaded folders, what was added, removed, renamed or
swapped is put right by the next load.

Kills: a registration is ended with SIGKILL before a random change of the file system, or after a
random time; no half version is visible then, the next attempt succeeds without copying what is
whole, and nothing is left over.
"""

import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.soak._proof import Proof, parse, say

from modelyard.core.errors import IntegrityError, NotFound
from modelyard.registry.registry import Registry

DAMAGES = 10_000
KILL_SHARE = 0.05
"""Kills per damage: 500 of 10,000."""
CLEAN_SHARE = 0.1
LARGE = 3 * 1024 * 1024
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "open"}
_MAX_POINT = 70
_MAX_SECONDS = 0.15
NOWHERE = "sqlite:////proc/nowhere/catalogue.db"
"""A catalogue that is away costs a warning only; the proof is of the store."""


def main(argv: Sequence[str]) -> int:
    """Run the proof; 0 when it holds."""
    proof = parse(argv, "registry: damages and kills", count=DAMAGES)
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        failures = _damages(proof, Path(folder) / "damages")
        failures += _kills(proof, Path(folder) / "kills")
    for failure in failures[:20]:
        say(f"  {failure}")
    say("holds" if not failures else f"FAILS {len(failures)} times")
    return 0 if not failures else 1


def _damages(proof: Proof, folder: Path) -> list[str]:
    folder.mkdir()
    model = _model(folder / "model", proof.random, 70_000)
    other = _model(folder / "other", proof.random, 70_000)
    registry = Registry(folder / "home", tracking_uri=NOWHERE)
    registry.register("yard", model)
    registry.register("other", other)
    failures: list[str] = []
    kinds: Counter[str] = Counter()
    begun = time.monotonic()
    for number in range(proof.count):
        kind = proof.random.choice(sorted(_DAMAGES))
        kinds[kind] += 1
        failures += [f"damage {number}: {text}" for text in _damage_once(registry, proof, kind)]
        if kind not in _IN_TREES:
            registry.register("yard", model)
        if number % round(1 / CLEAN_SHARE) == 0:
            failures += [f"clean check {number}: {text}" for text in _clean(registry)]
    say(
        f"{proof.count} damages in {time.monotonic() - begun:.0f} s, {len(failures)} not found or "
        f"wrongly named; {dict(sorted(kinds.items()))}"
    )
    return failures + _clean(registry)


def _clean(registry: Registry) -> list[str]:
    """A check of what is whole; return false alarms."""
    try:
        for name in ("yard", "other"):
            registry.verify(name)
            registry.load(name)
    except IntegrityError as error:
        return [f"false alarm: {error}"]
    return []


def _damage_once(registry: Registry, proof: Proof, kind: str) -> list[str]:
    version = registry.get("yard")
    file = proof.random.choice(version.manifest.files)
    if kind in _IN_TREES:
        tree = registry.load("yard")
        _DAMAGES[kind](tree / file.path, proof.random)
        tree = registry.load("yard")
        found = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if not p.is_dir())
        if found != [each.path for each in version.manifest.files] or not _same(registry, tree):
            return [f"{kind} of {file.path}: the folder is not put right"]
        return []
    if kind == "manifest":
        path = registry.home.manifests / f"{version.digest.removeprefix('sha256:')}.json"
        _flip(path, proof.random)
        return _expect(lambda: registry.verify("yard"), [str(path)], kind)
    path = registry.blobs.path(file.sha256)
    before = path.read_bytes()
    _DAMAGES[kind](path, proof.random)
    if path.is_file() and path.read_bytes() == before and not path.is_symlink():
        return []  # an empty file that was emptied or cut: nothing was damaged
    names = [each.path for each in version.manifest.files if each.sha256 == file.sha256]
    if proof.random.random() < 0.5:
        try:
            # It checks what an engine will read: a folder's own good copy is as good.
            tree = registry.load("yard")
        except IntegrityError as error:
            return [] if any(name in str(error) for name in names) else [f"{kind}: {error}"]
        if (tree / file.path).read_bytes() != before:
            return [f"{kind} of {file.path} was loaded"]
    return _expect(lambda: registry.verify("yard"), names, kind)


def _same(registry: Registry, tree: Path) -> bool:
    files = registry.get("yard").manifest.files
    return all(
        (tree / f.path).read_bytes() == registry.blobs.path(f.sha256).read_bytes() for f in files
    )


def _expect(check: Callable[[], object], names: Sequence[str], kind: str) -> list[str]:
    """The check fails and names the file; equal files have several names."""
    try:
        check()
    except IntegrityError as error:
        named = any(name in str(error) for name in names)
        return [] if named else [f"{kind} of {names[0]}: {error}"]
    return [f"{kind} of {names[0]} was not found"]


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    path.chmod(0o644)
    yield
    path.chmod(0o444)


def _flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        return _grow(path, draw)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    with _writable(path):
        path.write_bytes(data)
    return None


def _cut(path: Path, draw: random.Random) -> None:
    with _writable(path):
        os.truncate(path, draw.randrange(path.stat().st_size or 1))


def _empty(path: Path, _draw: random.Random) -> None:
    with _writable(path):
        os.truncate(path, 0)


def _grow(path: Path, draw: random.Random) -> None:
    with _writable(path), path.open("ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 9)))


def _zero(path: Path, draw: random.Random) -> None:
    """A hole, as an unclean shutdown leaves it."""
    data = bytearray(path.read_bytes())
    if not any(data):
        return _grow(path, draw)
    first = next(place for place, byte in enumerate(data) if byte)
    data[first : first + 4096] = bytes(len(data[first : first + 4096]))
    with _writable(path):
        path.write_bytes(data)
    return None


def _remove(path: Path, _draw: random.Random) -> None:
    path.unlink()


def _rename(path: Path, draw: random.Random) -> None:
    path.rename(path.with_name(f"{path.name}.{draw.randrange(100)}"))


def _replace(path: Path, draw: random.Random) -> None:
    """Another file under this name, as a restored backup of something else."""
    size_bytes = path.stat().st_size
    path.unlink()
    path.write_bytes(draw.randbytes(size_bytes or 1))


def _link_elsewhere(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to(draw.choice(["/etc/hostname", "/nowhere", ".."]))


def _add(path: Path, draw: random.Random) -> None:
    path.with_name(f"added-{draw.randrange(100)}.py").write_bytes(b"import os\n")


_IN_TREES: frozenset[str] = frozenset(
    {"tree_add", "tree_remove", "tree_rename", "tree_link", "tree_replace"}
)
_DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": _flip, "cut": _cut, "empty": _empty, "grow": _grow, "zero": _zero, "remove": _remove,
    "rename": _rename, "replace": _replace, "link": _link_elsewhere, "manifest": _flip,
    "tree_add": _add, "tree_remove": _remove, "tree_rename": _rename,
    "tree_link": _link_elsewhere, "tree_replace": _replace,
}  # fmt: skip


def _kills(proof: Proof, folder: Path) -> list[str]:
    folder.mkdir()
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    count = max(1, round(proof.count * KILL_SHARE))
    begun = time.monotonic()
    for number in range(count):
        home = folder / "home"
        model = _model(folder / "model", proof.random, LARGE)
        failures += [f"kill {number}: {text}" for text in _kill_once(home, model, proof, outcomes)]
        shutil.rmtree(model)
        if number % 10 == 9:
            shutil.rmtree(home)
    say(f"{count} kills in {time.monotonic() - begun:.0f} s: {dict(sorted(outcomes.items()))}")
    return failures


def _kill_once(home: Path, model: Path, proof: Proof, outcomes: Counter[str]) -> list[str]:
    draw = proof.random
    registry = Registry(home, tracking_uri=NOWHERE)
    before = {str(version) for version in registry.versions()}
    by_change = draw.random() < 0.7
    limit = float(draw.randrange(1, _MAX_POINT)) if by_change else draw.uniform(0, _MAX_SECONDS)
    status = _attempt(home, model, by_change, limit)
    outcomes["killed" if status == -signal.SIGKILL else f"ended {status}"] += 1
    failures = [] if status in (0, -signal.SIGKILL) else [f"ended with {status}"]
    for version in registry.versions():
        try:
            registry.verify(str(version))
        except (IntegrityError, NotFound) as error:
            failures.append(f"a half version is visible: {error}")
    whole = {path: path.stat().st_ino for path in (home / "blobs" / "sha256").glob("*/*")}
    registry.register("yard", model)
    registry.verify("yard")
    rewritten = [p for p, inode in whole.items() if p.stat().st_ino != inode]
    if rewritten:
        failures.append(f"copied again: {rewritten[0].name}")
    if len({str(version) for version in registry.versions()} - before) != 1:
        failures.append("not exactly one version more")
    needed = {f.sha256 for v in registry.versions() for f in v.manifest.files}
    stored = {path.name for path in (home / "blobs" / "sha256").glob("*/*")}
    leaks = [*(stored - needed), *(p.name for p in (home / "blobs" / "staging").iterdir())]
    if leaks:
        failures.append(f"left over: {leaks[0]}")
    return failures


def _attempt(home: Path, model: Path, by_change: bool, limit: float) -> int:
    """Register in a fork that is killed before its `limit`-th change, or after `limit` seconds."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if by_change:
            _kill_at(round(limit), str(home))
        status = 1
        try:
            Registry(home, tracking_uri=NOWHERE).register("yard", model)
            status = 0
        finally:
            os._exit(status)
    if not by_change:
        time.sleep(limit)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _kill_at(point: int, home: str) -> None:
    """Audit events come before what they announce."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in _CHANGES and (event == "os.chmod" or home in str(arguments[:2])):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _model(folder: Path, draw: random.Random, size_bytes: int) -> Path:
    """A model of a large file, small ones, an empty one and two that are equal."""
    (folder / "sub").mkdir(parents=True)
    tensor = {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}
    header = json.dumps({"w": tensor}).encode()
    weights = struct.pack("<Q", len(header)) + header + draw.randbytes(size_bytes)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["Qwen3ForCausalLM"], "seed": draw.randrange(10**9)})
    )
    (folder / "empty.txt").touch()
    for number in range(4):
        (folder / "sub" / f"{number}.txt").write_bytes(b"t" + draw.randbytes(100 * number))
    shutil.copy(folder / "sub" / "3.txt", folder / "sub" / "equal.txt")
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
