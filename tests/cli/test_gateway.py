"""`modelyard gateway`: the process that it becomes, and what `check` says of a file."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

Cli = Callable[..., Any]
END_S = 60
"""As long as a start or an end may take on a machine that has much to do."""


class Served:
    """A `modelyard gateway` process."""

    def __init__(self, arguments: list[str], folder: Path, **environment: str) -> None:
        self.log = folder / "gateway.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "modelyard.cli.main", "gateway", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, **environment},
            )

    def said(self) -> str:
        """The line with which it begins to serve."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return line

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(END_S)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts gateways; all are ended."""
    running: list[Served] = []

    def start(*arguments: object, **environment: str) -> Served:
        served = Served([str(each) for each in arguments], tmp_path, **environment)
        running.append(served)
        return served

    yield start
    for served in running:
        served.process.kill()
        served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The URL of a fake engine."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard.engines.fake", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.kill()
    process.wait()
    process.stdout.close()


def write(folder: Path, settings: Any, name: str = "gateway.yaml") -> Path:
    file = folder / name
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return file


def smallest(url: str, **more: Any) -> dict[str, Any]:
    return {
        "listen": "127.0.0.1:0",
        "models": [{"name": "assistant", "upstreams": [{"url": url}], **more}],
    }


def ask(url: str, model: str = "assistant", **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    with httpx.Client(base_url=url, trust_env=False, timeout=END_S) as client:
        return client.post("/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_a_file_until_it_is_told_to_end(
    serve: Callable[..., Served], tmp_path: Path, engine: str, number: signal.Signals
) -> None:
    file = write(tmp_path, smallest(engine))

    served = serve("--config", file, "--home", tmp_path / "home")

    url, serves, names = served.said().split()
    assert (serves, names) == ("serves", "assistant")
    assert ask(url).json()["model"] == "assistant"
    assert served.end(number) == 0
    assert not (tmp_path / "home" / "run" / "gateway.json").exists()


def test_the_process_is_the_gateway_itself(
    serve: Callable[..., Served], tmp_path: Path, engine: str
) -> None:
    served = serve("--config", write(tmp_path, smallest(engine)), "--home", tmp_path / "home")
    served.said()

    record = json.loads((tmp_path / "home" / "run" / "gateway.json").read_text())

    assert record["pid"] == served.process.pid


def test_modules_in_the_folder_it_is_started_in_are_not_ours(
    serve: Callable[..., Served], tmp_path: Path, engine: str
) -> None:
    (tmp_path / "httptools.py").write_text("raise SystemExit('not ours')\n")
    served = serve("--config", write(tmp_path, smallest(engine)), "--home", tmp_path / "home")

    assert "serves assistant" in served.said()


def test_many_models_are_counted(serve: Callable[..., Served], tmp_path: Path, engine: str) -> None:
    models = [{"name": f"m{n}", "upstreams": [{"url": engine}]} for n in range(30)]
    file = write(tmp_path, {"listen": "127.0.0.1:0", "models": models})

    said = serve("--config", file, "--home", tmp_path / "home").said()

    assert said.rstrip().endswith("serves m0, m1, m2, m3, m4, m5, m6, m7 and 22 more")


def test_a_key_is_asked_for_where_there_are_keys(
    serve: Callable[..., Served], tmp_path: Path, engine: str
) -> None:
    keys = {"keys": [{"id": "alice", "secret_env": "ALICE"}]}
    file = write(tmp_path, smallest(engine) | keys)

    said = serve("--config", file, "--home", tmp_path / "home", ALICE="sk-of-alice").said()

    assert said.endswith("serves assistant, to those who have a key\n")
    url = said.split()[0]
    assert ask(url).status_code == 401
    assert ask(url, authorization="Bearer sk-of-alice").status_code == 200


def test_a_file_that_cannot_be_used_is_refused_by_line_and_path(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    file = write(tmp_path, "models:\n  - name: a\n    upstream: []\n")

    served = serve("--config", file, "--home", tmp_path / "home")

    assert served.process.wait(END_S) == 2
    assert served.log.read_text() == (
        f"error: {file} line 3: models[0].upstream: no such setting\n"
        "next: did you mean upstreams?\n"
    )


def test_without_a_file_it_says_how_to_give_one(cli: Cli, tmp_path: Path) -> None:
    done = cli("gateway", "--home", tmp_path)

    assert done.code == 2
    assert "--config" in done.err

    done = cli("gateway", "--config", "a.yaml", "check", "b.yaml")

    assert done.code == 2
    assert "--config" in done.err


def test_check_shows_all_that_is_set(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "upstream.key").write_text("sk-not-to-be-shown\n")
    file = write(
        tmp_path,
        {
            "models": [
                {
                    "name": "assistant",
                    "default": True,
                    "upstreams": [
                        {"url": "http://10.0.0.1:8000", "model": "org/weights", "weight": 2},
                        {"url": "https://api.example.com/of", "api_key_file": "upstream.key"},
                    ],
                    "fallbacks": ["small"],
                    "timeouts": {"total_s": 30},
                    "caching": {"mode": "all", "ttl_s": 60},
                    "limits": {"requests_per_min": 600},
                },
                {"name": "small", "upstreams": [{"url": "http://10.0.0.2"}]},
            ],
            "tenants": [{"name": "blue", "limits": {"tokens_per_day": 100_000_000}}],
            "keys": [
                {"id": "alice", "tenant": "blue", "sha256": "0" * 64, "priority": "low"},
                {"id": "bob", "sha256": "1" * 64, "limits_by_model": {
                    "small": {"concurrent_requests": 2}
                }},
            ],
        },
    )  # fmt: skip

    done = cli("gateway", "check", file)

    assert (done.code, done.err) == (0, "")
    for shown in (
        "(default)", "as org/weights", "weight 2", "key: upstream.key", "600 requests/min",
        "timeouts.total_s: 30", "caching.mode: all", "fallbacks: small", "100000000 tokens/day",
        "low priority", "2 concurrent requests of", "it listens on 127.0.0.1:8000",
    ):  # fmt: skip
        assert shown in done.out
    assert "sk-not-to-be-shown" not in done.out
    longest = max(done.out.split("can be used")[0].splitlines()[:-1], key=len)
    assert len(longest) <= 80


def test_check_prints_the_settings_as_json(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, smallest("http://127.0.0.1:1"))

    facts = json.loads(cli("gateway", "check", file, "--json").out)

    assert facts["ok"] is True
    assert facts["settings"]["models"][0]["upstreams"][0]["url"] == "http://127.0.0.1:1"
    assert facts["settings"]["models"][0]["retries"]["max_attempts"] == 3


def test_check_tells_every_mistake_of_form_with_its_line(cli: Cli, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "listn: 127.0.0.1:8000\n"
        "drain_s: soon\n"
        "models:\n"
        "  - name: a\n"
        "    upstreams: []\n"
        "  - name: b\n"
        "    upstreams:\n"
        "      - url: http://h\n"
        "        wait: 2\n"
        "  - name: c\n"
        "    upstreams: [{url: http://h}]\n"
        "keys:\n"
        "  - tenant: x\n",
    )

    done = cli("gateway", "check", file, "--json")

    assert done.code == 1
    facts = json.loads(done.out)
    assert facts["ok"] is False
    told = [each["message"].removeprefix(f"{file} ") for each in facts["mistakes"]]
    assert told == [
        "line 1: listn: no such setting",
        "line 2: drain_s: Expected `float`, got `str`",
        "line 5: models[0].upstreams: Expected `array` of length >= 1",
        "line 9: models[1].upstreams[0].wait: no such setting",
        "line 13: keys[0]: `id` is missing",
    ]
    assert "next: did you mean listen?" in done.err
    assert "next: did you mean weight?" in done.err or "known here: url" in done.err
    assert done.err.endswith("5 mistakes\n")


def test_check_tells_every_secret_that_is_missing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_KEY", "SECOND_KEY"):
        monkeypatch.delenv(name, raising=False)
    upstreams = [
        {"url": "http://h:1", "api_key_env": "FIRST_KEY"},
        {"url": "http://h:2", "api_key_env": "SECOND_KEY"},
        {"url": "http://h:3", "api_key_file": "third.key"},
    ]
    keys = [{"id": "a", "secret_file": "a.key"}, {"id": "b", "secret_file": "b.key"}]
    file = write(tmp_path, {"models": [{"name": "m", "upstreams": upstreams}], "keys": keys})

    done = cli("gateway", "check", file)

    assert done.code == 1
    for missing in ("FIRST_KEY", "SECOND_KEY", "third.key", "a.key", "b.key"):
        assert missing in done.err
    assert "5 mistakes" in done.err
    assert cli("gateway", "check", file, "--without-secrets").code == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"listen": "0.0.0.0:8000"}, "there are no keys"),
        ({"listen": "nowhere"}, "'nowhere' is not an address"),
        ({"tls": {"cert_file": "c.pem", "key_file": "k.pem"}}, "c.pem is not there"),
        ({"upstream_ca_file": "ca.pem"}, "ca.pem can't be used"),
        ({"models": []}, "models: Expected `array` of length >= 1"),
        ({"models": None}, "models: Expected `array`"),
    ],
)
def test_check_finds_what_only_a_start_would(
    cli: Cli, tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    done = cli("gateway", "check", write(tmp_path, smallest("http://127.0.0.1:1") | more))

    assert done.code == 1
    assert told in done.err
    assert str(tmp_path / "gateway.yaml") in done.err


@pytest.mark.parametrize(
    "text", ["", "- a\n", "models: [\n", "a: b: c\n", "7: 8\n", "\0", "models: {}\n"]
)
def test_check_survives_any_text(cli: Cli, tmp_path: Path, text: str) -> None:
    done = cli("gateway", "check", write(tmp_path, text))

    assert done.code == 1
    assert done.err.startswith(f"error: {tmp_path / 'gateway.yaml'}")


LITELLM = """
model_list:
  - model_name: assistant
    litellm_params:
      model: openai/org/weights
      api_base: {url}/v1
      api_key: sk-of-the-upstream
  - model_name: claude
    litellm_params: {{model: bedrock/claude}}
router_settings: {{model_group_alias: {{gpt-4: assistant}}, redis_host: redis}}
general_settings: {{master_key: os.environ/LITELLM_MASTER_KEY}}
"""


def test_an_imported_file_is_served(
    cli: Cli, serve: Callable[..., Served], tmp_path: Path, engine: str
) -> None:
    source = write(tmp_path, LITELLM.format(url=engine), "litellm.yaml")
    output = tmp_path / "gateway.yaml"

    done = cli("gateway", "import-litellm", source, "--output", output)

    assert (done.code, done.err) == (0, "")
    assert "model_list[1]: bedrock/claude" in done.out
    assert "set before it starts: ASSISTANT_API_KEY, LITELLM_MASTER_KEY" in done.out
    assert "sk-of-the-upstream" not in done.out + output.read_text()
    output.write_text(output.read_text().replace("127.0.0.1:4000", "127.0.0.1:0"))
    served = serve(
        "--config", output, "--home", tmp_path / "home",
        ASSISTANT_API_KEY="sk-of-the-upstream", LITELLM_MASTER_KEY="sk-master",
    )  # fmt: skip
    url = served.said().split()[0]
    for model in ("assistant", "gpt-4"):
        answer = ask(url, model, authorization="Bearer sk-master")
        assert answer.status_code == 200, answer.text
    with httpx.Client(base_url=engine, trust_env=False) as client:
        seen = client.get("/control/requests").json()[-1]
    assert ["authorization", "Bearer sk-of-the-upstream"] in seen["headers"]
    assert served.end() == 0


def test_import_tells_everything_as_json(cli: Cli, tmp_path: Path) -> None:
    source = write(tmp_path, LITELLM.format(url="http://h:1"), "litellm.yaml")
    output = tmp_path / "new.yaml"

    facts = json.loads(cli("gateway", "import-litellm", source, "-o", output, "--json").out)

    assert facts["models"] == ["assistant", "gpt-4"]
    assert facts["output"] == str(output)
    assert {note["path"] for note in facts["notes"] if not note["taken"]} == {
        "model_list[1]", "router_settings.redis_host",
    }  # fmt: skip
    for note in facts["notes"]:
        assert note["why"]
        assert note["instead"]


def test_import_does_not_write_over_a_file(cli: Cli, tmp_path: Path) -> None:
    source = write(tmp_path, LITELLM.format(url="http://h:1"), "litellm.yaml")
    output = write(tmp_path, "mine", "mine.yaml")

    done = cli("gateway", "import-litellm", source, "--output", output)

    assert done.code == 1
    assert "--force" in done.err
    assert output.read_text() == "mine"
    assert cli("gateway", "import-litellm", source, "-o", output, "--force").code == 0
    assert "assistant" in output.read_text()


@pytest.mark.parametrize(
    "text",
    ["", "model_list: []\n", "model_list: [{model_name: '*', litellm_params: {model: '*'}}]\n"],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_import_fails_where_nothing_can_be_used(
    cli: Cli, tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    source = write(tmp_path, text, "litellm.yaml")
    output = tmp_path / "gateway.yaml"

    done = cli("gateway", "import-litellm", source, "--output", output, *flags)

    assert done.code == 1
    assert f"error: {source}" in done.err
    assert not output.exists()
    if flags:
        assert "error" in json.loads(done.out)


def test_import_fits_into_80_columns_but_for_paths(cli: Cli, tmp_path: Path) -> None:
    source = write(tmp_path, LITELLM.format(url="http://h:1"), "litellm.yaml")

    done = cli("gateway", "import-litellm", source, "--output", tmp_path / "new.yaml")

    told = done.out.partition(str(tmp_path))[0]
    assert max(map(len, told.splitlines())) <= 80
