"""`modelyard keys` and `explain` on what really runs: one story, from no key to a revoked one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.stacks import running_stack

from modelyard.core.home import Home
from modelyard.core.keyring import secret_hash


def run(home: Path, *words: str, code: int = 0, **environment: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *words, "--home", str(home)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout, done.stderr


def ask(url: str, secret: str | None, text: str = "x") -> httpx.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    body = {"model": "yardling", "messages": [{"role": "user", "content": text}], "max_tokens": 9}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, trust_env=False)


def within(seconds: float, holds: Any) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home on which yardling is served by the fake engine, and its gateway's URL."""
    root = tmp_path_factory.mktemp("keyed")
    with running_stack(root, "yardling") as url:
        run(root, "deploy", "yardling:1", "--engine", "fake")
        yield root, url


def test_from_no_key_to_limits_usage_and_revocation(stack: tuple[Path, str]) -> None:
    home, url = stack
    assert ask(url, None).status_code == 200
    out, _ = run(home, "keys", "list")
    assert "everybody on this machine may ask" in out

    secret, told = run(home, "keys", "create", "alice", "--tenant", "blue",
                       "--limit", "requests_per_min=4", "--name", "notebooks")  # fmt: skip
    secret = secret.strip()
    assert secret.startswith("sk-my-")
    assert "not shown again" in told
    within(2, lambda: ask(url, None).status_code == 401)
    assert ask(url, secret).status_code == 200

    listed = json.loads(run(home, "keys", "list", "--json")[0])
    assert listed[0]["key_id"] == "alice"
    assert "secret" not in str(listed)
    shown, _ = run(home, "keys", "list")
    assert "4 requests/min" in shown
    assert max(map(len, shown.splitlines())) <= 80

    codes = [ask(url, secret).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    refused = ask(url, secret)
    explained, _ = run(home, "explain", refused.headers["x-request-id"])
    assert "rejected (429, rate_limit_exceeded)" in explained
    assert "key alice of tenant blue" in explained
    assert "requests_per_min:key" in explained

    asked, err = run(home, "chat", "hello", MODELYARD_API_KEY="sk-wrong", code=1)
    assert "not known" in err
    assert asked.strip() == ""

    second, _ = run(home, "keys", "rotate", "alice", "--grace", "1h")
    assert second.strip() != secret
    within(2, lambda: ask(url, second.strip()).status_code == 429)  # the same key, the same counts
    assert ask(url, secret).status_code == 429
    run(home, "keys", "limit", "--model", "yardling", "--limit", "tokens_per_day=1_000_000")
    within(10, lambda: _used(home).get("blue", {}).get("requests", 0) >= 8)
    usage, _ = run(home, "keys", "usage")
    assert "blue" in usage
    assert _used(home)["blue"]["completion_tokens"] == 4 * 9

    run(home, "keys", "revoke", "alice")
    within(1.5, lambda: ask(url, second.strip()).status_code == 401)
    _, err = run(home, "keys", "revoke", "alice", code=1)
    assert "there is no key 'alice'" in err
    assert "next: see them with: modelyard keys list" in err
    assert ask(url, None).status_code == 401  # the last key's end does not open the door


def _used(home: Path) -> dict[str, dict[str, int]]:
    rows = json.loads(run(home, "keys", "usage", "--json")[0])
    return {row["tenant"]: row for row in rows}


def test_a_key_can_be_made_without_a_controller(tmp_path: Path) -> None:
    secret, lines = run(tmp_path, "keys", "create", "bob", "--offline", "--model", "m",
                        "--limit", "m:tokens_per_day=1000", "--priority", "low",
                        "--expires-in", "30d")  # fmt: skip
    assert f"sha256: {secret_hash(secret.strip())}" in lines
    told = json.loads(run(tmp_path, "keys", "create", "--offline", "--json")[0])
    config = {"models": [{"name": "m", "upstreams": [{"url": "http://127.0.0.1:9"}]}],
              "keys": [told["key"]]}  # fmt: skip
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    from modelyard.gateway.filesource import read_config

    (entry,) = read_config(tmp_path / "gateway.yaml", {}).keys
    assert entry.secret_sha256 == secret_hash(told["secret"])  # type: ignore[union-attr]
    assert not Home(tmp_path).run.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--limit", "requests_per_min"), "is not KIND=N"),
        (("create", "--limit", "requests_per_hour=5", "--offline"), "there is no limit"),
        (("create", "--expires-in", "soon"), "is no length of time"),
        (("create", "a/b", "--offline"), "not allowed"),
        (("limit",), "whose limits?"),
        (("list",), "nothing runs on the home"),
    ],
)
def test_a_mistake_is_told_in_two_lines(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    _, err = run(tmp_path, "keys", *words, code=1)
    assert said in err
    assert "next: " in err
    assert "Traceback" not in err


def test_usage_of_a_gateway_that_stands_alone_comes_from_its_log(tmp_path: Path) -> None:
    state = Home(tmp_path / "state")
    state.gateway.mkdir(parents=True)
    record = {"request_id": "r", "gateway": "g", "received_at": time.time(), "operation": "chat",
              "stream": False, "outcome": "completed", "status": 200, "e2e_s": 0.1, "model": "m",
              "prompt_tokens": 3, "completion_tokens": 4}  # fmt: skip
    line = json.dumps(record) + "\n"
    (state.gateway / "requests.jsonl").write_text(line * 3 + line[:20])
    (state.gateway / "requests.jsonl.1").write_text(line)
    config = tmp_path / "gateway.yaml"
    config.write_text('{"state_dir": "state", "models": [{"name": "m", "upstreams": '
                      '[{"url": "http://127.0.0.1:9"}]}]}')  # fmt: skip
    rows = json.loads(run(tmp_path, "keys", "usage", "--config", str(config), "--by", "model",
                          "--json")[0])  # fmt: skip
    assert rows == [{"model": "m", "requests": 4, "unsuccessful": 0, "cached": 0,
                     "prompt_tokens": 12, "completion_tokens": 16}]  # fmt: skip
