"""A worker for the launchers' tests: answers HTTP once it listens, and ends as it is told to."""

import argparse
import http.server
import os
import signal
import subprocess
import sys
from pathlib import Path


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers any GET with the variable named by the path, or with what it may do."""

    def do_GET(self) -> None:
        body = told(self.path[1:]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


def told(name: str) -> str:
    """The answer to one question."""
    question, _, path = name.partition(":")
    match question:
        case "cpus":
            return ",".join(map(str, sorted(os.sched_getaffinity(0))))
        case "uid":
            return str(os.getuid())
        case "capabilities":
            return of_status("CapBnd")
        case "no_new_privs":
            return of_status("NoNewPrivs")
        case "writes":
            return writes(path)
    return os.environ.get(name, "unset")


def of_status(field: str) -> str:
    """One line of this process's status, as the kernel writes it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)[field]


def writes(path: str) -> str:
    """Whether it can make a file at a path, or in a folder."""
    target = Path(path)
    try:
        with (target / "made" if target.is_dir() else target).open("a"):
            return "written"
    except OSError as error:
        return error.strerror or ""


def main() -> None:
    """Listen, print a line, serve until signalled."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--exit", type=int)
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--child", action="store_true", help="start a deaf child and print its id")
    options = parser.parse_args()
    if options.exit is not None:
        sys.exit("first line\nlast line") if options.exit == 1 else sys.exit(options.exit)
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.child:
        child = subprocess.Popen([sys.executable, __file__, "--deaf", "--port", "0"])
        sys.stdout.write(f"child {child.pid}\n")
    server = http.server.ThreadingHTTPServer((options.host or "127.0.0.1", options.port), Answer)
    sys.stdout.write("listening\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
