"""The digest that the README shows is that of the packaged version 1."""

from pathlib import Path

from modelyard.core.home import Home
from modelyard.registry.registry import Registry

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_digest_of_the_packaged_model(home: Home) -> None:
    source = ROOT / "src" / "modelyard" / "demo" / "yardling" / "1"

    digest = Registry(home).register("yardling", source).version.digest

    assert f"x-modelyard-digest: {digest}" in (ROOT / "README.md").read_text()
