"""SGLang's router (a Rust program in a Python wheel) before two workers, one key for all.

`--worker-urls` is its usual mode: one model, whatever the request names. In its mode for several
models (`--enable-igw`) it downloads a vocabulary when it starts. Two checks more would apply there:
`routing/own-engines` and `errors/unknown-model`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import NOT_MODELYARD, Peer, Running
from benchmarks.peers.processes import (
    HOST,
    free_port,
    installed_version,
    python_environment,
    started,
)

from modelyard.conformance.target import Target
from modelyard.conformance.yard import EngineProcess

PACKAGE = "sglang-router"
VERSION = "0.3.2"
KEY = "sk-conformance"
TIMEOUT_S = 5
MAX_BODY_BYTES = 2 * 1024 * 1024
_ONE_MODEL = "with --worker-urls it serves one model, whatever is asked for"
_ONE_TIMEOUT = "has one timeout, --request-timeout-secs, for a request in all"


def _argv(python: Path, port: int, metrics_port: int, engines: Sequence[str]) -> list[object]:
    return [
        *(python, "-m", "sglang_router.launch_router", "--host", HOST, "--port", port),
        *("--prometheus-host", HOST, "--prometheus-port", metrics_port),
        *("--worker-urls", *engines, "--worker-startup-check-interval", 1),
        *("--api-key", KEY, "--max-payload-size", MAX_BODY_BYTES, "--log-level", "warn"),
        *("--policy", "power_of_two"),  # by load; cache_aware, the default, looks at it late
        *("--request-timeout-secs", TIMEOUT_S, "--shutdown-grace-period-secs", 20),
        # Its defaults would keep a worker out for a minute; the suite waits for 15 s at most.
        *("--health-check-interval-secs", 1, "--health-check-timeout-secs", 1),
        *("--health-success-threshold", 1),
        *("--cb-failure-threshold", 5, "--cb-success-threshold", 1),
        *("--cb-timeout-duration-secs", 2),
        *("--retry-max-retries", 3, "--retry-max-backoff-ms", 500),
    ]


def _install(cache: Path) -> str:
    python = python_environment(cache / PACKAGE, f"{PACKAGE}=={VERSION}")
    return installed_version(python, PACKAGE)


@contextmanager
def _start(cache: Path, place: Path, engines: Sequence[EngineProcess]) -> Iterator[Running]:
    port = free_port()
    argv = _argv(
        cache / PACKAGE / "bin" / "python", port, free_port(), [each.url for each in engines[:2]]
    )
    url = f"http://{HOST}:{port}"
    with started(argv, log=place / "log", env=os.environ, cwd=place) as router:
        router.until_answers(f"{url}/readiness", {})
        target = Target(
            url=url,
            model="M",
            engines=tuple(engine.url for engine in engines),
            key=KEY,
            total_s=TIMEOUT_S,
            max_body_bytes=MAX_BODY_BYTES,
            pid=router.pid,
        )
        yield Running(target, router.exit_code)


SGLANG_ROUTER = Peer(
    name="SGLang router",
    configs=("benchmarks/peers/sglang_router.py",),
    install=_install,
    start=_start,
    not_claimed={
        **NOT_MODELYARD,
        "limits": "one key for all; --max-concurrent-requests bounds the whole router, not a key",
        "caching": "keeps no answers; `cache_aware` is about the engines' prefix caches",
        "fallbacks": "no setting names another model to ask",
        "errors/unknown-model": _ONE_MODEL,
        "http/after-errors": _ONE_MODEL,
        "routing/models": "learns names from /server_info, an SGLang route that the engines lack",
        "routing/least-busy": "asks SGLang's /get_load for loads, which the engines lack",
        "routing/model-page": "has /v1/models only, no page of one of them",
        "keys/not-relayed": "--api-key is the workers' key, too (its help)",
        "keys/forbidden-model": "its one key opens the one model",
        "keys/duplicate-model": "its one key opens the one model",
        "timeouts/first-token": _ONE_TIMEOUT,
        "timeouts/gap": _ONE_TIMEOUT,
    },
)
