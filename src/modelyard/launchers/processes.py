"""Processes by an identity that is never recycled, read from Linux's /proc.

A process id alone is reused by the kernel; with the moment of the start (in clock ticks since
boot) and the boot itself it names one process for ever. Signals go through a pidfd, opened first
and compared with the identity after, so that they can't reach another process.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from modelyard.launchers.launcher import Exit

_PROC = Path("/proc")
_BOOT = _PROC / "sys/kernel/random/boot_id"
_DEAD = frozenset("ZX")


class Stat(msgspec.Struct, frozen=True):
    """The part of /proc/PID/stat that is used here."""

    state: str
    session: int
    started_ticks: int


class Identity(msgspec.Struct, frozen=True):
    """One process, of all that ever ran on this machine."""

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this id now; None when there is none, a zombie included."""
        stat = read_stat(pid)
        if stat is None or stat.state in _DEAD:
            return None
        return cls(pid, stat.started_ticks, _boot())

    @classmethod
    def parse(cls, handle: str) -> Self | None:
        """The reverse of `str`; None for what isn't one."""
        parts = handle.split("@")
        if len(parts) != 3 or not parts[0].isdecimal() or not parts[1].isdecimal():
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid}@{self.started_ticks}@{self.boot}"

    def stat(self) -> Stat | None:
        """Its state; None when it is gone, whoever has its id now."""
        stat = read_stat(self.pid)
        same = stat is not None and stat.started_ticks == self.started_ticks
        return stat if same and self.boot == _boot() else None

    def is_alive(self) -> bool:
        """Whether it runs; a zombie doesn't."""
        stat = self.stat()
        return stat is not None and stat.state not in _DEAD

    def reap(self) -> Exit | None:
        """How it ended; None while it runs. Takes it from the kernel's list if it is our child."""
        stat = self.stat()
        if stat is None:
            return Exit(code=None, reason="it ended while nobody watched")
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            ended = stat.state in _DEAD
            return Exit(code=None, reason="it ended while nobody watched") if ended else None
        return _exit(os.waitstatus_to_exitcode(status)) if pid else None


class Watch:
    """A pidfd of one process: waits for its end and signals it and nothing else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, identity: Identity) -> Self | None:
        """None when the process is gone."""
        try:
            fd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if identity.stat() is None:
            os.close(fd)
            return None
        return cls(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def send(self, number: signal.Signals) -> None:
        """Signal it; nothing happens when it has ended."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return

    async def ended(self, timeout_s: float) -> bool:
        """Whether it ended within that time."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._fd, over.set)
        try:
            async with asyncio.timeout(timeout_s):
                await over.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return True


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; the fields after it are numbered from 3 in
    # proc_pid_stat(5): state 3, session 6, starttime 22.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode(), int(fields[3]), int(fields[19]))


def session_members(session: int) -> Iterator[int]:
    """Ids of the processes in a session, its zombies left out."""
    for pid in all_pids():
        stat = read_stat(pid)
        if stat is not None and stat.session == session and stat.state not in _DEAD:
            yield pid


def all_pids() -> Iterator[int]:
    """Every process of this machine that /proc shows."""
    return (int(entry) for entry in os.listdir(_PROC) if entry.isdecimal())  # noqa: PTH208 - names only


def read_environment(pid: int, variable: str) -> bytes | None:
    """A variable that the process was started with; None when unset, gone or another user's."""
    try:
        block = (_PROC / str(pid) / "environ").read_bytes()
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return None
    prefix = variable.encode() + b"="
    entries = (entry for entry in block.split(b"\0") if entry.startswith(prefix))
    return next((entry[len(prefix) :] for entry in entries), None)


def _exit(code: int) -> Exit:
    if code < 0:
        return Exit(code=code, reason=f"ended by {signal.Signals(-code).name}")
    return Exit(code=code, reason=f"exit code {code}")


def _boot() -> str:
    return _BOOT.read_text().strip()
