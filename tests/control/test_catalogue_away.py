"""With MLflow away, versions are deployed by their aliases and go on serving (R14)."""

import httpx

from modelyard.api.messages import DeployRequest
from modelyard.core.deployments import DeploymentState
from modelyard.core.replicas import ReplicaState
from modelyard.registry.registry import Registry

from .conftest import Controller


def test_with_mlflow_away_versions_are_deployed_and_serve(
    controller: Controller, free_port: int
) -> None:
    away = f"http://127.0.0.1:{free_port}"
    (controller.home.config).write_text(f"registry:\n  tracking_uri: {away}\n")
    (warning,) = Registry(controller.home, tracking_uri=away).set_alias("yardling:2", "production")
    assert "nobody answers there" in warning

    with controller.start() as client:
        asked = client.deploy(DeployRequest(ref="yardling@production", engine="fake"))
        view = client.wait_until_live(asked.name, asked.generation, 20.0)
        assert view.state is DeploymentState.LIVE
        [replica] = [r for r in client.status().replicas if r.state is ReplicaState.READY]
        assert replica.version == 2
        body = {"model": "yardling", "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{replica.url}/v1/chat/completions", json=body, trust_env=False)
        assert answer.status_code == 200
