"""The gateway that `self` starts is given all that a check may need, and what is started ends."""

import json
import os
from pathlib import Path

import psutil
import pytest

from modelyard.conformance.target import GIVEN_BY, LIMIT_KINDS
from modelyard.conformance.yard import (
    KEYS_PER_LIMIT,
    EngineProcess,
    gateway_config,
    planned_target,
    running_engines,
    running_gateway,
)
from modelyard.core.errors import LaunchFailed
from modelyard.gateway.filesource import read_config

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]


def test_every_need_is_given() -> None:
    target = planned_target(URLS)

    assert target.lacks(tuple(GIVEN_BY)) == ("pid",)  # known when it runs
    for kind in LIMIT_KINDS:
        assert sum(kind in each.limits for each in target.limited_keys) == KEYS_PER_LIMIT


def test_the_configuration_holds_no_secret_and_is_one(tmp_path: Path) -> None:
    target = planned_target(URLS)
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(gateway_config(target)))

    found = read_config(file, {})

    assert found.settings.max_body_bytes == target.max_body_bytes
    secrets = [target.key, target.other_tenant_key, *(each.key for each in target.limited_keys)]
    assert not any(str(secret) in file.read_text() for secret in secrets)
    short = next(m for m in found.settings.models if m.name == target.single_model).timeouts
    assert (short.first_token_s, short.gap_s, short.total_s) == (
        target.first_token_s, target.gap_s, target.total_s,
    )  # fmt: skip


def test_the_gateway_runs_and_ends(engines: list[EngineProcess]) -> None:
    with running_gateway(engines) as gateway:
        pid = gateway.target.pid
        assert pid is not None
        assert psutil.pid_exists(pid)
        assert gateway.exit_code() is None

    assert gateway.exit_code() == 0
    assert not psutil.pid_exists(pid)


def test_engines_end_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), running_engines() as started:
        pids = [engine.pid for engine in started]
        assert all(map(psutil.pid_exists, pids))
        raise ZeroDivisionError

    assert not any(map(psutil.pid_exists, pids))
    assert len({*pids, os.getpid()}) == 4


def test_a_port_that_is_taken_is_said(engines: list[EngineProcess]) -> None:
    taken = int(engines[1].url.rpartition(":")[2])

    with pytest.raises(LaunchFailed, match=f"engine B did not start on port {taken}"):  # noqa: SIM117
        with running_engines((0, taken, 0)):
            pytest.fail("it was started")
