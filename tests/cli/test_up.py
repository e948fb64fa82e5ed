"""`modelyard up` as people run it: real gateway, real controller, fake engines as workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

import httpx
import psutil
import pytest
from tests.collector import Collector, attributes

from modelyard.api.messages import DeployRequest
from modelyard.client import Client
from modelyard.control.runfiles import read_record
from modelyard.core.errors import ModelyardError
from modelyard.core.home import Home
from modelyard.registry.registry import Registry


def until(condition: Callable[[], object], what: str, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)


def processes_of(home: Home) -> list[psutil.Process]:
    """Everything that runs for the home: it names the home in its arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(home.root) in word for word in words):
            found.append(process)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    one = Home(tmp_path / "home")
    yield one
    for process in processes_of(one):
        process.kill()


@pytest.fixture
def ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


def start(home: Home, ports: tuple[int, int], *more: str) -> subprocess.Popen[str]:
    """In a session of its own, so that a signal is not meant for this one."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "modelyard.cli.main", "up", "--home", str(home.root)),
            *("--gateway-port", str(ports[0]), "--port", str(ports[1]), *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def refused(home: Home, ports: tuple[int, int], *more: str) -> tuple[int, str]:
    """Exit code and standard error of an `up` that does not come up."""
    process = start(home, ports, *more)
    try:
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, error


def is_up(home: Home) -> bool:
    try:
        with Client.from_home(home) as client:
            return client.status().gateway.state == "running"
    except ModelyardError:
        return False


def controller_of(home: Home) -> int:
    """Process id of the controller that listens; 0 while none does."""
    record = read_record(home.run / "controller.json")
    return record.pid if record else 0


def register(home: Home) -> None:
    with as_file(files("modelyard.demo") / "yardling" / "1") as source:
        Registry(home).register("yardling", source)


def answers(port: int) -> bool:
    body = {"model": "yardling", "messages": [{"role": "user", "content": "Hi"}]}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    try:
        return httpx.post(url, json=body, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_it_serves_survives_its_parts_and_leaves_nothing(
    home: Home, ports: tuple[int, int]
) -> None:
    register(home)
    up = start(home, ports)
    try:
        until(lambda: is_up(home), "up")
        with Client.from_home(home) as client:
            asked = client.deploy(DeployRequest(ref="yardling:1", engine="fake"))
            client.wait_until_live(asked.name, asked.generation, 30)
            before = client.status()
        assert answers(ports[0])

        os.kill(before.controller.pid, signal.SIGKILL)
        assert answers(ports[0])
        until(lambda: is_up(home), "the controller is back")
        assert before.gateway.pid
        os.kill(before.gateway.pid, signal.SIGKILL)
        until(lambda: answers(ports[0]), "the gateway is back")
        with Client.from_home(home) as client:
            after = client.status()
        assert after.controller.pid != before.controller.pid
        assert [r.pid for r in after.replicas] == [r.pid for r in before.replicas]

        # The supervisor itself is killed: what it left serves on, and a new one takes over.
        up.kill()
        up.communicate()
        assert answers(ports[0])
        up = start(home, ports)
        until(lambda: controller_of(home) not in (0, after.controller.pid), "it has a controller")
        until(lambda: is_up(home) and answers(ports[0]), "it is whole again")
        assert len(processes_of(home)) == 4
        with Client.from_home(home) as client:
            assert [r.pid for r in client.status().replicas] == [r.pid for r in before.replicas]
        code, error = refused(home, ports)
        assert (code, len(error.splitlines())) == (1, 2)
        assert f"pid {up.pid}, gateway http://127.0.0.1:{ports[0]}" in error

        up.send_signal(signal.SIGINT)
        out, _ = up.communicate(timeout=30)
        assert up.returncode == 0
        assert f"http://127.0.0.1:{ports[0]}/v1" in out
        assert processes_of(home) == []
    finally:
        up.kill()
        up.communicate()


def test_a_closed_terminal_ends_it(home: Home, ports: tuple[int, int]) -> None:
    up = start(home, ports)
    try:
        until(lambda: (home.run / "gateway.json").exists(), "up")
        up.send_signal(signal.SIGHUP)
        up.communicate(timeout=30)
        assert up.returncode == 0
        assert processes_of(home) == []
    finally:
        up.kill()
        up.communicate()


@pytest.mark.parametrize(("which", "option"), [(0, "--gateway-port"), (1, "--port")])
def test_a_taken_port_is_named_and_nothing_is_begun(
    home: Home, ports: tuple[int, int], which: int, option: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[which]))
        taken.listen()
        code, error = refused(home, ports)
    assert code == 1
    assert str(ports[which]) in error
    assert option in error
    assert not home.root.exists()


def test_a_deployment_that_was_asked_for_and_is_not_known_ends_it(
    home: Home, ports: tuple[int, int]
) -> None:
    code, error = refused(home, ports, "--deploy", "nobody:1")
    assert code == 1
    assert "nobody" in error
    assert processes_of(home) == []


def test_an_unknown_setting_is_a_usage_error(home: Home, ports: tuple[int, int]) -> None:
    home.root.mkdir()
    home.config.write_text("gateway:\n  prot: 8000\n")
    code, error = refused(home, ports)
    assert code == 2
    assert "unknown key 'gateway.prot'" in error
    assert "did you mean 'gateway.port'" in error


def test_traces_and_the_request_log_reach_the_gateway(
    home: Home, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(home)
    receiver = Collector()
    monkeypatch.setenv("A_TOKEN", "Bearer hunter2")
    home.config.write_text(
        f"telemetry: {{traces: {{endpoint: '{receiver.url}', sample: 1.0, "
        "headers_env: {authorization: A_TOKEN}}}\n"
        "gateway: {request_log: {file: requests.jsonl}}\n"
    )
    up = start(home, ports)
    try:
        until(lambda: is_up(home), "up")
        with Client.from_home(home) as client:
            asked = client.deploy(DeployRequest(ref="yardling:1", engine="fake"))
            client.wait_until_live(asked.name, asked.generation, 30)
        until(lambda: answers(ports[0]), "it answers")
        until(lambda: receiver.spans, "a span")
        # The secret is read by the gateway itself: it is on no command line.
        words = [word for process in processes_of(home) for word in process.cmdline()]
        assert any("A_TOKEN" in word for word in words)
        assert not any("hunter2" in word for word in words)
    finally:
        up.terminate()
        up.communicate(timeout=60)
        receiver.close()
    assert receiver.posts[0][1]["authorization"] == "Bearer hunter2"
    traced = {attributes(span)["modelyard.request_id"]: span for span in receiver.spans}
    lines = (home.gateway / "requests.jsonl").read_text().splitlines()
    logged = {line["request_id"]: line for line in map(json.loads, lines)}
    assert set(traced) == set(logged)
    for request_id, span in traced.items():
        assert logged[request_id]["trace_id"] == span.trace_id.hex()


@pytest.mark.parametrize(
    ("config", "told", "next_step"),
    [
        ("{endpoint: 'localhost:4318'}", "telemetry.traces.endpoint: not the URL", "/v1/traces"),
        ("{endpoint: 'http://h', headers_env: {a: NO_SUCH}}", "NO_SUCH is empty", "set it"),
        ("{endpoint: 'http://h', sample: 2}", "telemetry.traces.sample", "SAMPLE"),
        ("{endpont: 'http://h'}", "'telemetry.traces.endpont'", "'telemetry.traces.endpoint'"),
    ],
)
def test_traces_that_can_not_be_sent_stop_the_start(
    home: Home, ports: tuple[int, int], config: str, told: str, next_step: str
) -> None:
    home.root.mkdir()
    home.config.write_text(f"telemetry: {{traces: {config}}}\n")
    code, error = refused(home, ports)
    assert code == 2
    assert told in error
    assert next_step in error
    assert processes_of(home) == []
