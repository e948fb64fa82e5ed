"""How a failed command ends: one line of what was wrong, one of what to do next, an exit code.

error: …        on stderr
next: …         on stderr
{"error": …}    on stdout as well, when --json was given: the management API's form
"""

import os
import sys
import tempfile
import traceback

from modelyard.cli.output import print_json
from modelyard.core.errors import InvalidConfig, ModelyardError

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


def tell(error: ModelyardError, *, as_json: bool) -> int:
    """Print an error that was raised on purpose; return the exit code."""
    if as_json:
        print_json(
            {
                "error": {
                    "message": error.message,
                    "type": error.type,
                    "code": error.code,
                    "param": error.param,
                    "next_step": error.next_step,
                }
            }
        )
    print(f"error: {error.message.strip()}", file=sys.stderr)
    if error.next_step:
        print(f"next: {error.next_step.strip()}", file=sys.stderr)
    return USAGE if isinstance(error, InvalidConfig) else FAILED


def tell_unexpected(error: Exception, *, as_json: bool) -> int:
    """Print an error nobody foresaw, in one line, and keep its traceback for a report."""
    what = " ".join(str(error).split())
    message = f"unexpected {type(error).__name__}: {what}" if what else type(error).__name__
    if os.environ.get("MODELYARD_DEBUG"):
        traceback.print_exception(error)
        next_step = "the traceback is above; please report it"
    else:
        with tempfile.NamedTemporaryFile(
            "w", prefix="modelyard-traceback-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
        next_step = f"please report it with {file.name}, or see it with MODELYARD_DEBUG=1"
    return tell(ModelyardError(message, next_step=next_step), as_json=as_json)


def tell_interrupted() -> int:
    """Ctrl-C: the user knows, one line is enough."""
    print("interrupted", file=sys.stderr)
    return INTERRUPTED
