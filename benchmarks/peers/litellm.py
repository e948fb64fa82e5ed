"""LiteLLM's proxy with a cache in memory, keys from a file, and no database.

Its virtual keys live in PostgreSQL, which it reaches by an engine of Prisma's that is downloaded
when it is set up. Without, `custom_auth` (a documented setting) gives it records of keys; their
models and limits it enforces all the same.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import NOT_MODELYARD, Peer, Running
from benchmarks.peers.processes import (
    HOST,
    free_port,
    installed_version,
    python_environment,
    started,
    written,
)

from modelyard.conformance.target import LimitedKey, LimitKind, Target
from modelyard.conformance.yard import KEYS_PER_LIMIT, LIMITS, EngineProcess

PACKAGE = "litellm"
VERSION = "1.108.7"
PRISMA = "prisma==0.15.0"
"""Brought by some of its extras; without it, some of its errors become others, of an import."""
CONFIG = Path(__file__).with_name("litellm.yaml")
KEYS = Path(__file__).with_name("litellm_keys.py.txt")
GAP_S = 1.0
TOTAL_S = 20.0
OPEN_MODELS = ["M", "SINGLE", "CACHED", "FALLBACK"]
_MAY: dict[str, Any] = {"models": OPEN_MODELS, "user_role": "internal_user"}
_LICENSED = "max_request_size_mb is for holders of its enterprise licence"
_NO_FLIGHTS = "does not make one request of equal ones at once"
_LIMIT_FIELDS: dict[LimitKind, str] = {
    "requests_per_min": "rpm_limit",
    "tokens_per_min": "tpm_limit",
    "concurrent_requests": "max_parallel_requests",
}
"""The suite's names of limits, and those of LiteLLM's records of keys."""


def _install(cache: Path) -> str:
    python = python_environment(cache / PACKAGE, f"{PACKAGE}[proxy]=={VERSION}", PRISMA)
    return installed_version(python, PACKAGE)


def _keys() -> tuple[str, str, tuple[LimitedKey, ...], dict[str, dict[str, Any]]]:
    """A key, another tenant's, those with limits, and the records of all."""
    main, other = _secret(), _secret()
    limited = tuple(
        LimitedKey(_secret(), {kind: limit})
        for kind, limit in LIMITS.items()
        for _ in range(KEYS_PER_LIMIT)
    )
    records: dict[str, dict[str, Any]] = {
        main: {"team_id": "one", **_MAY},
        other: {"team_id": "two", **_MAY},
    }
    for each in limited:
        fields = {_LIMIT_FIELDS[kind]: limit for kind, limit in each.limits.items()}
        records[each.key] = {**_MAY, **fields}
    return main, other, limited, records


def _secret() -> str:
    return "sk-" + secrets.token_hex(16)


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "LITELLM_MASTER_KEY": _secret(),  # the administrator's; the suite never sees it
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices from the package, not from the network
        "LITELLM_MAX_STREAMING_DURATION_SECONDS": f"{TOTAL_S:g}",
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": HOST,
    }


@contextmanager
def _start(cache: Path, place: Path, engines: Sequence[EngineProcess]) -> Iterator[Running]:
    port = free_port()
    main, other, limited, records = _keys()
    (place / "keys.json").write_text(json.dumps(records))
    shutil.copyfile(KEYS, place / "litellm_keys.py")
    urls = dict(zip("abc", (engine.url for engine in engines), strict=True))
    values = {**urls, "gap_s": GAP_S, "total_s": TOTAL_S}
    config = written(CONFIG, place / "litellm.yaml", values)
    argv = [cache / PACKAGE / "bin" / "litellm", "--config", config, "--host", HOST, "--port", port]
    url = f"http://{HOST}:{port}"
    with started(argv, log=place / "log", env=_environment(), cwd=place) as proxy:
        proxy.until_answers(f"{url}/health/liveliness", {})
        target = Target(
            url=url,
            model="M",
            engines=tuple(engine.url for engine in engines),
            key=main,
            single_model="SINGLE",
            cached_model="CACHED",
            fallback_model="FALLBACK",
            forbidden_model="FORBIDDEN",
            other_tenant_key=other,
            limited_keys=limited,
            first_token_s=GAP_S,
            gap_s=GAP_S,
            total_s=TOTAL_S,
            pid=proxy.pid,
        )
        yield Running(target, proxy.exit_code)


LITELLM = Peer(
    name="LiteLLM",
    configs=("benchmarks/peers/litellm.yaml", "benchmarks/peers/litellm.py"),
    install=_install,
    start=_start,
    not_claimed={
        **NOT_MODELYARD,
        "routing/least-busy": "configured with simple-shuffle, by chance, as its documentation "
        "recommends; with least-busy, requests whose clients left count as in flight for good",
        "routing/model-page": "looks for the caller's role in its database",
        "bodies/too-large*": _LICENSED,
        "bodies/up-to-the-bound": _LICENSED,
        "caching/sampled": "keeps what it is told to, sampled or not; a request opts out",
        "caching/no-store": "is told by `cache: {no-store: true}` in the body, not by a header",
        "fallbacks/never-in-mid-stream": "lets the other model go on in mid-stream, by design",
        "caching/single-flight": _NO_FLIGHTS,
        "caching/leader-leaves": _NO_FLIGHTS,
        "caching/failed-flight": _NO_FLIGHTS,
        "caching/tenants-at-once": _NO_FLIGHTS,
    },
)
