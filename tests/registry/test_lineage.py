"""R11: a child names its parent's digest, the recipe, the seed and the data digest."""

import json
from pathlib import Path

import pytest

from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry
from modelyard.registry.versions import Recipe

from .conftest import MakeModel

DATA = "sha256:" + "d" * 64
RECIPE = Recipe(kind="quantize", tool="squeeze 1.2", options={"bits": 4}, seed=7, data_digest=DATA)


def test_a_child_records_parent_recipe_seed_and_data(
    registry: Registry, make_model: MakeModel
) -> None:
    parent = registry.register("a", make_model("one", seed=b"1")).version

    origin = Origin(parent="a:1", recipe=RECIPE, metrics={"accuracy": 0.5})
    registry.register("a", make_model("two", seed=b"2"), origin=origin)

    child = Registry(registry.home).get("a:2")
    assert (child.parent, child.recipe) == (parent.digest, RECIPE)
    assert child.metrics == {"accuracy": 0.5}
    assert registry.children("a:1") == ("a:2",)
    record = json.loads((registry.home.versions / "a" / "2.json").read_bytes())
    assert record["recipe"]["seed"] == 7
    assert record["recipe"]["data_digest"] == DATA


def test_a_family_is_drawn_from_its_oldest_member(
    registry: Registry, make_model: MakeModel
) -> None:
    registry.register("base", make_model("one", seed=b"1"))
    registry.register("tuned", make_model("two", seed=b"2"), origin=Origin(parent="base"))
    registry.register("small", make_model("three", seed=b"3"), origin=Origin(parent="tuned"))
    registry.register("other", make_model("four", seed=b"4"), origin=Origin(parent="base"))
    registry.register("stranger", make_model("five", seed=b"5"))

    family = registry.lineage("tuned:1")

    assert [(node.depth, node.versions, node.asked) for node in family] == [
        (0, ("base:1",), False),
        (1, ("tuned:1",), True),
        (2, ("small:1",), False),
        (1, ("other:1",), False),
    ]


def test_a_parent_may_be_registered_elsewhere(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model(), origin=Origin(parent=DATA))

    elsewhere, here = registry.lineage("a:1")

    assert (elsewhere.digest, elsewhere.versions) == (DATA, ())
    assert here.asked


def test_two_contents_each_made_of_the_other_end(registry: Registry, make_model: MakeModel) -> None:
    one, two = make_model("one", seed=b"1"), make_model("two", seed=b"2")
    registry.register("a", one)
    registry.register("b", two, origin=Origin(parent="a:1"))
    registry.register("c", one, origin=Origin(parent="b:1"))

    assert len(registry.lineage("c:1")) == 2


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Origin(parent="a:1"), "the parent's own"),
        (Origin(recipe=RECIPE), "no parent"),
        (Origin(parent="a:1", recipe=Recipe(kind=" ")), "no kind"),
        (Origin(parent="a:1", recipe=Recipe(kind="x", data_digest="d")), "not a digest"),
        (Origin(metrics={"loss": float("nan")}), "the metric loss is nan"),
        (Origin(metrics={"": 1.0}), "not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused(
    registry: Registry, make_model: MakeModel, origin: Origin, words: str
) -> None:
    model = make_model()
    registry.register("a", model)

    with pytest.raises(InvalidRequest, match=words):
        registry.register("b", model, origin=origin)

    assert [str(version) for version in registry.versions()] == ["a:1"]


def test_an_unknown_parent_is_refused_before_anything_is_copied(
    registry: Registry, make_model: MakeModel
) -> None:
    with pytest.raises(NotFound):
        registry.register("a", make_model(), origin=Origin(parent="nothing"))

    assert not registry.home.blobs.exists()


def test_what_is_registered_keeps_its_lineage(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model("one", seed=b"1"))
    model = make_model("two", seed=b"2")
    registry.register("b", model)

    again = registry.register("b", model, origin=Origin(parent="a:1"))

    assert not again.created
    assert again.version.parent is None
    assert "stays as it was registered" in again.warnings[0]


def test_a_long_line_is_no_problem(registry: Registry, make_model: MakeModel) -> None:
    model = make_model()
    registry.register("a", model)
    first = Path(registry.home.versions / "a" / "1.json").read_text()
    digest, parent = json.loads(first)["digest"], None
    for number in range(2, 1500):
        record = {**json.loads(first), "version": number}
        record["digest"] = digest if number == 1499 else f"sha256:{number:064x}"
        record["parent"], parent = parent, record["digest"]
        (registry.home.versions / "a" / f"{number}.json").write_text(json.dumps(record))

    assert len(registry.lineage("a:1")) == 1498
