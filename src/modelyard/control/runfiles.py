"""Small records of what runs on a home, under HOME/run: written whole or not at all."""

import os
from pathlib import Path

import msgspec
import psutil

from modelyard.core.errors import StorageError

_START_TOLERANCE_S = 1.0


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process of Modelyard itself. Fields that others add are ignored."""

    pid: int
    url: str = ""
    started_at: float
    """Unix seconds; when the process was made, or later."""
    version: str = ""
    epoch: str = ""
    """Identity of the state, where the process knows it: the owner of its workers."""


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Write it in one step; StorageError when that can't be done."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(
            f"can't write {path}: {error.strerror}",
            next_step="see that the home is writable and its disk has space",
        ) from error


def read_record(path: Path) -> RunRecord | None:
    """The record in the file, or None when there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def remove_own_record(path: Path) -> None:
    """Remove the record if it is this process's."""
    record = read_record(path)
    if record is not None and record.pid == os.getpid():
        path.unlink(missing_ok=True)


def own_start() -> float:
    """When this process was made, in Unix seconds."""
    return psutil.Process().create_time()


def process_of(record: RunRecord, module: str, home: Path) -> psutil.Process | None:
    """The process that the record tells of, if it still runs: never one that got its number later.

    It must run `module` for `home`, and have been made before it wrote that it had started.
    """
    try:
        process = psutil.Process(record.pid)
        arguments = process.cmdline()
        is_ours = module in arguments and str(home) in arguments
        started_before = process.create_time() <= record.started_at + _START_TOLERANCE_S
        running = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if is_ours and started_before and running else None
