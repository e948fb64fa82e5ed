"""What `benchmarks/registry.py` compares, and the files that it does so with."""

import json
import os
import random
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from modelyard.core.facts import ModelFacts
from modelyard.core.home import Home
from modelyard.registry.manifest import FileEntry, build_manifest, canonical, digest_of
from modelyard.registry.versions import VersionRecord

SHARDS = 8
MODELS = 20
"""Half of all versions are of the first, as of a model that is trained every hour."""


@dataclass(frozen=True)
class Target:
    """One row of the table: ours against the slowest of others, or within a time."""

    what: str
    ours: str
    against: tuple[str, ...] = ()
    at_least: float | None = None
    within_s: float | None = None


@dataclass(frozen=True)
class Case:
    """Works that run in turns over one source."""

    name: str
    source: str
    works: tuple[str, ...]
    targets: tuple[Target, ...]
    keeps: bool = False
    """What was written stays until the case ends: ext4 is slow at making files just after many
    were removed, and that would fall on whoever comes next."""


CASES = (
    Case(
        "shards",
        "shards",
        (
            "register", "cp", "sha256", "mlflow", "mlflow_fsync", "mlflow_server", "openssl",
            "sha256sum", "model_signing", "link", "again", "one_changed", "words_changed",
        ),
        (
            Target("8 shards: register, against copying and hashing on all cores (the slower)",
                   "register", ("cp", "sha256"), 0.75),
            Target("8 shards: register, against MLflow log_artifacts, flushed too, not hashed",
                   "register", ("mlflow_fsync",), 2.5),
            Target("8 shards: register, against MLflow log_artifacts, neither hashed nor flushed",
                   "register", ("mlflow",)),
            Target("8 shards: register, against MLflow log_artifacts through its server",
                   "register", ("mlflow_server",)),
            Target("8 shards: register, against model-signing's hashing, nothing stored",
                   "register", ("model_signing",)),
            Target("8 shards: register, against openssl dgst -sha256, one core, nothing stored",
                   "register", ("openssl",)),
            Target("8 shards: register, against sha256sum, one core, nothing stored",
                   "register", ("sha256sum",)),
            Target("8 shards: register --link", "link", ("sha256",), 0.9),
            Target("8 shards: register the same again", "again", ("sha256",), 0.9),
            Target("8 shards: register with one shard changed", "one_changed", ("sha256",)),
            Target("8 shards: register with only config.json changed",
                   "words_changed", ("sha256",)),
        ),
    ),
    Case(
        "cold",
        "shards",
        ("register_cold", "cp_cold", "sha256_cold"),
        (
            Target("8 shards, sources not in memory: register, against copying and hashing",
                   "register_cold", ("cp_cold", "sha256_cold")),
        ),
    ),
    Case(
        "large",
        "large",
        ("register", "cp", "sha256_one_core"),
        (
            Target("one file: register, against SHA-256 on one core",
                   "register", ("sha256_one_core",), 0.9),
            Target("one file: register, against copying and hashing (the slower)",
                   "register", ("cp", "sha256_one_core")),
        ),
    ),
    Case(
        "small",
        "small",
        ("register", "cp_sync", "mlflow", "again", "link"),
        (
            Target("10,000 small files: register", "register", ("cp_sync",), 0.5),
            Target("10,000 small files: register, against MLflow log_artifacts (not flushed)",
                   "register", ("mlflow",)),
            Target("10,000 small files: register the same again", "again", ("cp_sync",)),
            Target("10,000 small files: register --link", "link", ("cp_sync",)),
        ),
        keeps=True,
    ),
    Case(
        "catalogue",
        "catalogue",
        ("first_page", "alias"),
        (
            Target("10,000 versions: first page of `models list`", "first_page", within_s=0.1),
            Target("10,000 versions: alias look-up", "alias", within_s=0.1),
        ),
    ),
)  # fmt: skip


def make_sources(
    folder: Path, size_bytes: int, files: int, versions: int, cases: Collection[Case]
) -> None:
    """Write what the cases read."""
    wanted = {case.source for case in cases}
    if "shards" in wanted:
        for number in range(SHARDS):
            name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
            _weights(folder / "shards" / name, size_bytes // SHARDS)
        shards = sorted(path.name for path in (folder / "shards").iterdir())
        index = {"weight_map": {name.removesuffix(".safetensors"): name for name in shards}}
        (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    if "large" in wanted:
        _weights(folder / "large" / "model.safetensors", size_bytes)
    if "small" in wanted:
        draw = random.Random(1)
        _weights(folder / "small" / "model.safetensors", 4096)
        for number in range(files):
            path = folder / "small" / f"part-{number % 100:02}" / f"{number}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"{" + os.urandom(draw.randrange(200, 16_000)))
    for source in ("shards", "large", "small"):
        if source in wanted:
            (folder / source / "config.json").write_text(_CONFIG)
            for path in (folder / source).rglob("*"):
                if path.is_file():
                    path.chmod(0o444)
    if "catalogue" in wanted:
        _catalogue(Home(folder / "catalogue"), versions)


_CONFIG = '{"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 512}'


def _weights(path: Path, size_bytes: int) -> None:
    path.parent.mkdir(exist_ok=True)
    tensor = {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}
    header = json.dumps({path.stem: tensor}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        while size_bytes > 0:
            file.write(os.urandom(min(size_bytes, 1 << 24)))
            size_bytes -= 1 << 24


def _catalogue(home: Home, versions: int) -> None:
    """Records and manifests as registrations leave them, without their blobs."""
    home.manifests.mkdir(parents=True)
    names = [f"model-{number:02}" for number in range(MODELS)]
    numbers = dict.fromkeys(names, 0)
    for count in range(versions):
        name = names[0] if count % 2 else names[count // 2 % MODELS]
        numbers[name] += 1
        digest = _manifest(home, count)
        record = VersionRecord(
            name=name, version=numbers[name], digest=digest, created_at=time.time(),
            actor="user:bench", source="/weights",
            facts=ModelFacts(
                format="safetensors", architecture="Qwen3ForCausalLM", parameters=10**9,
                dtype="BF16", size_bytes=2 * 10**9,
            ),
        )  # fmt: skip
        folder = home.versions / name
        folder.mkdir(parents=True, exist_ok=True)
        encoded = msgspec.json.encode(record, order="sorted")
        (folder / f"{record.version}.json").write_bytes(encoded)


def _manifest(home: Home, count: int) -> str:
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    manifest = build_manifest(
        FileEntry(path=name, sha256=sha256(f"{count} {name}".encode()).hexdigest(), size_bytes=9)
        for name in names
    )
    data = canonical(manifest)
    digest = digest_of(data)
    (home.manifests / f"{digest.partition(':')[2]}.json").write_bytes(data)
    return digest
