"""R7: versions signed offline with key pairs; what was signed is exactly the manifest's files."""

import json
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.registry.conftest import MakeModel

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.core.facts import ModelFacts
from modelyard.core.trust import SignatureCheck
from modelyard.registry.keys import KeyPair, make_key_pair, read_public_keys
from modelyard.registry.manifest import FileEntry, build_manifest, canonical, digest_of
from modelyard.registry.registry import Registry
from modelyard.registry.signing import Signatures
from modelyard.registry.versions import ModelVersion

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return make_key_pair(tmp_path / "release.pem")


@pytest.fixture
def signatures(tmp_path: Path) -> Signatures:
    return Signatures(tmp_path / "signatures")


@pytest.fixture
def version() -> ModelVersion:
    manifest = build_manifest(
        [
            FileEntry(path="a/weights.bin", sha256="11" * 32, size_bytes=5),
            FileEntry(path="empty.txt", sha256=EMPTY, size_bytes=0),
        ]
    )
    facts = ModelFacts(format="gguf", architecture="x", parameters=1, dtype="F16", size_bytes=5)
    return ModelVersion(
        name="m",
        version=1,
        digest=digest_of(canonical(manifest)),
        manifest=manifest,
        facts=facts,
        created_at=0.0,
        size_bytes=5,
    )


def check(signatures: Signatures, version: ModelVersion, *keys: KeyPair) -> SignatureCheck:
    """What the one signature there is counts for when `keys` are trusted."""
    (found,) = signatures.check(version, read_public_keys(pair.public for pair in keys))
    return found


def test_a_signature_holds_for_its_files_and_key(
    signatures: Signatures, version: ModelVersion, keys: KeyPair
) -> None:
    made = signatures.sign(version, keys.private)

    assert made.key_id == keys.key_id
    assert check(signatures, version, keys).holds
    assert signatures.key_ids(version.digest) == [keys.key_id]


def test_a_key_that_is_not_trusted_counts_for_nothing(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, tmp_path: Path
) -> None:
    other = make_key_pair(tmp_path / "other.pem")
    signatures.sign(version, keys.private)

    found = check(signatures, version, other)

    assert (found.trusted, found.holds) == (False, False)


@pytest.mark.parametrize("change", ["emptied", "empty removed", "empty added", "byte", "renamed"])
def test_whatever_differs_from_the_signed_files_is_found(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, change: str
) -> None:
    signatures.sign(version, keys.private)
    weights, empty = version.manifest.files
    files = {
        "emptied": [msgspec.structs.replace(weights, sha256=EMPTY, size_bytes=0), empty],
        "empty removed": [weights],
        "empty added": [weights, empty, msgspec.structs.replace(empty, path="more.txt")],
        "byte": [msgspec.structs.replace(weights, sha256="22" * 32), empty],
        "renamed": [msgspec.structs.replace(weights, path="b/weights.bin"), empty],
    }[change]

    found = check(
        signatures, msgspec.structs.replace(version, manifest=build_manifest(files)), keys
    )

    assert found.trusted
    assert found.problem.startswith("it can't be verified (Signature mismatch")


def test_a_signature_in_anothers_place_or_damaged_does_not_hold(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, tmp_path: Path
) -> None:
    other = make_key_pair(tmp_path / "other.pem")
    path = signatures.sign(version, keys.private).path
    bundle = json.loads(path.read_text())

    def problem_of(text: str, pair: KeyPair) -> str:
        path.unlink(missing_ok=True)
        path.with_name(f"{other.key_id}.json").unlink(missing_ok=True)
        path.with_name(f"{pair.key_id}.json").write_text(text)
        return check(signatures, version, pair).problem

    assert "Key mismatch" in problem_of(json.dumps(bundle), other)
    bundle["verificationMaterial"]["publicKey"]["hint"] = other.key_id
    assert problem_of(json.dumps(bundle), other) == "its signature is not that key's"
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    assert problem_of(json.dumps(bundle), keys) == "it does not name its key"
    for text in ("", "[]", "{", '{"verificationMaterial": 3}', "null"):
        assert problem_of(text, keys).startswith("it can't be verified")


def test_several_keys_sign_one_version_and_again_replaces(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, tmp_path: Path
) -> None:
    other = make_key_pair(tmp_path / "other.pem")
    for pair in (keys, other, keys):
        signatures.sign(version, pair.private)

    trusted = read_public_keys([keys.public, other.public])
    found = signatures.check(version, trusted)

    assert [one.holds for one in found] == [True, True]


def test_model_signings_own_tool_accepts_the_signature_for_the_files(
    registry: Registry, make_model: MakeModel, keys: KeyPair
) -> None:
    from model_signing import verifying

    folder = make_model()
    version = registry.register("small", folder).version
    path = registry.sign("small", keys.private).path
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys.public)

    config.verify(folder, path)
    config.verify(registry.load("small"), path)
    (folder / "another-empty.txt").touch()
    with pytest.raises(ValueError, match="another-empty"):
        verifying.Config().use_elliptic_key_verifier(public_key=keys.public).verify(folder, path)
    assert registry.get("small").digest == version.digest


def test_signing_reads_no_weights(registry: Registry, make_model: MakeModel, keys: KeyPair) -> None:
    version = registry.register("small", make_model()).version
    for file in version.manifest.files:
        registry.blobs.path(file.sha256).unlink()

    registry.sign("small", keys.private)

    assert registry.trust("small", [keys.public], require_signed=True).allowed


def test_trust_is_asked_of_a_version(
    registry: Registry, make_model: MakeModel, keys: KeyPair
) -> None:
    registry.register("small", make_model())

    before = registry.trust("small:1", [keys.public], require_signed=True)
    registry.sign("small:1", keys.private)
    after = registry.trust("small:1", [keys.public], require_signed=True)

    assert (before.allowed, before.reason) == (False, "small:1 is not signed")
    assert (after.allowed, after.signed_by) == (True, (keys.key_id,))


def test_a_private_key_is_its_owners_only_and_never_replaced(keys: KeyPair) -> None:
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in keys.public.read_bytes()
    with pytest.raises(Conflict, match="is there already"):
        make_key_pair(keys.private)


def test_keys_that_cannot_sign_are_refused_with_the_reason(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, tmp_path: Path
) -> None:
    def refusal(key: Path, password: bytes | None = None) -> str:
        with pytest.raises(InvalidRequest) as refused:
            signatures.sign(version, key, password)
        assert refused.value.next_step
        return refused.value.message

    assert "No such file" in refusal(tmp_path / "nothing.pem")
    assert "no private key in PEM" in refusal(_private(tmp_path / "a", keys.public.read_bytes()))
    assert "is not encrypted" in refusal(keys.private, b"secret")
    assert "elliptic-curve" in refusal(_openssl(tmp_path / "e.pem", "ED25519"))
    keys.private.chmod(0o640)
    assert "can be read by other users" in refusal(keys.private)
    with pytest.raises(InvalidRequest, match="no public key in PEM"):
        read_public_keys([_private(tmp_path / "b", b"junk")])


def test_an_encrypted_key_signs_with_its_password(
    signatures: Signatures, version: ModelVersion, keys: KeyPair, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", keys.private, "-out", locked], check=True)
    locked.chmod(0o600)

    with pytest.raises(InvalidRequest, match="is encrypted"):
        signatures.sign(version, locked)
    with pytest.raises(InvalidRequest, match="the password is wrong"):
        signatures.sign(version, locked, b"guess")
    signatures.sign(version, locked, b"secret")

    assert check(signatures, version, keys).holds


def _private(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _openssl(path: Path, algorithm: str) -> Path:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", algorithm, "-out", path],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    path.chmod(0o600)
    return path
