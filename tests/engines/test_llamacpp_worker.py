"""The llama.cpp worker, each promise on a real one with a tiny model."""

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.engines.llamacpp_replica import Worker, free_port, spawn, until, worker

from modelyard.core.metrics import engines as ours
from modelyard.core.metrics.declaration import Metric
from modelyard.core.metrics.translation import translate
from modelyard.core.metrics.vocabularies import LLAMACPP
from modelyard.engines.llamacpp import LlamaCpp
from modelyard.forms.conversion import convert

MODEL = Path(__file__).parents[1] / "forms" / "golden" / "qwen3"
CONTEXT = 1 << 16
LONG = {"prompt": "Hello", "max_tokens": 4000, "ignore_eos": True}
"""A request that takes a second or more."""
FOREVER = LONG | {"max_tokens": 65_000}
"""One that takes many."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GGUF file."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    convert(MODEL, path, name="tiny")
    return path


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a long context: the engine ends an answer where the model's context ends."""
    folder = tmp_path_factory.mktemp("long")
    for file in MODEL.iterdir():
        shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, folder / "long.gguf", name="long")
    return folder / "long.gguf"


@pytest.fixture(scope="module")
def replica(long_model: Path) -> Iterator[Worker]:
    """One worker for all tests that leave it as it was."""
    with worker(long_model) as started:
        yield started


def test_it_answers_chat_and_completions(replica: Worker) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    chat = replica.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 4})
    assert chat.json()["usage"]["completion_tokens"] == 4
    assert chat.json()["model"] == "tiny"
    text = replica.http.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 4})
    assert text.json()["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize("operation", ["responses", "messages"])
def test_it_answers_the_other_operations_that_it_claims(replica: Worker, operation: str) -> None:
    assert operation in LlamaCpp.capabilities.operations
    given: dict[str, object] = (
        {"input": "Hello", "max_output_tokens": 4}
        if operation == "responses"
        else {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    )
    answer = replica.http.post(f"/v1/{operation}", json=given)
    assert answer.status_code == 200
    assert answer.json()["usage"]["output_tokens"] == 4


def test_usage_comes_in_the_last_chunk(replica: Worker) -> None:
    ask = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    lines = replica.http.post("/v1/chat/completions", json=ask).text.split("\n\n")
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 4


def test_a_client_that_leaves_a_stream_frees_its_slot(replica: Worker) -> None:
    with replica.http.stream("POST", "/v1/completions", json=FOREVER | {"stream": True}) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        assert replica.busy() == 1
    left = time.monotonic()
    until(lambda: replica.busy() == 0)
    assert time.monotonic() - left < 1.0


def test_a_client_that_leaves_before_any_answer_frees_its_slot(replica: Worker) -> None:
    body = json.dumps(FOREVER)
    with socket.create_connection(("127.0.0.1", replica.port)) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall((head + body).encode())
        until(lambda: replica.busy() == 1)
    # Each look at /slots puts the server's own look at its client off by a second.
    time.sleep(1.3)
    until(lambda: replica.busy() == 0, 4.0, every_s=1.3)


def test_a_request_over_the_context_gets_400_and_the_engine_lives(model: Path) -> None:
    with worker(model, "--context-length", "256", parallel=3) as small:
        assert [slot["n_ctx"] for slot in small.http.get("/slots").json()] == [256] * 3
        prompt = [300] * 300
        refused = small.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 4})
        assert refused.status_code == 400
        assert refused.json()["error"]["n_prompt_tokens"] == 300
        bounded = small.http.post("/v1/completions", json=FOREVER).json()
        assert bounded["choices"][0]["finish_reason"] == "length"
        assert bounded["usage"]["total_tokens"] <= 257


def test_the_model_s_own_context_is_the_default(model: Path) -> None:
    with worker(model) as plain:
        assert [slot["n_ctx"] for slot in plain.http.get("/slots").json()] == [256] * 2


def test_greedy_output_is_the_same_alone_and_batched(replica: Worker) -> None:
    ask = {"prompt": "Hello, how", "max_tokens": 24, "temperature": 0, "cache_prompt": False}
    alone = replica.http.post("/v1/completions", json=ask).json()["choices"][0]["text"]
    with replica.http.stream("POST", "/v1/completions", json=FOREVER | {"stream": True}) as other:
        chunks = other.iter_bytes()
        next(chunks)
        together = replica.http.post("/v1/completions", json=ask).json()["choices"][0]["text"]
    assert together == alone


def test_a_repeated_prompt_is_taken_from_the_cache(replica: Worker) -> None:
    ask = {"prompt": "What is 12 + 7? It is 19. What is 2+2?", "max_tokens": 1}
    replica.http.post("/v1/completions", json=ask)
    again = replica.http.post("/v1/completions", json=ask).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_its_metrics_are_there_under_the_mapped_names(replica: Worker) -> None:
    replica.http.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 4})

    def values() -> dict[Metric, float]:
        told = translate(replica.http.get("/metrics").text, LLAMACPP)
        assert told.unmapped == ()
        return {sample.metric: sample.value for sample in told.samples}

    until(lambda: values()[ours.RUNNING] == 0)
    told = values()
    assert told[ours.WAITING] == 0
    assert told[ours.COMPLETION_TOKENS] >= 4
    assert told[ours.PROMPT_TOKENS] == told[ours.PREFIX_QUERIES] > 0
    assert ours.PREFIX_HITS in told


def test_no_web_page_may_ask_it(replica: Worker) -> None:
    answer = replica.http.get("/health", headers={"Origin": "http://evil.example"})
    assert answer.headers.get("access-control-allow-origin", "") == ""
    assert replica.http.get("/").status_code == 404


def test_many_idle_connections_do_not_hold_up_its_probe(replica: Worker) -> None:
    idle = [socket.create_connection(("127.0.0.1", replica.port)) for _ in range(100)]
    try:
        begun = time.monotonic()
        assert httpx.get(f"http://127.0.0.1:{replica.port}/health").status_code == 200
        assert time.monotonic() - begun < 2.0
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_one_ends_at_once_when_told(model: Path, number: signal.Signals) -> None:
    with worker(model) as idle:
        told = time.monotonic()
        idle.process.send_signal(number)
        assert idle.process.wait(timeout=10) == 0
        assert time.monotonic() - told < 1.0


def test_it_finishes_what_it_has_before_it_ends(long_model: Path) -> None:
    answers: list[int] = []
    with worker(long_model) as busy:

        def ask() -> None:
            answer = httpx.post(
                f"http://127.0.0.1:{busy.port}/v1/completions", json=LONG, timeout=60
            )
            answers.append(answer.json()["usage"]["completion_tokens"])

        client = threading.Thread(target=ask)
        client.start()
        until(lambda: busy.busy() == 1)
        busy.process.terminate()
        assert busy.process.wait(timeout=60) == 0
        client.join()
    assert answers == [4000]


def test_it_cuts_what_outlasts_the_drain(long_model: Path) -> None:
    with worker(long_model, "--drain-s", "0.1") as busy:
        with busy.http.stream("POST", "/v1/completions", json=FOREVER | {"stream": True}) as answer:
            chunks = answer.iter_bytes()
            next(chunks)
            busy.process.terminate()
            assert busy.process.wait(timeout=10) == 0
            chunks.close()
        assert busy.process.stderr is not None
        assert "requests cut: 1" in busy.process.stderr.read()


def refusal(model: Path, port: int | None = None) -> str:
    """The reason that a worker gives when it does not start."""
    process = spawn(model, port or free_port())
    _, words = process.communicate(timeout=30)
    assert process.returncode == 1
    return words.splitlines()[-1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    assert refusal(missing) == f"error: {missing}: No such file or directory"


def test_what_is_not_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("Once upon a time")
    assert refusal(path) == f"error: {path}: not a GGUF file"


@pytest.mark.parametrize("kept_bytes", [40, 1000, 200_000])
def test_a_cut_file_is_refused(model: Path, tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model.read_bytes()[:kept_bytes])
    assert str(path) in refusal(path)


def test_an_unknown_architecture_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    path.write_bytes(model.read_bytes().replace(b"qwen3", b"qwxn3"))
    assert str(path) in refusal(path)


def test_a_taken_port_is_named(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(model, port) == (
            f"error: can't listen on 127.0.0.1:{port}: Address already in use"
        )
