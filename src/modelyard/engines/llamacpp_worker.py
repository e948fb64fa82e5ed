"""One llama.cpp replica: `python -m modelyard.engines.llamacpp_worker --model F --port P …`.

The process holds the C++ server of xllamacpp, which listens by itself. It outlives the controller
that had it launched. On SIGTERM or SIGINT it finishes the requests in flight, for at most
`--drain-s`, and exits 0; a second signal ends it at once. What keeps it from starting is said in
the last line on stderr, with exit code 1.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard.engines.llamacpp_header import GgufHeader, affordable_context, read_header

PROMPT_CACHE_MIB = 512
"""Memory for the prompts of idle slots; llama.cpp's own 8 GiB would surprise on a laptop."""
DRAIN_POLL_S = 1.2
"""The C++ server sees that a client of a non-streaming request left only when no other result,
that of /slots included, came within the last second; asking more often would keep it busy."""
MODEL_BYTES_PER_THREAD = 16 * 1024 * 1024
LOG_SETTLE_S = 0.2
"""The C++ side writes its log from a thread of its own, in pieces; the reason comes after it."""
HTTP_THREADS = 128
"""llama.cpp gives each open connection a thread, waiting requests included: with fewer of them
than connections even /health would wait."""


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; the exit code."""
    options = _parse(argv)
    try:
        header = read_header(options.model)
        _check_port(options.host, options.port)
    except (OSError, ValueError) as error:
        return _refuse(_reason(error))
    import xllamacpp  # 50 ms that a refusal above does not need

    params = _params(xllamacpp, options, header)
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # noqa: BLE001 - whatever the C++ side throws is the reason
        time.sleep(LOG_SETTLE_S)
        return _refuse(f"{options.model}: llama.cpp can't load it (see the lines above): {error}")
    signals = _Signals()
    _say(f"serving {options.alias} at {server.listening_address}")
    signals.wait(None)
    _drain(server.listening_address, options.drain_s, signals)
    sys.stdout.flush()
    sys.stderr.flush()
    # The C++ server's destructor waits for open connections, idle ones too; nothing here needs it.
    os._exit(0)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="modelyard.engines.llamacpp_worker")
    parser.add_argument("--model", required=True, type=Path, help="GGUF file")
    parser.add_argument("--alias", required=True, help="model name in its answers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--parallel", default=4, type=int, help="requests decoded at once")
    parser.add_argument("--context-length", type=int, help="tokens per request")
    parser.add_argument("--threads", type=int, help="default: the processors it may run on")
    parser.add_argument("--drain-s", default=600.0, type=float)
    return parser.parse_args(argv)


def _params(xllamacpp: ModuleType, options: argparse.Namespace, header: GgufHeader) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    context = options.context_length or affordable_context(header, options.parallel)
    params.n_ctx = context * options.parallel  # the slots share it
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = options.threads or default_threads(options.model.stat().st_size)
        cpu.poll = 0  # the gateway shares these processors; spinning took two thirds of the speed
    params.n_threads_http = max(HTTP_THREADS, 4 * options.parallel)
    params.cache_prompt = True
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.cors_origins = ""  # no web page's business; its own default is every origin
    params.cors_origins_explicit = True
    params.cors_credentials = False
    params.offline = True
    params.fit_params = False  # what was asked for, or a refusal; never silently less
    params.warmup = False  # a real generation follows before the replica is ready
    params.sse_ping_interval = -1  # silence must be seen as silence by the gateway's gap timeout
    params.verbosity = 2
    return params


def default_threads(model_bytes: int) -> int:
    """All processors it may run on, but one per 16 MiB of weights.

    Threads meet after each operation of each layer; below that size the meeting costs more than
    the sharing gains (a 2.6 MB model: 5,700 tokens/s with one thread, 3,700 with two).
    """
    return max(1, min(len(os.sched_getaffinity(0)), model_bytes // MODEL_BYTES_PER_THREAD))


def _check_port(host: str, port: int) -> None:
    """Raise OSError with a clear line when the address can't be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(f"can't listen on {host}:{port}: {error.strerror}") from None


class _Signals:
    """SIGTERM and SIGINT as something to wait for. Until it is made they end the process."""

    def __init__(self) -> None:
        self._read, write = socket.socketpair()
        write.setblocking(False)
        self._write = write
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def wait(self, timeout_s: float | None) -> bool:
        """Whether a signal came within that time."""
        readable, _, _ = select.select([self._read], [], [], timeout_s)
        if readable:
            self._read.recv(64)
        return bool(readable)


def _drain(address: str, drain_s: float, signals: _Signals) -> None:
    """Wait until nothing is running, the time is over, or a second signal came."""
    deadline = time.monotonic() + drain_s
    while (busy := _busy(address)) and time.monotonic() < deadline:
        if signals.wait(DRAIN_POLL_S):
            break
    _say(f"stopping; requests cut: {busy}")


def _busy(address: str) -> int:
    """Slots at work. One that stops answering counts as none: there is nothing to wait for."""
    try:
        with urllib.request.urlopen(f"{address}/slots", timeout=5) as answer:  # noqa: S310 - own
            slots = json.load(answer)
    except OSError:
        return 0
    return sum(bool(slot["is_processing"]) for slot in slots)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - its log is its stderr


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _refuse(reason: str) -> int:
    _say(f"error: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
