"""What a folder may hold (R1, R8)."""

import os
import socket
from pathlib import Path

import pytest

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry.source import check_unchanged, scan

from .conftest import MakeModel


def names(folder: Path) -> list[str]:
    return [file.path for file in scan(folder)]


def test_files_of_subfolders_and_empty_ones_are_listed(make_model: MakeModel) -> None:
    model = make_model()
    (model / "original").mkdir()
    (model / "original" / "params.json").write_text("{}")
    (model / ".hidden").write_text("counts")
    assert names(model) == [
        ".hidden", "config.json", "empty.txt", "model.safetensors", "original/params.json",
    ]  # fmt: skip


def test_what_tools_leave_behind_is_left_out(make_model: MakeModel) -> None:
    model = make_model()
    for folder in (".git", ".cache", "__pycache__"):
        (model / folder).mkdir()
        (model / folder / "x").write_text("x")
    (model / ".DS_Store").write_text("x")
    (model / ".gitattributes").write_text("x")
    assert names(model) == ["config.json", "empty.txt", "model.safetensors"]


def test_links_of_a_hugging_face_cache_are_resolved(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in model.iterdir():
        file.rename(cache / "blobs" / f"hash-of-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-of-{file.name}")

    files = scan(snapshot)

    assert [file.path for file in files] == ["config.json", "empty.txt", "model.safetensors"]
    assert all(Path(file.location).parent == cache / "blobs" for file in files)


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "../../blobs/x"])
def test_a_link_that_leads_out_is_refused(
    make_model: MakeModel, tmp_path: Path, target: str
) -> None:
    model = make_model("deep/model")
    (tmp_path / "deep" / "outside").write_text("x")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "x").write_text("x")
    (model / "extra.json").symlink_to(target)
    with pytest.raises(InvalidRequest, match=r"'extra\.json' .* leads out of the folder"):
        scan(model)


def test_a_link_to_a_folder_a_dangling_one_and_a_circle_are_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    for number, target in enumerate([".", "nowhere", "link"]):
        model = make_model(f"model{number}")
        (model / "link").symlink_to(target)
        with pytest.raises(InvalidRequest):
            scan(model)


def test_fifos_and_sockets_are_refused(make_model: MakeModel) -> None:
    model = make_model("one")
    os.mkfifo(model / "pipe")
    with pytest.raises(InvalidRequest, match=r"'pipe' .* is not a regular file"):
        scan(model)
    model = make_model("two")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(model / "socket"))
        with pytest.raises(InvalidRequest, match=r"'socket' .* is not a regular file"):
            scan(model)


def test_names_that_are_not_utf8_or_collide_are_refused(make_model: MakeModel) -> None:
    model = make_model("one")
    (Path(os.fsdecode(os.fsencode(model) + b"/caf\xe9.txt"))).write_text("x")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        scan(model)
    model = make_model("two")
    (model / "Config.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="differ only in case"):
        scan(model)


def test_a_folder_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        scan(tmp_path / "nowhere")
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(InvalidRequest, match=r"holds no weights \(no files\)"):
        scan(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"holds no weights \(1 other files\)"):
        scan(folder)


def test_the_folder_that_does_hold_weights_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    make_model("cache/snapshots/abc")
    with pytest.raises(InvalidRequest, match="snapshots/abc does"):
        scan(tmp_path / "cache")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.pth", "A.PKL", "sub/x.ckpt"])
def test_pickles_are_refused_by_name(make_model: MakeModel, name: str) -> None:
    model = make_model()
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"anything")
    with pytest.raises(InvalidRequest, match="can hold a pickle, which runs its author's code"):
        scan(model)


def test_a_folder_of_pickles_alone_says_why_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidRequest, match="can hold a pickle"):
        scan(tmp_path)


@pytest.mark.parametrize("change", ["add", "remove", "rewrite"])
def test_a_folder_that_changed_since_it_was_listed_is_refused(
    make_model: MakeModel, change: str
) -> None:
    model = make_model()
    files = scan(model)
    check_unchanged(model, files)
    if change == "remove":
        (model / "empty.txt").unlink()
    else:
        (model / {"add": "new.txt", "rewrite": "empty.txt"}[change]).write_text("x")
    with pytest.raises(Conflict, match="changed while it was read"):
        check_unchanged(model, files)
