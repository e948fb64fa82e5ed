"""R10: what is needed stays, what is not goes, whatever happens at the same time."""

import threading
from pathlib import Path

import pytest

from modelyard.core.errors import Conflict, IntegrityError
from modelyard.core.home import Home
from modelyard.registry.gc import Collection
from modelyard.registry.origin import Origin
from modelyard.registry.pins import Pin
from modelyard.registry.registry import Registry
from modelyard.registry.staging import locked

from .conftest import MakeModel

ROUNDS = 8


def kinds(collection: Collection) -> set[str]:
    return {item.kind for item in collection.garbage}


def blobs(home: Home) -> set[str]:
    return {path.name for path in (home.blobs / "sha256").glob("*/*")}


def test_what_every_version_needs_stays(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model("one", seed=b"1"))
    registry.register("a", make_model("two", seed=b"2"), origin=Origin(parent="a:1"))
    registry.load("a:1")
    registry.set_alias("a:1", "production")
    before = blobs(registry.home)

    done = registry.gc()

    assert done.garbage == ()
    assert blobs(registry.home) == before
    for ref in ("a:1", "a:2", "a@production"):
        registry.load(ref)


def test_the_bytes_of_a_removed_version_go_and_shared_ones_stay(
    registry: Registry, make_model: MakeModel
) -> None:
    registry.register("a", make_model("one", seed=b"1"))
    registry.register("a", make_model("two", seed=b"2"))
    registry.load("a:2")
    registry.remove("a:2")
    before = blobs(registry.home)

    planned = registry.gc(dry_run=True)

    assert blobs(registry.home) == before, "a dry run removes nothing"
    done = registry.gc()
    assert (planned.removed, done.removed) == (False, True)
    assert planned.garbage == done.garbage
    assert kinds(done) == {"blob", "manifest", "tree"}
    weights = next(item for item in done.garbage if item.kind == "tree")
    assert weights.size_bytes == 0 or not _hard_links(registry)
    assert len(before - blobs(registry.home)) == 1, "config.json and empty.txt are shared"
    registry.load("a:1")
    assert registry.gc().garbage == ()


def _hard_links(registry: Registry) -> bool:
    return any(path.stat().st_nlink > 1 for path in (registry.home.blobs / "sha256").glob("*/*"))


def test_leftovers_of_dead_writers_go(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model())
    leftover = registry.home.blobs / "staging" / "123-abc"
    leftover.write_bytes(b"half a file")

    done = registry.gc()

    assert [(item.kind, item.size_bytes) for item in done.garbage] == [("leftover", 11)]
    assert not leftover.exists()


def test_an_import_that_nobody_goes_on_with_goes(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model())
    downloads = registry.home.downloads
    for name in ("mlflow-1", "mlflow-2"):
        (downloads / name).mkdir(parents=True)
        (downloads / name / "model.safetensors").write_bytes(b"half")

    with locked(downloads / "mlflow-2.lock"):
        done = registry.gc()

    assert [(item.kind, item.path, item.size_bytes) for item in done.garbage] == [
        ("download", "downloads/mlflow-1", 4)
    ]
    assert not (downloads / "mlflow-1").exists()
    assert (downloads / "mlflow-2").exists()


def test_what_is_pinned_stays(registry: Registry, make_model: MakeModel) -> None:
    version = registry.register("a", make_model()).version
    registry.remove("a:1")
    registry.hold("controller", [Pin("a", 1, version.digest, "deployment chat")])

    assert registry.gc().garbage == ()

    registry.hold("controller", [])
    assert "blob" in kinds(registry.gc())


def test_a_form_is_kept_with_its_version_and_goes_with_it(
    registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    version = registry.register("a", make_model()).version
    (tmp_path / "form").write_bytes(b"GGUF")
    blob = registry.blobs.put(tmp_path / "form")
    registry.home.forms.mkdir()
    provenance = registry.home.forms / f"{version.digest.removeprefix('sha256:')}.gguf.json"
    provenance.write_text(f'{{"blob_sha256": "{blob.sha256}"}}')
    assert registry.gc().garbage == ()

    registry.remove("a:1")

    assert "form" in kinds(registry.gc())
    assert not registry.blobs.path(blob.sha256).exists()
    assert not provenance.exists()


@pytest.mark.parametrize("damaged", ["manifests", "versions", "pins"])
def test_nothing_is_removed_when_it_is_unclear_what_is_needed(
    registry: Registry, make_model: MakeModel, damaged: str
) -> None:
    version = registry.register("a", make_model("one", seed=b"1")).version
    registry.register("b", make_model("two", seed=b"2"))
    registry.remove("b:1")
    registry.hold("controller", [Pin("a", 1, version.digest, "deployment chat")])
    home = registry.home
    path = {
        "manifests": home.manifests / f"{version.digest.removeprefix('sha256:')}.json",
        "versions": home.versions / "a" / "1.json",
        "pins": home.pins / "controller.json",
    }[damaged]
    path.chmod(0o644)
    path.write_bytes(b"{")
    before = blobs(home)

    with pytest.raises(IntegrityError, match=str(path)):
        registry.gc()

    assert blobs(home) == before


def test_a_registration_that_runs_holds_it_off(registry: Registry, make_model: MakeModel) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_name: str, _done: int, _total: int) -> None:
        begun.set()
        assert go_on.wait(30)

    registering = threading.Thread(
        target=registry.register, args=("a", make_model()), kwargs={"progress": wait}
    )
    registering.start()
    try:
        assert begun.wait(30)
        with pytest.raises(Conflict, match="using the registry"):
            registry.gc()
    finally:
        go_on.set()
        registering.join(30)

    assert registry.gc(wait_s=30).garbage == ()
    registry.verify("a:1")


def test_it_races_registrations_and_never_takes_what_they_use(
    registry: Registry, make_model: MakeModel
) -> None:
    """Versions come and go while another thread cleans up: what is registered is whole."""
    model = make_model()
    over = threading.Event()
    failures: list[Exception] = []
    collected = 0

    def collect() -> None:
        nonlocal collected
        other = Registry(registry.home)
        while not over.is_set():
            try:
                collected += len(other.gc(wait_s=0.2).garbage)
            except Conflict:
                continue
            except Exception as error:  # noqa: BLE001 - told below, by the test itself
                failures.append(error)
                return

    cleaning = threading.Thread(target=collect)
    cleaning.start()
    try:
        for number in range(1, ROUNDS + 1):
            assert registry.register("a", model).version.version == number
            registry.verify("a")
            registry.remove("a", wait_s=30)
    finally:
        over.set()
        cleaning.join(30)

    assert failures == []
    registry.gc()
    assert collected > 0
    assert blobs(registry.home) == set()
