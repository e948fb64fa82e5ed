"""`models keygen`, `models sign` and `models verify` on the packaged demo weights."""

import importlib.resources
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.registry.registry import Registry

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the demo weights as `small:1`."""
    root = tmp_path_factory.mktemp("home")
    packaged = importlib.resources.files("modelyard.demo") / "yardling" / "1"
    with importlib.resources.as_file(packaged) as folder:
        Registry(root).register("small", folder)
    return root


@pytest.fixture
def copy(registered: Path, tmp_path: Path) -> Path:
    """A home of this test's own."""
    return Path(shutil.copytree(registered, tmp_path / "home"))


def test_from_a_key_pair_to_a_signed_version(cli: Cli, copy: Path, tmp_path: Path) -> None:
    key = tmp_path / "release.pem"
    made = cli("models", "keygen", key)
    digest = Registry(copy).get("small").digest

    signed = cli("models", "sign", "small", "--key", key, "--home", copy)
    public = tmp_path / "release.pub.pem"
    verified = cli("models", "verify", "small", "--public-key", public, "--home", copy)

    assert (made.code, stat.S_IMODE(key.stat().st_mode)) == (0, 0o600)
    assert signed.out.startswith("signed small:1\n")
    assert verified.code == 0
    assert "small:1  whole; small:1 is signed by the trusted key" in verified.out
    assert Registry(copy).get("small").digest == digest
    secret = key.read_text().splitlines()[1]
    assert all(secret not in run.out + run.err for run in (made, signed, verified))


def test_what_is_not_signed_by_the_key_asked_for_exits_1(
    cli: Cli, copy: Path, tmp_path: Path
) -> None:
    cli("models", "keygen", tmp_path / "release.pem")

    done = cli(
        "models", "verify", "small", "--public-key", tmp_path / "release.pub.pem", "--home", copy
    )

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: small:1 is not signed\nnext: ")


def test_the_trust_policy_of_the_home_holds_without_options(
    cli: Cli, copy: Path, tmp_path: Path
) -> None:
    cli("models", "keygen", tmp_path / "release.pem")
    shutil.copy(tmp_path / "release.pub.pem", copy / "release.pub.pem")
    policy = "registry: {trust: {require_signed: true, public_keys: [release.pub.pem]}}"
    (copy / "config.yaml").write_text(policy)

    before = cli("models", "verify", "--all", "--home", copy, "--json")
    signed = cli("models", "sign", "small", "--key", tmp_path / "release.pem", "--home", copy)
    after = cli("models", "verify", "--all", "--home", copy, "--json")

    assert (before.code, signed.code, after.code) == (1, 0, 0)
    (refused,) = json.loads(before.out)["versions"]
    assert (refused["ok"], refused["error"]["code"]) == (False, "untrusted")
    (passed,) = json.loads(after.out)["versions"]
    assert (passed["ok"], passed["error"], len(passed["signed_by"])) == (True, None, 1)


def test_a_damaged_file_is_named(cli: Cli, copy: Path) -> None:
    registry = Registry(copy)
    (weights,) = [
        file for file in registry.get("small").manifest.files if file.path == "model.safetensors"
    ]
    blob = registry.blobs.path(weights.sha256)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)

    one = cli("models", "verify", "small", "--home", copy)
    every = cli("models", "verify", "--all", "--home", copy)

    for done in (one, every):
        assert done.code == 1
        assert "error: model.safetensors of small:1" in done.err


def test_a_damaged_manifest_does_not_end_the_check_of_all(
    cli: Cli, copy: Path, tmp_path: Path
) -> None:
    registry = Registry(copy)
    digest = registry.get("small").digest
    source = tmp_path / "other"
    source.mkdir()
    for file in registry.load("small").iterdir():
        shutil.copy(file, source)
    (source / "more.txt").write_text("another version")
    registry.register("whole", source)
    manifest = copy / "manifests" / f"{digest.removeprefix('sha256:')}.json"
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")

    every = cli("models", "verify", "--all", "--home", copy)

    assert every.code == 1
    assert "manifest" in every.err
    assert "whole:1  whole" in every.out


def test_verify_needs_a_ref_or_all(cli: Cli, copy: Path) -> None:
    assert cli("models", "verify", "--home", copy).code == 2
    assert cli("models", "verify", "small", "--all", "--home", copy).code == 2


def test_a_policy_that_nothing_can_pass_is_refused(cli: Cli, copy: Path) -> None:
    (copy / "config.yaml").write_text("registry: {trust: {require_signed: true}}")

    done = cli("models", "verify", "--all", "--home", copy)

    assert done.code == 2
    assert "public_keys is empty" in done.err
