"""Small models made of bytes, and homes whose catalogue is there already."""

import contextlib
import json
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from modelyard.core.home import Home
from modelyard.registry.catalogue import Catalogue
from modelyard.registry.registry import Registry

from .mlflow_server import MlflowServer, running_server

Tensors = Mapping[str, tuple[str, list[int], bytes]]
"""Name → dtype, shape, bytes."""

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "max_position_embeddings": 512,
    "vocab_size": 96,
}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, values) in tensors.items():
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += values
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def write_model(folder: Path, *, size_bytes: int = 4096, seed: bytes = b"a") -> Path:
    folder.mkdir(parents=True)
    values = (seed * (size_bytes // len(seed) + 1))[:size_bytes]
    tensors = {"model.embed_tokens.weight": ("BF16", [size_bytes // 2], values)}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "empty.txt").touch()
    return folder


MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """`make_model("a", size_bytes=4096, seed=b"x")` → a folder that can be registered."""

    def make(name: str = "model", *, size_bytes: int = 4096, seed: bytes = b"a") -> Path:
        return write_model(tmp_path / name, size_bytes=size_bytes, seed=seed)

    return make


@pytest.fixture(scope="session")
def empty_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables; making one takes a second."""
    database = tmp_path_factory.mktemp("catalogue") / "catalogue.db"
    assert Catalogue(f"sqlite:///{database}").newest("nothing") == 0
    return database


@pytest.fixture
def prepared_home(home: Home, empty_catalogue: Path) -> Home:
    """A home where MLflow's tables are there and nothing else."""
    home.root.mkdir()
    shutil.copy(empty_catalogue, home.catalogue)
    return home


@pytest.fixture
def registry(prepared_home: Home) -> Registry:
    return Registry(prepared_home)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One for all tests: starting it takes seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running_server(tmp_path_factory.mktemp("mlflow"), port) as server:
        yield server


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, as pytest's own can't be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions count meanwhile: root becomes the user nobody, others stay what they are."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
