"""The canonical manifest: what is in the digest, and what is not."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import IntegrityError, InvalidRequest
from modelyard.registry.manifest import (
    FileEntry,
    ManifestStore,
    build_manifest,
    canonical,
    check_path,
    digest_of,
)

DOCS = Path(__file__).parents[2] / "docs" / "manifest.md"
EMPTY = hashlib.sha256(b"").hexdigest()


def entry(path: str, sha256: str = EMPTY, size_bytes: int = 0) -> FileEntry:
    return FileEntry(path=path, sha256=sha256, size_bytes=size_bytes)


def test_the_documented_example_has_the_documented_digest() -> None:
    text = DOCS.read_text()
    (example,) = re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)
    (digest,) = re.findall(r"digest `(sha256:[0-9a-f]{64})`", text)
    hello = b'{"model_type":"qwen3"}'
    built = build_manifest(
        [entry("empty.txt"), entry("config.json", hashlib.sha256(hello).hexdigest(), len(hello))]
    )
    assert canonical(built).decode() == example
    assert digest_of(canonical(built)) == digest


def test_the_order_of_files_is_not_in_the_digest() -> None:
    names = ["b", "a/b", "a", "é", "z.txt"]
    forward = canonical(build_manifest([entry(name) for name in names if name != "a"]))
    backward = canonical(build_manifest([entry(n) for n in reversed(names) if n != "a"]))
    assert forward == backward


@given(st.lists(st.text(min_size=1, max_size=8), max_size=6, unique=True))
def test_every_accepted_manifest_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    store = ManifestStore(tmp_path_factory.getbasetemp() / "manifests")
    try:
        manifest = build_manifest(entry(name) for name in names)
    except InvalidRequest:
        return
    assert store.get(store.put(manifest)) == manifest


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\\b", "a\nb", "x" * 1025]
)
def test_paths_that_could_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="not allowed"):
        check_path(path)


@pytest.mark.parametrize(
    "pair", [("Config.json", "config.json"), ("é.txt", "e\u0301.txt"), ("A/x", "a/y")]
)
def test_names_that_collide_elsewhere_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="differ only in case or Unicode form"):
        build_manifest(entry(name) for name in pair)


def test_a_manifest_edited_by_hand_is_noticed(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path)
    digest = store.put(build_manifest([entry("a")]))
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))

    with pytest.raises(IntegrityError, match=r"manifest .* is damaged"):
        store.get(digest)

    assert store.put(build_manifest([entry("a")])) == digest
    assert store.get(digest).files[0].path == "a"
