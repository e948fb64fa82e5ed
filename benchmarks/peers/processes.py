"""Installing, starting and ending what is no part of Modelyard; processes end by their id."""

import contextlib
import socket
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
START_S = 120.0
STOP_S = 30.0
_LOOK_EVERY_S = 0.1
_TOLD_TO_END = {-15, 143}
"""Exit codes of a process that ends by the SIGTERM that it was sent: a clean end, too."""


class Template(string.Template):
    """A configuration file with `@name` for what is known only when it is started."""

    delimiter = "@"


def python_environment(folder: Path, *requirements: str) -> Path:
    """An environment with these (`name==version`), made once; returns its python."""
    python = folder / "bin" / "python"
    done = folder / "setup-done"
    wanted = " ".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        quiet = ["-qq", "--disable-pip-version-check", "--no-input"]
        subprocess.run([python, "-m", "pip", "install", *quiet, *requirements], check=True)
        done.write_text(wanted)
    return python


def installed_version(python: Path, package: str) -> str:
    """The version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def written(template: Path, to: Path, values: Mapping[str, object]) -> Path:
    """Fill a template into a file."""
    to.write_text(Template(template.read_text()).substitute(values))
    return to


def free_port() -> int:
    """A port that nobody listens on; somebody may take it before it is used."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


class Started:
    """A process of a product."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    def exit_code(self) -> int | None:
        """How it ended, 0 if by the SIGTERM that it was sent; None while it runs."""
        code = self._process.poll()
        return 0 if code in _TOLD_TO_END else code

    def until_answers(self, url: str, headers: Mapping[str, str]) -> None:
        """Wait for a status below 500 on a page; raises RuntimeError with the log's end."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if _status(url, headers) < 500:
                    return
            time.sleep(_LOOK_EVERY_S)
        said = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{url} did not answer:\n{said}")


def _status(url: str, headers: Mapping[str, str]) -> int:
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - a loopback URL
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextlib.contextmanager
def started(
    argv: Sequence[object], *, log: Path, env: Mapping[str, str], cwd: Path
) -> Iterator[Started]:
    """Run a program in a process group of its own; SIGTERM at the end, SIGKILL if that is vain."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            process_group=0,
        )
        try:
            yield Started(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
