"""What differs between two versions, by name."""

from pathlib import Path

from modelyard.registry.diff import TensorChange
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry

from .conftest import MakeModel, Tensors, write_safetensors


def test_tensors_are_compared_by_name_wherever_they_lie(
    registry: Registry, make_model: MakeModel
) -> None:
    one, two = make_model("one"), make_model("two")
    _weights(
        one / "model.safetensors",
        {
            "same": ("F32", [2], b"\1" * 8),
            "moved": ("F32", [3], b"\2" * 12),
            "changed": ("BF16", [4], b"\3" * 8),
            "recast": ("F32", [2], b"\4" * 8),
            "gone": ("I8", [5], b"\5" * 5),
        },
    )
    (two / "model.safetensors").unlink()
    _weights(
        two / "model-1.safetensors",
        {"same": ("F32", [2], b"\1" * 8), "changed": ("BF16", [4], b"\3" * 7 + b"\0")},
    )
    _weights(
        two / "model-2.safetensors",
        {
            "new": ("I8", [1], b"\6"),
            "moved": ("F32", [3], b"\2" * 12),
            "recast": ("BF16", [2], b"\4" * 4),
        },
    )
    registry.register("a", one)
    registry.register("a", two)

    found = registry.diff("a:1", "a:2")

    assert found.tensors == (
        TensorChange(name="changed", before="BF16[4]", after="BF16[4]"),
        TensorChange(name="gone", before="I8[5]", after=None),
        TensorChange(name="new", before=None, after="I8[1]"),
        TensorChange(name="recast", before="F32[2]", after="BF16[2]"),
    )
    assert found.tensors_equal == 2
    assert not found.same


def _weights(path: Path, tensors: Tensors) -> None:
    write_safetensors(path, tensors)


def test_files_facts_and_metrics_stand_side_by_side(
    registry: Registry, make_model: MakeModel
) -> None:
    one, two = make_model("one"), make_model("two", size_bytes=8192)
    (one / "empty.txt").unlink()
    (two / "README.md").write_text("more")
    registry.register("a", one, origin=Origin(metrics={"accuracy": 0.5, "loss": 2.0}))
    registry.register("b", two, origin=Origin(metrics={"accuracy": 0.75}))

    found = registry.diff("a", "b")

    assert [(f.path, f.before_bytes, f.after_bytes) for f in found.files][:2] == [
        ("README.md", None, 4),
        ("empty.txt", None, 0),
    ]
    assert [file.path for file in found.files[2:]] == ["model.safetensors"]
    assert {fact.name: (fact.before, fact.after) for fact in found.facts}["parameters"] == (
        2048,
        4096,
    )
    assert [(metric.name, metric.before, metric.after) for metric in found.metrics] == [
        ("accuracy", 0.5, 0.75),
        ("loss", 2.0, None),
    ]


def test_the_same_content_has_no_difference(registry: Registry, make_model: MakeModel) -> None:
    model = make_model()
    registry.register("a", model)
    registry.register("b", model)
    read: list[int] = []

    found = registry.diff("a", "b", progress=lambda _name, done, _total: read.append(done))

    assert found.same
    assert (found.files, found.facts, found.tensors, found.tensors_equal) == ((), (), (), 1)
    assert read == [], "what both share is not read"
