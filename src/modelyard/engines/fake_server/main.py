"""The fake engine as a process: flags, signals, exit code."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop

from modelyard.core.errors import InvalidConfig, ModelyardError
from modelyard.engines.fake_server.server import FakeServer
from modelyard.engines.fake_server.settings import Settings, flag


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        return serve(parse(argv))
    except ModelyardError as error:
        hint = f" {error.next_step}" if error.next_step else ""
        sys.stderr.write(f"fake-engine: {error.message}.{hint}\n")
        return 2 if isinstance(error, InvalidConfig) else 1


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return 0. Raises what `FakeServer.start` does."""
    return uvloop.run(_serve(settings))


def parse(argv: Sequence[str] | None) -> Settings:
    """Flags → settings; raises InvalidConfig for a value out of range."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.engines.fake",
        description="An OpenAI-compatible engine with scripted latency and faults, for tests.",
    )
    for field in msgspec.structs.fields(Settings):
        told = flag(field.name)
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            default=argparse.SUPPRESS,
            choices=told.choices,
            metavar=None if told.choices else field.name.upper(),
            help=told.help if field.default is None else f"{told.help} (default: {field.default})",
        )
    return checked(vars(parser.parse_args(argv)))


def checked(values: dict[str, Any]) -> Settings:
    """Texts or values by field name → settings; raises InvalidConfig."""
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"a flag's value is not allowed: {error}") from None


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    server = FakeServer(settings)
    stopping = asyncio.create_task(asked.wait())
    starting = asyncio.create_task(server.start())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
    else:
        starting.result()
        facts = {"url": server.url, "pid": os.getpid()}
        sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
        sys.stdout.flush()
        await stopping
    await server.stop(settings.drain_s)
    return 0
