"""A real Prometheus scrapes a real gateway and a real controller, and evaluates the rules."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.control.conftest import (  # noqa: F401 - fixtures
    Controller,
    controller,
    home,
    registered,
    until,
)
from tests.control.test_controller import QUICK, ready
from tests.observe.prometheus_server import prometheus

from modelyard.api.messages import DeployRequest
from modelyard.control.runfiles import read_record
from modelyard.core.home import Home
from modelyard.observe.rules import rules

ASKED = 150
DEADLINE_S = 60.0


@contextlib.contextmanager
def gateway(home: Home, controller_url: str) -> Iterator[str]:  # noqa: F811 - not the fixture
    """A gateway's process that follows the controller; its URL."""
    record = home.run / "gateway.json"
    with (home.logs / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "modelyard.gateway.main", "--home", str(home.root)),
                *("--listen", "127.0.0.1:0", "--controller", controller_url),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: (found := read_record(record)) and found.pid == process.pid, "gateway.json")
        found = read_record(record)
        assert found is not None
        yield found.url
    finally:
        process.terminate()
        process.wait(30)


def scraping(gateway_url: str, controller_url: str, token: Path, rules_file: Path) -> Any:
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules_file)],
        "scrape_configs": [
            {
                "job_name": "modelyard-gateway",
                "static_configs": [{"targets": [gateway_url.removeprefix("http://")]}],
            },
            {
                "job_name": "modelyard-controller",
                "authorization": {"credentials_file": str(token)},
                "static_configs": [{"targets": [controller_url.removeprefix("http://")]}],
            },
        ],
    }


def query(server: httpx.Client, expression: str) -> list[tuple[dict[str, str], float]]:
    answer = server.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]


def comes(server: httpx.Client, expression: str, holds: Callable[[float], bool]) -> None:
    def held() -> bool:
        found = query(server, expression)
        return bool(found) and holds(sum(value for _, value in found))

    until(held, expression, DEADLINE_S)


def firing(server: httpx.Client) -> set[str]:
    alerts = server.get("/api/v1/alerts").json()["data"]["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


@pytest.mark.timeout(300)
@pytest.mark.service("prometheus")
def test_it_scrapes_both_and_evaluates_the_shipped_rules(
    controller: Controller,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    shipped = rules()
    shipped["groups"][0]["interval"] = "1s"  # not half a minute: the test waits for it
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(shipped))
    with controller.start() as client, gateway(controller.home, client.url) as url:
        asked = client.deploy(DeployRequest(ref="yardling:1", engine="fake", plan=QUICK))
        client.wait_until_live(asked.name, asked.generation, 60.0)
        token = controller.home.metrics_token
        with (
            prometheus(tmp_path, scraping(url, client.url, token, file)) as server,
            httpx.Client(base_url=url, trust_env=False, timeout=30) as asking,
        ):
            body = {"model": asked.name, "messages": [{"role": "user", "content": "Hi"}]}

            def ask(text: str = "Hi") -> int:
                body["messages"] = [{"role": "user", "content": text}]
                return asking.post("/v1/chat/completions", json=body).status_code

            assert ask() == 200
            comes(server, "count(up == 1)", lambda value: value == 2)
            comes(server, "modelyard_live_replicas_ready", lambda value: value == 1)
            comes(server, "modelyard_engine_up", lambda value: value == 1)
            comes(server, "modelyard_requests_total", lambda value: value == 1)
            assert ask("[[fake: status=400]]") == 400  # rejected: the caller's, counts for nothing
            statuses = [ask("[[fake: status=500]]") for _ in range(ASKED)]
            assert set(statuses) <= {500, 502, 503}
            until(lambda: "ModelyardErrorsFast" in firing(server), "the alert fires", DEADLINE_S)
            failed = 'modelyard_requests_total{outcome="failed"}'
            comes(server, f"sum({failed})", lambda value: value == ASKED)
            models = {labels["model"] for labels, _ in query(server, failed)}
            assert models == {asked.name}
            assert "ModelyardCrashLoop" not in firing(server)
            comes(server, "model:modelyard_requests:rate5m", lambda value: value > 0)
            groups = server.get("/api/v1/rules").json()["data"]["groups"]
            health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
            assert set(health.values()) == {"ok"}, health
            assert len(ready(client)) == 1
