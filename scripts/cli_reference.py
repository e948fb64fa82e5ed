"""docs/cli.md from the real `--help` of every command: checks it, or writes it with `--write`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "cli.md"
HEAD = """# Command line

Written by `scripts/cli_reference.py --write` from each command's own `--help`; a test holds it
current.

Every command takes `--home DIR` (or `MODELYARD_HOME`) and, where it prints facts, `--json`: then
stdout holds JSON and nothing else. Progress and errors go to stderr.

A command that fails prints two lines, and with `--json` the same as
`{"error": {"message", "type", "code", "param", "next_step"}}` on stdout:

```text
error: what was wrong, and where
next: what to do about it
```

Exit codes: 0 done, 1 refused or failed, 2 usage (a wrong option or setting), 130 interrupted.
`MODELYARD_DEBUG=1` shows the traceback of an error that nobody foresaw.
"""


def commands() -> list[tuple[str, ...]]:
    """Every command and subcommand, in the order of `modelyard --help`."""
    import typer

    from modelyard.cli.main import COMMANDS, load

    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        command = load(name)
        if isinstance(command, typer.core.TyperGroup):
            found.extend((name, below) for below in command.commands)
    return found


def render() -> str:
    """The whole document."""
    parts = [HEAD]
    for command in commands():
        title = " ".join(("modelyard", *command))
        parts.append(f"\n## {title}\n\n```text\n{_help(command)}\n```\n")
    return "".join(parts)


def _help(command: tuple[str, ...]) -> str:
    plain = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *command, "--help"],
        env={**kept, **plain},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip("\n")


def main(arguments: list[str]) -> int:
    """Write the document, or say whether it is current."""
    wanted = render()
    if arguments == ["--write"]:
        DOCUMENT.write_text(wanted)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text() == wanted:
        return 0
    print(
        "docs/cli.md is not current\nnext: python scripts/cli_reference.py --write", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
