"""Which files of what MLflow holds are the model, and imports that are interrupted."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.registry.registry import Registry

from .conftest import MakeModel


class Store:
    """A local MLflow of a team: a folder (`./mlruns`), or SQLite beside one with the files."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.uri = uri
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.tracking import MlflowClient

            self._client: Any = MlflowClient(uri, uri)
            experiment = self._client.create_experiment("team", (folder / "artifacts").as_uri())
            self.run: str = self._client.create_run(experiment).info.run_id

    def log(self, folder: Path, at: str) -> None:
        self._client.log_artifacts(self.run, str(folder), at)


@pytest.fixture(params=["sqlite", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "sqlite":
        return Store(tmp_path, f"sqlite:///{tmp_path / 'team.db'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return Store(tmp_path, str(tmp_path / "mlruns"))


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_a_logged_transformers_model_is_put_together(
    store: Store, registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    """As MLflow's transformers flavour lays it out: weights and tokenizer apart."""
    store.log(make_model("weights"), "logged/model")
    store.log(write(tmp_path / "tokenizer", "tokenizer.json"), "logged/components/tokenizer")
    store.log(write(tmp_path / "about", "MLmodel", "conda.yaml"), "logged")

    version = registry.import_mlflow(
        f"runs:/{store.run}/logged", name="chat", tracking_uri=store.uri
    ).version

    assert [file.path for file in version.manifest.files] == [
        "config.json",
        "empty.txt",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_what_is_no_single_model_is_refused_and_the_choice_named(
    store: Store, registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        store.log(make_model(name), f"models/{name}")
    store.log(write(tmp_path / "pickled", "pytorch_model.bin", "config.json"), "pickled")

    def take(path: str) -> None:
        registry.import_mlflow(f"runs:/{store.run}/{path}", name="x", tracking_uri=store.uri)

    with pytest.raises(InvalidRequest, match="several models: one, two") as several:
        take("models")
    assert several.value.next_step.endswith(f"runs:/{store.run}/models/one")
    with pytest.raises(InvalidRequest, match=r"pytorch_model\.bin can hold a pickle"):
        take("pickled")
    with pytest.raises(InvalidRequest, match="holds no files"):
        take("nothing")
    with pytest.raises(NotFound, match="is not in the MLflow at"):
        registry.import_mlflow(f"runs:/{'0' * 32}/x", name="x", tracking_uri=store.uri)
    assert registry.versions() == []


def test_an_interrupted_import_goes_on(
    store: Store, registry: Registry, make_model: MakeModel
) -> None:
    model = make_model("theirs", size_bytes=8192)
    store.log(model, "model")
    address = f"runs:/{store.run}/model"

    def interrupt(_stage: str, done: int, total: int) -> None:
        if done >= total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.import_mlflow(address, name="x", tracking_uri=store.uri, progress=interrupt)
    (folder,) = [path for path in registry.home.downloads.iterdir() if path.is_dir()]
    kept = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert "model.safetensors" in kept

    version = registry.import_mlflow(address, name="x", tracking_uri=store.uri).version

    (weights,) = [f for f in version.manifest.files if f.path == "model.safetensors"]
    assert registry.blobs.path(weights.sha256).stat().st_ino == kept["model.safetensors"]
    assert list(registry.home.downloads.iterdir()) == []
