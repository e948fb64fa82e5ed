"""The fake engine as an engine, as a command, and as a process."""

import inspect
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from modelyard.cli.fake_engine import fake_engine
from modelyard.core.errors import InvalidConfig
from modelyard.core.facts import ModelFacts
from modelyard.engines.engine import Engine, EngineLaunch
from modelyard.engines.fake import FakeEngine
from modelyard.engines.fake_server.answers import check_answer
from modelyard.engines.fake_server.main import parse
from modelyard.engines.fake_server.settings import Settings

DEADLINE_S = 20.0


@contextmanager
def process(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fake engine in its own process, and its address; ended with the block."""
    argv = [sys.executable, "-m", "modelyard.engines.fake", "--port", "0", *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            facts = json.loads(worker.stdout.readline())
            assert facts["pid"] == worker.pid
            yield worker, facts["url"]
        finally:
            if worker.poll() is None:
                worker.kill()


def asked(text: str, **parameters: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], **parameters}


def launch(tmp_path: Path, **fields: object) -> EngineLaunch:
    given = {"model_path": str(tmp_path), "served_name": "m", "host": "127.0.0.1", "port": 1234}
    return msgspec.convert(given | fields, EngineLaunch)


def test_the_command_is_one_that_the_worker_understands(tmp_path: Path) -> None:
    engine: Engine = FakeEngine()
    asked_for = launch(
        tmp_path, context_length=99, parallel=3, drain_s=5.0, extra_args=["--step-base-s", "0.5"]
    )
    argv = engine.command(asked_for).argv
    assert argv[:3] == (sys.executable, "-m", "modelyard.engines.fake")
    settings = parse(argv[3:])
    assert settings == Settings(
        port=1234,
        model="m",
        model_path=str(tmp_path),
        parallel=3,
        drain_s=5.0,
        context_length=99,
        step_base_s=0.5,
    )


def test_it_runs_any_model() -> None:
    facts = ModelFacts(format="gguf", architecture="x", parameters=1, dtype="F32", size_bytes=1)
    assert FakeEngine().refusal(facts) is None


def test_every_flag_is_an_option_of_the_command_with_the_same_default() -> None:
    options = dict(inspect.signature(fake_engine).parameters)
    del options["home"]
    defaults = {name: option.default for name, option in options.items()}
    assert defaults == msgspec.structs.asdict(Settings())


def test_a_value_out_of_range_is_named() -> None:
    with pytest.raises(InvalidConfig, match="parallel"):
        parse(["--parallel", "0"])


def test_a_missing_model_ends_the_start_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "gone"
    argv = FakeEngine().command(launch(tmp_path, model_path=str(missing), port=0)).argv
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 1
    assert str(missing) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sigterm_finishes_open_requests_and_exits_0() -> None:
    with process("--step-base-s", "0.01", "--drain-s", "10") as (worker, url):
        body = asked("q", stream=True, max_tokens=30)
        text, done = "", False
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_S
        ) as response:
            for line in response.iter_lines():
                if "delta" not in line:
                    done = done or line == "data: [DONE]"
                    continue
                if not text:
                    worker.send_signal(signal.SIGTERM)
                delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                text += delta.get("content", "")
        assert done
        assert check_answer(text, prompt="q").complete
        assert worker.wait(DEADLINE_S) == 0


def test_a_taken_port_is_a_line_of_error() -> None:
    with process() as (_, url):
        argv = [sys.executable, "-m", "modelyard.engines.fake", "--port", url.rpartition(":")[2]]
        ended = subprocess.run(
            argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith("fake-engine: can't listen on 127.0.0.1:")
        assert ended.stderr.count("\n") == 1


def test_a_crash_ends_the_process_with_its_code_after_the_tokens() -> None:
    with process("--step-base-s", "0.005") as (worker, url):
        body = asked("[[fake: tokens=9 crash_after=3 crash_code=42]]", stream=True)
        tokens = 0
        stream = httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_S)
        with pytest.raises(httpx.TransportError), stream as response:
            for line in response.iter_lines():
                tokens += '"content":"t' in line or '"content":" t' in line
        assert tokens == 3
        assert worker.wait(DEADLINE_S) == 42


def test_on_its_own_loop_too_a_refusal_is_a_reset() -> None:
    """uvloop closes sockets in its own way."""
    with process() as (_, url):
        body = json.dumps(asked("[[fake: refuse]]")).encode()
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % len(body) + body)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        rule = {"script": "refuse", "path": "accept", "times": 1}
        with httpx.Client(base_url=url, timeout=DEADLINE_S) as control:
            control.post("/control/faults", json=rule)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{url}/health")
            assert control.get("/control/state").json()["broken"] == 1


def test_sigterm_amid_a_refusing_slow_start_exits_0() -> None:
    argv = [sys.executable, "-m", "modelyard.engines.fake", "--slow-start", "refuse"]
    with subprocess.Popen([*argv, "--slow-start-s", "60"], stdout=subprocess.PIPE) as worker:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not _handles_sigterm(worker.pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            worker.terminate()
            assert worker.wait(DEADLINE_S) == 0
        finally:
            if worker.poll() is None:
                worker.kill()


def _handles_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)
