"""Listing by pages, and what is said when a ref does not exist."""

import json
import time

import pytest

from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.registry.registry import Registry

from .conftest import MakeModel

MANY = 10_000


def _fill(registry: Registry, names: int, each: int) -> None:
    """Records as `register` writes them, made of the one of m0:1."""
    first = json.loads((registry.home.versions / "m0" / "1.json").read_bytes())
    for name in (f"m{number}" for number in range(names)):
        folder = registry.home.versions / name
        folder.mkdir(exist_ok=True)
        for version in range(1, each + 1):
            record = {**first, "name": name, "version": version}
            (folder / f"{version}.json").write_text(json.dumps(record))


def test_pages_follow_each_other_newest_first(registry: Registry, make_model: MakeModel) -> None:
    registry.register("m0", make_model())
    _fill(registry, names=2, each=3)
    registry.remove("m0:2")

    seen, after = [], None
    while True:
        page = registry.page(limit=2, after=after)
        seen += [str(version) for version in page.versions]
        assert page.total == 5
        after = page.next
        if after is None:
            break

    assert seen == ["m0:3", "m0:1", "m1:3", "m1:2", "m1:1"]
    assert [str(v) for v in registry.page("m1", limit=9, after="m1:3").versions] == ["m1:2", "m1:1"]
    assert next(str(v) for v in registry.page(after="m0:2").versions) == "m0:1"


@pytest.mark.parametrize(("names", "each"), [(1, MANY), (100, MANY // 100)])
def test_the_first_page_of_ten_thousand_comes_at_once(
    registry: Registry, make_model: MakeModel, names: int, each: int
) -> None:
    registry.register("m0", make_model())
    registry.set_alias("m0:1", "production")
    _fill(registry, names, each)
    fresh = Registry(registry.home)

    took_s = []
    for _ in range(5):
        begin = time.perf_counter()
        page = fresh.page(limit=100)
        assert fresh.get("m0@production").version == 1
        took_s.append(time.perf_counter() - begin)

    assert page.total == MANY
    assert min(took_s) < 0.1


def test_a_name_that_is_not_there_brings_the_nearest(
    registry: Registry, make_model: MakeModel
) -> None:
    registry.register("qwen3-small", make_model())
    registry.set_alias("qwen3-small:1", "production")
    registry.set_alias("qwen3-small:1", "staging")

    with pytest.raises(NotFound, match="there is qwen3-small"):
        registry.page("qwen-small")
    with pytest.raises(NotFound, match="there is qwen3-small@production, qwen3-small@staging"):
        registry.get("qwen3-small@prodution")
    with pytest.raises(NotFound, match="there is qwen3-small:1"):
        registry.get("qwen3-small:7")
    with pytest.raises(InvalidRequest, match="limit"):
        registry.page(limit=0)
    with pytest.raises(InvalidRequest, match="can't begin after"):
        registry.page(after="qwen3-small")
