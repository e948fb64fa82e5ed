"""Registers a model in forked processes that kill themselves at a chosen moment.

Started by test_kills.py as a program. Each line on standard input, `HOME MODEL NAME POINT`, forks
a registration which ends with SIGKILL just before its POINT-th change of the file system (0:
never); a line with its exit status answers. The argument is a catalogue to read once: forking
keeps what MLflow imports and maps at its first use, which takes seconds.
"""

import os
import signal
import sys
from pathlib import Path

from modelyard.registry.catalogue import Catalogue
from modelyard.registry.registry import Registry

_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "open"}


def kill_at(point: int, home: str) -> None:
    """Audit events come before what they announce."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in _CHANGES and (event == "os.chmod" or home in str(arguments[0])):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    Catalogue(f"sqlite:///{sys.argv[1]}").newest("nothing")
    for line in sys.stdin:
        home, model, name, point = line.split()
        child = os.fork()
        if child == 0:
            if int(point):
                kill_at(int(point), home)
            Registry(home).register(name, Path(model))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
