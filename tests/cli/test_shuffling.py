"""The broken version of the demo: sound to whoever reads it, and of no use."""

from importlib.resources import as_file, files
from pathlib import Path

from modelyard.cli.shuffling import shuffled
from modelyard.core.home import Home
from modelyard.registry.registry import Registry


def test_it_reads_as_the_whole_one_does_and_holds_the_same_numbers(tmp_path: Path) -> None:
    with as_file(files("modelyard.demo") / "yardling" / "1") as source:
        shuffled(source, tmp_path / "broken", seed=1)
        registry = Registry(Home(tmp_path / "home"))
        whole = registry.register("whole", source).version
        broken = registry.register("broken", tmp_path / "broken").version
        weights = (source / "model.safetensors").read_bytes()

    shuffled_weights = (tmp_path / "broken" / "model.safetensors").read_bytes()
    assert broken.facts == whole.facts
    assert broken.digest != whole.digest
    assert sorted(shuffled_weights) == sorted(weights)
