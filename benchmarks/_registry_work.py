"""One timed piece of work of `benchmarks/registry.py`, in a process of its own.

    python -m benchmarks._registry_work WORK SOURCE SCRATCH

prints {"seconds": …, "peak_mb": …, "read_mb": …, "written_mb": …}; they are those of this process,
imports and what was prepared before the clock started included.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.registry.mlflow_server import running_server

from modelyard.registry.registry import Registry

Work = Callable[[Path, Path], float]
_BUFFER_BYTES = 256 * 1024
_NOWHERE = "sqlite:////proc/nowhere/catalogue.db"


def register(source: Path, scratch: Path) -> float:
    """A registration into a home that has registered before."""
    registry = _home(scratch)
    with _clock() as clock:
        assert registry.register("measured", source).created
    return clock.seconds


def link(source: Path, scratch: Path) -> float:
    """Registered where it lies."""
    registry = _home(scratch)
    with _clock() as clock:
        assert registry.register("measured", source, link=True).created
    return clock.seconds


def again(source: Path, scratch: Path) -> float:
    """The same content once more, by a registry object that has seen nothing yet."""
    _home(scratch).register("measured", source)
    registry = Registry(scratch / "home")
    with _clock() as clock:
        assert not registry.register("measured", source).created
    return clock.seconds


def words_changed(source: Path, scratch: Path) -> float:
    """The weights are stored; config.json is another one."""
    _home(scratch).register("measured", source)
    changed = scratch / "changed"
    shutil.copytree(source, changed, copy_function=os.link)
    config = changed / "config.json"
    words = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps(words | {"vocab_size": 1}))
    registry = Registry(scratch / "home")
    with _clock() as clock:
        assert registry.register("measured", changed).created
    return clock.seconds


def one_changed(source: Path, scratch: Path) -> float:
    """One file of several differs in one byte from what is stored."""
    _home(scratch).register("measured", source)
    changed = scratch / "changed"
    shutil.copytree(source, changed, copy_function=os.link)
    last = max(changed.glob("*.safetensors"))
    last.unlink()
    shutil.copyfile(source / last.name, last)
    with last.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    registry = Registry(scratch / "home")
    with _clock() as clock:
        assert registry.register("measured", changed).created
    return clock.seconds


def cp(source: Path, scratch: Path) -> float:
    """Copied by cp, then every file flushed."""
    with _clock() as clock:
        subprocess.run(["cp", "-r", str(source), str(scratch / "copy")], check=True)
        _flush(scratch / "copy")
    return clock.seconds


def cp_sync(source: Path, scratch: Path) -> float:
    """`cp -r` and `sync`."""
    with _clock() as clock:
        subprocess.run(["cp", "-r", str(source), str(scratch / "copy")], check=True)
        subprocess.run(["sync"], check=True)
    return clock.seconds


def sha256(source: Path, _scratch: Path) -> float:
    """Hashed on all cores, a file per core at a time; nothing is written."""
    with _clock() as clock, ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_hash, _files(source)))
    return clock.seconds


def sha256_one_core(source: Path, _scratch: Path) -> float:
    """Hashed on one core; nothing is written."""
    with _clock() as clock:
        for path in _files(source):
            _hash(path)
    return clock.seconds


def mlflow(source: Path, scratch: Path) -> float:
    """MLflow's own copy into a local artifact folder: no hash, no flush."""
    return _log_artifacts(source, f"sqlite:///{scratch}/mlflow.db", scratch / "artifacts")


def mlflow_fsync(source: Path, scratch: Path) -> float:
    """The same, with every file flushed as ours are."""
    artifacts = scratch / "artifacts"
    return _log_artifacts(source, f"sqlite:///{scratch}/mlflow.db", artifacts, flush=True)


def mlflow_server(source: Path, scratch: Path) -> float:
    """MLflow's copy over HTTP through its own server, which stores it: no hash, no flush."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with running_server(scratch, port) as server:
        return _log_artifacts(source, server.uri, None)


def openssl(source: Path, _scratch: Path) -> float:
    """One process, one file after another."""
    return _timed("openssl", "dgst", "-sha256", *map(str, _files(source)))


def sha256sum(source: Path, _scratch: Path) -> float:
    """The same by coreutils."""
    return _timed("sha256sum", *map(str, _files(source)))


def model_signing(source: Path, _scratch: Path) -> float:
    """What model-signing's own tool does before it signs."""
    from model_signing.hashing import Config

    with _clock() as clock:
        Config().hash(source)
    return clock.seconds


def register_cold(source: Path, scratch: Path) -> float:
    """As `register`, with nothing of the source in memory."""
    registry = _home(scratch)
    _forget(source)
    with _clock() as clock:
        assert registry.register("measured", source).created
    return clock.seconds


def cp_cold(source: Path, scratch: Path) -> float:
    """As `cp`, with nothing of the source in memory."""
    _forget(source)
    return cp(source, scratch)


def sha256_cold(source: Path, scratch: Path) -> float:
    """As `sha256`, with nothing of the source in memory."""
    _forget(source)
    return sha256(source, scratch)


def first_page(source: Path, _scratch: Path) -> float:
    """The first page of `models list`."""
    registry = Registry(source)
    with _clock() as clock:
        assert registry.page().versions
    return clock.seconds


def alias(source: Path, _scratch: Path) -> float:
    """NAME@ALIAS → version, in a process that has read nothing yet."""
    # Without a catalogue: mirroring 10,000 versions into one takes minutes.
    Registry(source, tracking_uri=_NOWHERE).set_alias("model-00:7", "production")
    registry = Registry(source)
    with _clock() as clock:
        assert registry.get("model-00@production").version == 7
    return clock.seconds


WORKS: dict[str, Work] = {
    work.__name__: work
    for work in (
        register, link, again, one_changed, cp, cp_sync, sha256, sha256_one_core,
        mlflow, mlflow_fsync, mlflow_server, openssl, sha256sum, model_signing, words_changed,
        register_cold, cp_cold, sha256_cold, first_page, alias,
    )
}  # fmt: skip


class _Clock:
    seconds = 0.0


@contextmanager
def _clock() -> Iterator[_Clock]:
    clock = _Clock()
    begun = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - begun


def _home(scratch: Path) -> Registry:
    """A home whose catalogue is made and whose MLflow is imported."""
    model = scratch / "warm-up"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    header = b'{"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"w")
    registry = Registry(scratch / "home")
    done = registry.register("warm-up", model)
    assert done.warnings == (), done.warnings
    return registry


def _timed(*command: str) -> float:
    with _clock() as clock:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return clock.seconds


def _forget(source: Path) -> None:
    """Let the kernel drop what it has of the files in memory."""
    for path in _files(source):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _log_artifacts(
    source: Path, tracking_uri: str, artifacts: Path | None, *, flush: bool = False
) -> float:
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_CONFIGURE_LOGGING": "false"}
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    where = artifacts.as_uri() if artifacts is not None else None
    run = client.create_run(client.create_experiment("bench", where))
    client.log_text(run.info.run_id, "warm", "warm.txt")
    with _clock() as clock:
        client.log_artifacts(run.info.run_id, str(source), "model")
        if flush and artifacts is not None:
            _flush(artifacts)
    return clock.seconds


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = bytearray(_BUFFER_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def _flush(folder: Path) -> None:
    for path in _files(folder):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _moved() -> dict[str, float]:
    """Bytes that this process and its children asked the kernel to read and to write, in MB."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {"read_mb": int(counted["rchar"]) / 1e6, "written_mb": int(counted["wchar"]) / 1e6}


def main() -> None:
    """Run the work that is named; print what it took."""
    name, source, scratch = sys.argv[1:]
    seconds = WORKS[name](Path(source), Path(scratch))
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": _peak_mb(), **_moved()}) + "\n")


if __name__ == "__main__":
    main()
