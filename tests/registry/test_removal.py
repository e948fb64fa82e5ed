"""Taking versions out: refused while needed, final otherwise."""

import pytest

from modelyard.core.errors import Conflict, NotFound
from modelyard.registry.origin import Origin
from modelyard.registry.pins import Pin
from modelyard.registry.registry import Registry

from .conftest import MakeModel


@pytest.fixture
def two(registry: Registry, make_model: MakeModel) -> Registry:
    registry.register("a", make_model("one", seed=b"1"))
    registry.register("a", make_model("two", seed=b"2"), origin=Origin(parent="a:1"))
    return registry


def test_a_number_is_never_given_again(two: Registry, make_model: MakeModel) -> None:
    assert two.remove("a:2", reason="too small").version.version == 2

    assert [version.version for version in two.versions("a")] == [1]
    with pytest.raises(NotFound, match="a:1"):
        two.get("a:2")
    again = two.register("a", make_model("again", seed=b"2"))
    assert (again.version.version, again.created) == (3, True)


def test_what_an_alias_means_stays(two: Registry) -> None:
    two.set_alias("a:2", "production")

    with pytest.raises(Conflict, match="the alias a@production"):
        two.remove("a:2")

    assert two.get("a:2")


def test_what_a_child_was_made_of_stays(two: Registry) -> None:
    with pytest.raises(Conflict, match="its child a:2"):
        two.remove("a:1")

    two.remove("a:2")
    two.remove("a:1")
    assert two.versions() == []


def test_a_parent_with_another_name_may_lose_this_one(two: Registry, make_model: MakeModel) -> None:
    two.register("b", make_model("copy", seed=b"1"))

    two.remove("a:1")

    assert two.lineage("a:2")[0].versions == ("b:1",)


def test_what_is_deployed_stays(two: Registry) -> None:
    version = two.get("a:2")
    two.hold("controller", [Pin("a", 2, version.digest, "deployment chat")])

    with pytest.raises(Conflict, match="the deployment chat"):
        two.remove("a:2")

    two.hold("controller", [])
    two.remove("a:2")


def test_the_catalogue_follows(two: Registry) -> None:
    two.remove("a:2")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{two.home.catalogue}")
    shown = client.search_model_versions("name='a'")
    assert [int(version.version) for version in shown] == [1]
