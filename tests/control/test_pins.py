"""R10: what a deployment runs can't be taken out, whether or not its controller lives."""

import pytest

from modelyard.api.messages import DeployRequest
from modelyard.core.errors import Conflict
from modelyard.core.home import Home
from modelyard.registry.registry import Registry

from .conftest import Controller, until


def test_what_is_deployed_stays_until_it_is_undeployed(controller: Controller, home: Home) -> None:
    registry = Registry(home)
    with controller.start() as client:
        asked = client.deploy(DeployRequest(ref="yardling:1", as_name="chat", engine="fake"))
        client.wait_until_live(asked.name, asked.generation, 20.0)
        with pytest.raises(Conflict, match="the deployment chat"):
            registry.remove("yardling:1", wait_s=20)
    controller.kill()
    with pytest.raises(Conflict, match="the deployment chat"):
        registry.remove("yardling:1")
    assert registry.gc().garbage == ()

    with controller.start() as client:
        client.undeploy("chat")
        until(lambda: not client.deployments(), "chat is gone")
        until(lambda: "chat" not in _pins(home), "chat is no longer pinned")
    registry.remove("yardling:1", wait_s=20)
    assert registry.gc().garbage
    registry.verify("yardling:2")


def _pins(home: Home) -> str:
    return (home.pins / "controller.json").read_text()
