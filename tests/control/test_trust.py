"""R7: with a trust policy, nothing is started that no trusted key signed."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.control.conftest import Controller

from modelyard.api.messages import DeployRequest
from modelyard.client import Client
from modelyard.core.errors import Untrusted
from modelyard.core.home import Home
from modelyard.registry.keys import KeyPair, make_key_pair
from modelyard.registry.registry import Registry

FIRST = DeployRequest(ref="yardling:1", engine="fake")


@pytest.fixture
def keys(home: Home, tmp_path: Path) -> KeyPair:
    """A home that serves only what this pair signed."""
    pair = make_key_pair(tmp_path / "release.pem")
    policy = f"registry: {{trust: {{require_signed: true, public_keys: [{pair.public}]}}}}"
    home.config.write_text(policy)
    return pair


def bring_up(client: Client) -> None:
    asked = client.deploy(FIRST)
    client.wait_until_live(asked.name, asked.generation, 20.0)


def test_only_what_a_trusted_key_signed_is_started(
    controller: Controller, keys: KeyPair, tmp_path: Path
) -> None:
    registry = Registry(controller.home)
    with controller.start() as client:
        with pytest.raises(Untrusted, match="yardling:1 is not signed") as unsigned:
            bring_up(client)
        assert "modelyard models sign yardling:1 --key" in unsigned.value.next_step

        registry.sign("yardling:1", make_key_pair(tmp_path / "other.pem").private)
        with pytest.raises(Untrusted, match="no trusted key"):
            bring_up(client)

        registry.sign("yardling:1", keys.private)
        bring_up(client)


def test_a_policy_whose_key_can_not_be_read_starts_nothing(home: Home, keys: KeyPair) -> None:
    keys.public.unlink()

    done = subprocess.run(
        [sys.executable, "-m", "modelyard.control.main", "--home", home.root, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert "can't read the public key" in done.stderr
