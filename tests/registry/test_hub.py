"""Fetching from a hub: whole, continued, held against its hashes; each refusal in one line."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry.conftest import write_model
from tests.registry.hub_stand_in import COMMIT, StandIn, serving

from modelyard.core.errors import (
    Forbidden,
    IntegrityError,
    InvalidRequest,
    ModelyardError,
    NotFound,
    Unavailable,
)
from modelyard.registry.hub import Address, Hub, parse_address

ADDRESS = "hf://acme/small@main"
SIZE = 3_000_000
TOKEN = "hf_verysecret"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "source", size_bytes=SIZE, seed=b"weights")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "merges.txt").write_text("a b\n")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    return folder


@pytest.fixture
def stand_in(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with serving(source) as hub:
        use_endpoint(monkeypatch, hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does to a process that has not imported the library yet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "downloads", pause_s=0.001)


def fetched_files(hub: Hub, address: str = ADDRESS) -> dict[str, bytes]:
    with hub.fetched(address, None) as fetched:
        return {
            path.relative_to(fetched.path).as_posix(): path.read_bytes()
            for path in fetched.path.rglob("*")
            if path.is_file()
        }


def refusal(hub: Hub, kind: type[ModelyardError], address: str = ADDRESS) -> ModelyardError:
    with pytest.raises(kind) as refused, hub.fetched(address, None):
        pytest.fail("nothing was refused")
    assert "\n" not in refused.value.message
    assert refused.value.next_step
    return refused.value


def test_a_model_comes_whole_with_its_commit(hub: Hub, stand_in: StandIn, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    with hub.fetched("hf://acme/small", lambda _n, done, total: seen.append((done, total))) as got:
        here = {p.relative_to(got.path).as_posix() for p in got.path.rglob("*") if p.is_file()}
        for name in here:
            assert (got.path / name).read_bytes() == stand_in.files[name]

    assert here == {"config.json", "empty.txt", "model.safetensors", "tokenizer/merges.txt"}
    assert (got.source, got.commit) == (ADDRESS, COMMIT)
    assert got.left_out == ("pytorch_model.bin",)
    assert seen[-1][0] == seen[-1][1] > SIZE
    assert [path for path in (tmp_path / "downloads").rglob("*") if path.name != ".lock"] == [
        tmp_path / "downloads" / "acme--small"
    ]


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, stand_in: StandIn) -> None:
    stand_in.break_after["model.safetensors"] = 1_000_000

    assert fetched_files(hub)["model.safetensors"] == stand_in.files["model.safetensors"]

    assert stand_in.sent["model.safetensors"] == len(stand_in.files["model.safetensors"])


def test_an_interrupted_fetch_goes_on_in_the_next(
    hub: Hub, stand_in: StandIn, tmp_path: Path
) -> None:
    def interrupt(name: str, done: int, _total: int) -> None:
        if done > 1_500_000:
            raise KeyboardInterrupt

    stand_in.break_after["model.safetensors"] = 2_000_000
    with pytest.raises(KeyboardInterrupt), hub.fetched(ADDRESS, interrupt):
        pytest.fail("it was not interrupted")
    kept = max(part.stat().st_size for part in (tmp_path / "downloads").rglob("parts/*"))
    asked_before = len(stand_in.asked)

    files = fetched_files(Hub(tmp_path / "downloads"))

    weights = stand_in.files["model.safetensors"]
    assert files["model.safetensors"] == weights
    assert 1_000_000 < kept < len(weights)
    ranges = [
        wanted
        for path, _, wanted, _ in stand_in.asked[asked_before:]
        if path == "/content/model.safetensors"
    ]
    assert ranges == [f"bytes={kept}-{len(weights) - 1}"]


def test_a_server_without_ranges_sends_the_whole_again(hub: Hub, stand_in: StandIn) -> None:
    stand_in.no_ranges = True
    stand_in.break_after["model.safetensors"] = 1_000_000

    assert fetched_files(hub)["model.safetensors"] == stand_in.files["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_the_announced_ones_are_refused(
    hub: Hub, stand_in: StandIn, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = stand_in.tree()
    monkeypatch.setattr(stand_in, "tree", lambda: listed)
    right = stand_in.files[name]
    stand_in.files[name] = right[:-1] + b"?"

    assert name in refusal(hub, IntegrityError).message

    stand_in.files[name] = right
    assert fetched_files(hub)[name] == right


def test_the_token_goes_to_the_hub_only_and_into_no_log(
    hub: Hub, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    fetched_files(hub)
    stand_in.statuses["/api/models/acme/small/revision/main"] = (500, {})
    error = refusal(hub, Unavailable)

    sent = {(origin, authorization) for _, origin, _, authorization in stand_in.asked}
    assert sent == {(stand_in.url, f"Bearer {TOKEN}"), (stand_in.content_url, None)}
    assert TOKEN not in caplog.text + error.message + error.next_step


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (401, "RepoNotFound", NotFound, "or it is private"),
        (404, "RepoNotFound", NotFound, "no model acme/small"),
        (403, "GatedRepo", Forbidden, "is gated"),
        (404, "RevisionNotFound", NotFound, "no revision 'main'"),
        (403, "", Forbidden, "answered 403"),
        (503, "", Unavailable, "answered 503"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    hub: Hub, stand_in: StandIn, status: int, code: str, kind: type[ModelyardError], words: str
) -> None:
    stand_in.statuses["/api/models/acme/small/revision/main"] = (status, {"X-Error-Code": code})

    assert words in refusal(hub, kind).message


def test_no_network_is_said_so(hub: Hub, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    url = f"http://127.0.0.1:{free_port}"
    use_endpoint(monkeypatch, url)
    assert f"can't reach the hub {url}" in refusal(hub, Unavailable).message

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(hub, Unavailable).next_step


def test_a_hub_that_goes_away_gives_up_after_a_few_attempts(
    hub: Hub, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.statuses["/content/model.safetensors"] = (502, {})

    assert "answered 502" in refusal(hub, Unavailable).message

    assert sum(path == "/content/model.safetensors" for path, *_ in stand_in.asked) == 5
    del stand_in.statuses["/content/model.safetensors"]
    assert fetched_files(hub)


def test_a_listing_that_leads_out_is_refused(hub: Hub, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.files["../../outside.safetensors"] = b"x"

    assert "outside.safetensors" in refusal(hub, InvalidRequest).message
    assert not list(tmp_path.rglob("outside*"))


def test_pickles_only_is_refused_before_anything_is_fetched(hub: Hub, stand_in: StandIn) -> None:
    del stand_in.files["model.safetensors"]

    assert "pytorch_model.bin" in refusal(hub, InvalidRequest).message
    assert not stand_in.sent


def test_of_several_ggufs_one_must_be_named(hub: Hub, stand_in: StandIn) -> None:
    del stand_in.files["model.safetensors"]
    stand_in.files |= {"small-q4.gguf": b"four", "small-q8.gguf": b"eight"}

    error = refusal(hub, InvalidRequest)
    assert f"{ADDRESS}/small-q4.gguf" in error.next_step
    with hub.fetched(f"{ADDRESS}/small-q8.gguf", None) as fetched:
        assert fetched.path.read_bytes() == b"eight"
    assert "small-q4.gguf" in refusal(hub, NotFound, f"{ADDRESS}/q5.gguf").next_step
    assert set(stand_in.sent) == {"small-q8.gguf"}


def test_a_second_fetch_beside_it_does_not_disturb(hub: Hub, stand_in: StandIn) -> None:
    """They wait for each other; both end with the whole model."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: fetched_files(hub), range(2))

    assert one == two
    assert set(one) >= {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://a/b", Address(repository="a/b")),
        ("hf://a/b.c-1@v1.0", Address(repository="a/b.c-1", revision="v1.0")),
        ("hf://a/b@refs/pr/3", Address(repository="a/b", revision="refs/pr/3")),
        ("hf://a/b@x%2Fy/q/f.gguf", Address(repository="a/b", revision="x/y", file="q/f.gguf")),
        ("hf://a/b/f.gguf", Address(repository="a/b", file="f.gguf")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/b@", "hf:///b", "hf://a b/c"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no address of a model"):
        parse_address(text)
